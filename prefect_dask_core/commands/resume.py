"""The command that goes on with a run: ``dask flow resume``."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import click

from prefect_dask_core.commands.ledgers import ledger_option, opened
from prefect_dask_core.commands.loading import AnyFlow, load_flow, parameters_from
from prefect_dask_core.commands.running import (
    place_options,
    progress_option,
    runner_of,
    tell_way_on,
    view_of,
)
from prefect_dask_core.errors import FlowParameterError, ParameterBindError
from prefect_dask_core.flows import Flow
from prefect_dask_core.ledger import Ledger, RunRecord
from prefect_dask_core.monitor.progress import is_terminal
from prefect_dask_core.recording import told_runner
from prefect_dask_core.runners.base import TaskRunner
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.default import default_runner
from prefect_dask_core.runners.prints import real_stderr
from prefect_dask_core.states import State


@click.command(name="resume")
@click.argument("run", metavar="RUN")
@click.argument("flow", metavar="[FILE.py:FLOW]", required=False)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter that gets another value, or was not kept. May be repeated.",
)
@place_options
@progress_option
@ledger_option
def command(
    run: str,
    flow: str | None,
    params: tuple[str, ...],
    address: str | None,
    n_workers: int | None,
    threads_per_worker: int | None,
    progress: bool | None,
    ledger: str | None,
) -> None:
    """Go on with a run that failed, or whose client, scheduler or workers died.

    RUN is its id, as `dask flow runs` lists it. The flow is looked for where it was
    defined when the run began, unless FILE.py:FLOW says where. What has ended well is
    not run again.
    """
    with opened(ledger) as found:
        source = flow or _source(found, run)
        made = load_flow(source)
        runner = runner_of(address, n_workers, threads_per_worker)
        _tell_runners(found.run(run).record, made, runner)
        silent = progress is None and not is_terminal(real_stderr())
        shown = False if silent else progress
        try:
            state = resume(made, run, parameters_from(params), runner, shown, found)
        except (FlowParameterError, ParameterBindError) as error:
            raise click.UsageError(str(error)) from error
    if silent:
        click.echo(str(view_of(state)))
    tell_way_on(state, ledger)
    if not state.is_successful():
        raise SystemExit(1)


def _tell_runners(before: RunRecord, flow: AnyFlow, given: TaskRunner | None) -> None:
    """Say so where the last attempt ran elsewhere, which nobody may be aware of."""
    own = flow.task_runner if isinstance(flow, Flow) else flow.options.task_runner
    runner = given or own or default_runner()
    there, here = before.runner, told_runner(runner)
    # Each cluster has an address of its own, though it be started the same way.
    if there.split()[:1] == here.split()[:1]:
        return
    told = f"attempt {before.attempt} ran on {there}; this one runs on {here} here"
    if not isinstance(runner, DaskTaskRunner):
        told += "; give --address or --n-workers to run on a cluster"
    click.echo(told, err=True)


def _source(ledger: Ledger, run: str) -> str:
    record = ledger.run(run).record
    if record.source is None:
        raise click.UsageError(
            f"the ledger does not know where flow {record.flow!r} is defined; name it: "
            f"dask flow resume {run} FILE.py:FLOW"
        )
    return record.source


def resume(
    flow: AnyFlow,
    run: str,
    parameters: dict[str, Any],
    runner: Any,
    progress: bool | None,
    ledger: Ledger,
) -> State:
    """Go on with a run of a flow of either kind, to its final state."""
    if isinstance(flow, Flow):
        return flow.run(
            parameters,
            task_runner=runner,
            progress=progress,
            resume=run,
            ledger=ledger,
        )
    if flow.isgenerator:
        raise click.UsageError(
            f"flow {flow.name!r} yields its values, so its run has no state to tell."
        )
    chosen = flow.with_options(task_runner=runner, progress=progress)
    found = chosen.resume(run, parameters, ledger=ledger, return_state=True)
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(found))
    state: State = found
    return state


async def _awaited(found: Any) -> Any:
    return await found
