"""The command that runs a flow of a file: ``dask flow run``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from distributed.comm.core import connect
from distributed.security import Security

from prefect_dask_core.commands.loading import AnyFlow, load_flow, parameters_from
from prefect_dask_core.errors import (
    FlowParameterError,
    LedgerError,
    ParameterBindError,
)
from prefect_dask_core.flows import Flow
from prefect_dask_core.monitor.progress import is_terminal
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.prints import real_stderr
from prefect_dask_core.states import State


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a flow runs; see `runner_of`."""
    options = (
        click.option("--address", help="Scheduler to run on, as tcp://10.0.0.1:8786."),
        click.option(
            "--n-workers",
            type=click.IntRange(min=1),
            help="Start a cluster on this machine, with so many worker processes.",
        ),
        click.option(
            "--threads-per-worker",
            type=click.IntRange(min=1),
            help="Threads of each of these workers.",
        ),
    )
    for option in reversed(options):  # the last that is added is listed first
        function = option(function)
    return function


def progress_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says whether a run shows how it goes."""
    return click.option(
        "--progress/--no-progress",
        default=None,
        help="Show how the run goes, or only what failed; on a terminal it is shown.",
    )(function)


@click.command(name="run")
@click.argument("flow", metavar="FILE.py:FLOW")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the flow: JSON, or else text. May be repeated.",
)
@place_options
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report of the run into this file.",
)
@click.option(
    "--ledger",
    metavar="URL",
    help="Record the run: in a file, or at a URL as postgresql://user@host/database.",
)
@progress_option
def command(
    flow: str,
    params: tuple[str, ...],
    address: str | None,
    n_workers: int | None,
    threads_per_worker: int | None,
    report: Path | None,
    ledger: str | None,
    progress: bool | None,
) -> None:
    """Run a flow of a file and say how it ended.

    Without --address and --n-workers the flow runs where its own task runner says, else
    in threads. The exit code is 0 if the run ended as Completed, else 1.
    """
    found = load_flow(flow)
    runner = runner_of(address, n_workers, threads_per_worker)
    # Where no lines can change there are none, but for how it ended.
    silent = progress is None and not is_terminal(real_stderr())
    shown = False if silent else progress
    try:
        state = run(found, parameters_from(params), runner, shown, ledger)
    except LedgerError as error:
        raise click.ClickException(str(error)) from error
    if silent:
        click.echo(str(view_of(state)))
    if report is not None:
        write_report(state, report)
    tell_way_on(state, ledger)
    if not state.is_successful():
        raise SystemExit(1)


def runner_of(
    address: str | None, n_workers: int | None, threads: int | None
) -> DaskTaskRunner | None:
    """The task runner that is asked for; `None`: that of the flow."""
    if address is not None:
        if n_workers is not None or threads is not None:
            raise click.UsageError(
                "--address names a cluster that runs already; leave out --n-workers "
                "and --threads-per-worker."
            )
        check_scheduler(address)
        return DaskTaskRunner(address=address)
    given = {"n_workers": n_workers, "threads_per_worker": threads}
    chosen = {name: value for name, value in given.items() if value is not None}
    return DaskTaskRunner(cluster_kwargs=chosen) if chosen else None


def check_scheduler(address: str) -> None:
    """Refuse an address at which there is no scheduler.

    Raises
    ------
    click.ClickException
        If nobody answers there, or it is no address.
    """

    async def ask() -> None:
        # Not by a client: one that could not connect takes a minute to close.
        security: Any = Security
        connecting: Any = connect
        arguments = security().get_connection_args("client")
        (await connecting(address, **arguments)).abort()

    try:
        asyncio.run(ask())
    except (OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(
            f"the scheduler at {address} cannot be reached: {error}"
        ) from error


def run(
    flow: AnyFlow,
    parameters: dict[str, Any],
    runner: DaskTaskRunner | None,
    progress: bool | None,
    ledger: str | None = None,
) -> State:
    """Run a flow of either kind to its final state.

    Raises
    ------
    click.UsageError
        If the parameters do not fit, or it is a flow that yields its values.
    """
    if isinstance(flow, Flow):
        try:
            return flow.run(
                parameters, task_runner=runner, progress=progress, ledger=ledger
            )
        except FlowParameterError as error:
            raise click.UsageError(str(error)) from error
    if flow.isgenerator:
        raise click.UsageError(
            f"flow {flow.name!r} yields its values, so its run has no state to tell; "
            "return a list instead."
        )
    changes = {"task_runner": runner, "progress": progress, "ledger": ledger}
    chosen = flow.with_options(**changes)
    try:
        found = chosen(**parameters, return_state=True)
    except ParameterBindError as error:
        raise click.UsageError(str(error)) from error
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(found))
    state: State = found
    return state


async def _awaited(found: Any) -> Any:
    return await found


def tell_way_on(state: State, ledger: str | None) -> None:
    """Say on stderr how a recorded run goes on that did not succeed."""
    if ledger is not None and not state.is_successful():
        told = f"resume it with: dask flow resume {state.run_id} and the same --ledger"
        click.echo(told, err=True)


def write_report(run: Any, path: Path) -> None:
    """Write the report of a run, and tell where it is.

    Raises
    ------
    click.ClickException
        If it cannot be written; the run itself is over and told of.
    """
    try:
        click.echo(str(run.report(path)))
    except OSError as error:
        raise click.ClickException(
            f"the report cannot be written to {path}: {error.strerror or error}"
        ) from error


def view_of(state: State) -> Any:
    """The run that ended in a state."""
    return getattr(state.states, "view", state)
