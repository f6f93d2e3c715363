"""Calling: what a call of a task does, depending on where it stands.

In a running flow function or in the body of a task a call runs now, and `submit` and
`map` go to the runner. Elsewhere a call runs now, and there is nothing to submit to.
"""

from __future__ import annotations

import inspect
import threading
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prefect_dask_core.calls import SCOPE, BodyScope, set_caller
from prefect_dask_core.context import context, current_tags
from prefect_dask_core.engine.attempts import call_body
from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.session import Session
from prefect_dask_core.errors import (
    MissingContextError,
    OptionTypeError,
    OptionValueError,
)
from prefect_dask_core.future_lists import FutureList
from prefect_dask_core.records import TaskRun, task_run_of
from prefect_dask_core.requests import inputs_of_call
from prefect_dask_core.results.keeping import KEEPING, flow_keeping
from prefect_dask_core.results.places import KEPT_UNDER, kept_under
from prefect_dask_core.run_ids import current_id
from prefect_dask_core.runners.base import SessionRunner
from prefect_dask_core.runners.default import default_runner
from prefect_dask_core.runners.drive import (
    drive,
    drive_async,
    drive_async_generator,
    drive_generator,
)
from prefect_dask_core.scopes import OF_ONE_RUN, Scope
from prefect_dask_core.states import NO_DATA, Pending, Scheduled, State
from prefect_dask_core.tasks import Task

_opening: Final = threading.Lock()


class Place(Protocol):
    """Where calls of tasks are taken down instead of run: a flow that is drawn."""

    def draw(self, task: Task, bound: Mapping[str, Any], kind: str) -> Any:
        """Take down a call, and give what stands for its value."""


@dataclass(frozen=True, slots=True)
class _Options:
    """Options of a call, which are no arguments of the body."""

    return_state: bool
    wait_for: Any
    task_args: Mapping[str, Any]
    mapped: bool


def _split(kwargs: Mapping[str, Any]) -> tuple[_Options, dict[str, Any]]:
    """Options of a call, and what is left for the body."""
    rest = dict(kwargs)
    first = rest.pop("wait_for", None)
    also = rest.pop("upstream_tasks", None)
    if first is not None and also is not None:
        raise OptionTypeError(
            "a task was called with wait_for= and upstream_tasks=, which are two "
            "spellings of one option; give wait_for= only."
        )
    options = _Options(
        return_state=bool(rest.pop("return_state", False)),
        wait_for=also if first is None else first,
        task_args=rest.pop("task_args", None) or {},
        mapped=bool(rest.pop("mapped", False)),
    )
    return options, rest


class _Caller:
    """Runs tasks; see `calls.Caller`."""

    def call(self, task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a task now."""
        options, rest = _split(kwargs)
        if options.mapped:
            return self.map(task, args, {**kwargs, "mapped": False})
        task = task.with_options(**options.task_args) if options.task_args else task
        bound = task.body_signature.bind(args, rest, task.name)
        place = _place()
        if place is not None and not isinstance(place, Scope):
            return place.draw(task, bound, "call")
        scope = place or _nowhere()
        if task.isgenerator:
            return _iterate(task, scope, bound, options)
        steps = scope.call_steps(task, bound, options.wait_for)
        if task.isasync:
            return called_after(task.name, _end_async(steps, options.return_state))
        state = drive(steps)
        return state if options.return_state else value_of(state)

    def submit(
        self, task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Hand a task to the runner."""
        return self._hand_on("submitted", task, args, kwargs)

    def map(self, task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Hand a mapped task to the runner."""
        rest = dict(kwargs)
        # A body may have an argument of this name; nothing else in this call is bool.
        if "deferred" not in task.body_signature.names and rest.pop("deferred", False):
            raise OptionValueError(
                f"task {task.name!r}: deferred=True is not supported yet; map it "
                "inside a flow."
            )
        return self._hand_on("mapped", task, args, rest)

    def record(
        self,
        task: Task,
        id: uuid.UUID | None,
        parameters: Mapping[str, Any],
        wait_for: Any,
        deferred: bool,
    ) -> TaskRun:
        """Record of a run that has not begun."""
        place = _place()
        scope = place if isinstance(place, Scope) else _nowhere()
        inputs = inputs_of_call(task, parameters, wait_for, False, None)
        name = scope.next_name(task)
        found = {key: frozenset(ids) for key, ids in inputs.above.items()}
        parent = inherited_variables()["parent_task_run_id"]
        if parent is not None:
            found["__parents__"] = frozenset({parent})
        flow_run = context.get("flow_run_id")
        now = time.time()
        made = task_run_of(
            task.labelled(),
            {
                "task_run_id": id or uuid.uuid4(),
                "task_full_name": name,
                "task_slug": name,
                "task_inputs": found,
                "flow_run_id": flow_run,
                "task_run_count": 0,
            },
            Scheduled(start_time=now, timestamp=now) if deferred else Pending(),
        )
        return made

    def _hand_on(
        self, done: str, task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        options, rest = _split(kwargs)
        task = task.with_options(**options.task_args) if options.task_args else task
        bound = task.body_signature.bind(args, rest, task.name)
        place = _place()
        if place is None:
            raise MissingContextError(
                f"task {task.name!r} was {done} outside of a flow; do it inside a "
                "function with @flow, in the body of a task, or call .map inside "
                "`with Flow(...)`. A plain call runs it at once. A thread that a flow "
                "starts itself is in it if it runs contextvars.copy_context().run."
            )
        if not isinstance(place, Scope):
            return place.draw(task, bound, done)
        found = place.submit(task, bound, options.wait_for, mapped=done == "mapped")
        if not options.return_state:
            return found
        found.wait()
        return list(found.states) if isinstance(found, FutureList) else found.state


def _iterate(
    task: Task, scope: Scope, bound: Mapping[str, Any], options: _Options
) -> Any:
    """A generator that runs the task while it is read."""
    if options.return_state:
        raise OptionValueError(
            f"task {task.name!r} yields its values, so a call of it has no state to "
            "return; use .submit(..., return_state=True), which gives them as a list."
        )
    steps = scope.call_steps(task, bound, options.wait_for)
    kept = within(task, scope.variables.get(KEEPING)).keeper is not None
    keeps = kept or task.options.is_cached_in_memory
    if inspect.isasyncgenfunction(task.fn):
        return drive_async_generator(steps, call_body, value_of, keeps)
    return drive_generator(steps, call_body, value_of, keeps)


def called_after(
    name: str, coroutine: Coroutine[Any, Any, Any]
) -> Coroutine[Any, Any, Any]:
    """Name a coroutine after its task or flow, for the warning if nobody awaits it."""
    named: Any = coroutine  # typeshed does not know that it has one
    named.__qualname__ = name
    return coroutine


async def _end_async(steps: Any, return_state: bool) -> Any:
    state = await drive_async(steps)
    return state if return_state else value_of(state)


def value_of(state: State) -> Any:
    """Value of a call whose run ended in a state; raises what made it fail.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed
    >>> value_of(Completed(data=3)), value_of(Completed("made by hand"))
    (3, None)
    """
    if state.is_successful() and state.data is NO_DATA and not state.is_mapped():
        return None
    return state.result()


def _place() -> Scope | Place | None:
    """Where the caller stands."""
    found: Any = context.get(SCOPE)
    if not isinstance(found, BodyScope):
        place: Scope | Place | None = found
        return place
    with _opening:  # threads and coroutines of one body submit to one scope
        if not isinstance(found.opened, Scope):
            found.opened = _scope_of_body()
        return found.opened


def _scope_of_body() -> Scope:
    """A scope for the body of the running task."""
    here = {key: context.get(key) for key in context}
    return Scope(
        context.get("task_name", "hook"),
        {**inherited_variables(), KEPT_UNDER: kept_under(here)},
        uuid.uuid4().hex,
        open_session,
    )


def inherited_variables() -> dict[str, Any]:
    """Context variables of the running task that what runs inside of it sees too."""
    kept = {key: context.get(key) for key in context if key not in OF_ONE_RUN}
    variables = {key: context.get(key) for key in context}
    parent = current_id(variables) or context.get("parent_task_run_id")
    return {**kept, "tags": current_tags(), "parent_task_run_id": parent}


def _nowhere() -> Scope:
    """A scope for one call outside of any run."""
    variables = {"tags": current_tags(), "flow": None, KEEPING: flow_keeping()}
    return Scope("", variables, uuid.uuid4().hex, open_session, loose=True)


def open_session(name: str, variables: Mapping[str, Any], run_id: str) -> Session:
    """Open a session of the runner that is here: the one around, else the default."""
    return session_of(runner_here(), name, variables, run_id)


def runner_here() -> Any:
    """The runner that is here: the one around, else the default."""
    return context.get("_task_runner") or default_runner()


def session_of(
    runner: Any, name: str, variables: Mapping[str, Any], run_id: str
) -> Session:
    """Open a session of a runner."""
    if not hasattr(runner, "session"):
        raise OptionTypeError(
            f"{name!r}: {runner!r} is no task runner for function flows; it has no "
            "method session()."
        )
    found: SessionRunner = runner
    return found.session(name, variables, run_id)


set_caller(_Caller())
