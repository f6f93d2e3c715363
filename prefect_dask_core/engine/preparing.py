"""Preparing: what comes before the body, and may make it needless."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from prefect_dask_core.cache_validators import CacheValidator
from prefect_dask_core.engine.caching import Caches, cache_name
from prefect_dask_core.engine.effects import Answer, Call, Effect, Raised, Returned
from prefect_dask_core.engine.task_run import TaskRun, failed_by, told
from prefect_dask_core.results.keeping import run_name
from prefect_dask_core.signals import PrefectStateSignal
from prefect_dask_core.states import Pending, Skipped, State, TriggerFailed
from prefect_dask_core.triggers import UPSTREAM_SKIPPED, Trigger


def refuse(run: TaskRun) -> Generator[Effect, Answer, State | None]:
    """State the run takes without its body, `None` if it may start."""
    tally = run.tally
    if tally.skipped and run.options.skip_on_upstream_skip:
        return Skipped(UPSTREAM_SKIPPED)
    trigger = run.options.trigger
    waiting = tally.finished < tally.total
    if isinstance(trigger, Trigger):
        refused = trigger.rule(tally, run.resumed)
    else:
        answer = yield Call(trigger, (run.upstream(),), variables=dict(run.variables))
        refused = _verdict(trigger, answer)
    if refused is not None and waiting and not refused.is_paused():
        # The question was put before its time: nothing above failed for good.
        return Pending("an upstream task has not finished.", name="WaitingForUpstream")
    return refused


def _verdict(trigger: Callable[..., Any], answer: Answer) -> State | None:
    """What the answer of a user's trigger means."""
    name = getattr(trigger, "__name__", type(trigger).__name__)
    if isinstance(answer, Returned):
        if answer.value:
            return None
        return TriggerFailed(f"trigger {name} returned {answer.value!r}.")
    assert isinstance(answer, Raised)
    if isinstance(answer.error, PrefectStateSignal):
        return answer.error.to_state(None)
    return TriggerFailed(
        f"trigger {name} raised {told(answer.error)}.", data=answer.error
    )


def prepare(
    run: TaskRun, inputs: Mapping[str, Any]
) -> Generator[Effect, Answer, State | None]:
    """Name the run, and look for a value that makes it needless.

    Returns
    -------
    State or None
        `Cached` if there is a value, `Failed` if the question failed, else `None`.
    """
    options = run.options
    if options.task_run_name is not None:
        args = (options.task_run_name, run.variables, run.all_inputs(inputs))
        answer = yield Call(run_name, args, variables=run.variables)
        if isinstance(answer, Raised):
            return failed_by(answer.error)
        assert isinstance(answer, Returned)
        run.variables = {**run.variables, "task_run_name": answer.value}
    if options.is_cached_in_memory:
        return (yield from _cached(run, inputs))
    return None


def _cached(
    run: TaskRun, inputs: Mapping[str, Any]
) -> Generator[Effect, Answer, State | None]:
    """The first cached state that the validator accepts."""
    validator = run.options.validator
    parameters = run.variables.get("parameters", {})
    caches: Caches = run.variables.get("caches", {})
    for state in caches.get(cache_name(run.options), ()):
        if isinstance(validator, CacheValidator):
            accepted = validator.accepts(state, inputs, parameters, run.now())
        else:
            args = (state, inputs, parameters)
            answer = yield Call(validator, args, variables=run.variables)
            if isinstance(answer, Raised):
                return failed_by(answer.error)
            accepted = isinstance(answer, Returned) and bool(answer.value)
        if accepted:
            return state.replace(message="taken from an earlier run.")
    return None
