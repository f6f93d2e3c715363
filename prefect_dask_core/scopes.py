"""Scopes: what a running flow function, or the body of a task, can run tasks in.

A scope names the runs, keeps what became of them, and opens a session of its runner
when something is submitted for the first time: a flow that only calls tasks starts no
cluster.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from dask.base import get_annotations

from prefect_dask_core.annotations import AllowFailure, Quote
from prefect_dask_core.cached_values import known_to, remember
from prefect_dask_core.edges import Annotation
from prefect_dask_core.engine.columns import tally_of_state
from prefect_dask_core.engine.feeds import sum_tallies, tolerate
from prefect_dask_core.engine.pipeline import TaskRun, run_task
from prefect_dask_core.engine.session import Request, Session
from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.errors import UpstreamTaskError
from prefect_dask_core.futures import (
    FutureList,
    Handle,
    PrefectFuture,
    has_ended,
    node_of,
)
from prefect_dask_core.lineage import Lineage
from prefect_dask_core.options import ANNOTATIONS, TaskOptions
from prefect_dask_core.requests import Inputs, check_lengths, inputs_of_call
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.states import State, TriggerFailed
from prefect_dask_core.tasks import Task

#: Context variables that are of one task run, and not of what runs inside of it.
OF_ONE_RUN: Final = frozenset(
    {
        "task_name",
        "task_slug",
        "task_tags",
        "task_full_name",
        "task_run_name",
        "task_run_count",
        "task_run_id",
        "task_inputs",
        "task_loop_count",
        "task_loop_result",
        "map_index",
        "resume",
        "is_waiting",
        "logger",
        "_asset_notes",
        "_id_base",
        "_run",
        "_scope",
        "_flow_context",
    }
)


#: Name and state of a run above, and whether it may have failed.
Above = tuple[str, State, bool]


class Scope:
    """Runs tasks, and knows what became of them.

    Parameters
    ----------
    name : str
        Name of the flow or task, for the session.
    variables : mapping of str to object
        Context variables that every run sees.
    id_base : str
        Hexadecimal id that the ids of the runs are worked out from.
    open_session : callable (name, variables, run_id) -> Session
        Opens a session of the runner.
    loose : bool
        Whether it is neither of a flow nor of a task, and runs keep the task's name.
    """

    def __init__(
        self,
        name: str,
        variables: Mapping[str, Any],
        id_base: str,
        open_session: Callable[[str, Mapping[str, Any], str], Session],
        loose: bool = False,
    ) -> None:
        self.name = name
        self.variables = {**variables, "_id_base": id_base}
        self.id_base = id_base
        self.lineage = Lineage()
        self._open = open_session
        self._loose = loose
        self._lock = threading.RLock()
        self._counts: defaultdict[str, itertools.count[int]] = defaultdict(
            itertools.count
        )
        self._session: Session | None = None
        self._names: dict[int, str] = {}
        self._looked: set[int] = set()
        #: Held, so that their values are there at the end.
        self._cached: list[tuple[TaskOptions, Handle]] = []
        #: Runs that were called, with their states.
        self._called: dict[str, State] = {}
        self._ended: Sequence[State] | None = None
        #: How the flow ended, for whoever watches it; set before `close`.
        self.outcome: State | None = None
        self._cancelled: str | None = None

    # -- submitting -------------------------------------------------------------

    def submit(
        self,
        task: Task,
        bound: Mapping[str, Any],
        wait_for: Any = None,
        mapped: bool = False,
    ) -> PrefectFuture[Any] | FutureList[Any]:
        """Add a run to the session."""
        with self._lock:
            session = self.session()
            if mapped:
                bound = {key: self._whole(value) for key, value in bound.items()}
            inputs = inputs_of_call(task, bound, wait_for, mapped, session)
            given = inputs.finish()
            mapped = mapped or any(item.mapped for item in given)
            task = task.labelled()
            name = self.next_name(task)
            if mapped:
                check_lengths(task, name, given)
            request = Request(
                task,
                name,
                given,
                mapped,
                _variables_of(task, name, mapped, inputs),
                inputs.tolerated,
                {**_dask_annotations(), **task.annotations},
            )
            node = session.add(request)
            self._names[node] = name
            self._looked |= inputs.tolerated
            self.lineage.add(task, name, inputs.names)
        handle = Handle(session, node, name, task.name, self.id_base, self._looked)
        if task.options.cache_for is not None:
            self._cached.append((task.options, handle))
        return FutureList(handle=handle) if mapped else PrefectFuture(handle)

    def _whole(self, value: Any) -> Any:
        """A future of one child, as one of a node, which can be mapped over."""
        if isinstance(value, PrefectFuture) and node_of(value) is None:
            return self.submit(_ITEM, {"value": value})
        return value

    def session(self) -> Session:
        """The session; opened now if nothing was submitted before."""
        if self._session is None:
            self._session = self._open(self.name, self.variables, self.id_base)
            if self._cancelled is not None:
                self._session.cancel(self._cancelled)
        return self._session

    def next_name(self, task: Task) -> str:
        """Name of the next run of a task, ``<task>-<n>`` (decision F10)."""
        if self._loose:
            return task.name
        with self._lock:
            return f"{task.name}-{next(self._counts[task.name])}"

    # -- calling ----------------------------------------------------------------

    def call_steps(
        self, task: Task, bound: Mapping[str, Any], wait_for: Any = None
    ) -> Steps[State]:
        """Steps of a run in this process."""
        task = task.labelled()
        name = self.next_name(task)
        above: list[Above] = []
        listed: dict[str, frozenset[uuid.UUID]] = {}
        names: dict[str, None] = {}
        # Looked for once, because most calls have neither a future nor a state.
        if holds_future([*bound.values(), wait_for]):
            inputs = inputs_of_call(task, bound, wait_for, False, None)
            listed, names = inputs.listed(), inputs.names
            found, above = yield Blocking(partial(resolve, bound, wait_for))
        else:
            found = {key: _bare(value) for key, value in bound.items()}
        tally = sum_tallies(
            tolerate(tally_of_state(state, label))
            if tolerant
            else tally_of_state(state, label)
            for label, state, tolerant in above
        )
        run = TaskRun(
            task=task,
            name=name,
            tally=tally,
            upstream=partial(_by_name, above),
            inputs=lambda: found,
            variables={
                **self.variables,
                "task_name": task.name,
                "task_slug": name,
                "task_tags": task.tags,
                "task_full_name": name,
                "task_run_name": name,
                "map_index": None,
                "task_run_id": uuid.uuid4() if self._loose else None,
                "task_inputs": listed,
                "caches": known_to([task.options]),
            },
            now=time.time,
        )
        self.lineage.add(task, name, names, list(found.values()))
        state: State = yield from run_task(run)
        if isinstance(state, TriggerFailed) and above:
            state = state.replace(data=_upstream_error(name, state, above))
        self.lineage.ended(name, state)
        if task.options.cache_for is not None:
            remember([(task.options, state)])
        if not self._loose:
            self._called[name] = state
        return state

    # -- the end ----------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Start nothing more."""
        self._cancelled = reason
        if self._session is not None:
            self._session.cancel(reason)

    def close(self) -> dict[str, State]:
        """Wait for all that was submitted; states of all runs by name."""
        if self._session is not None and self._ended is None:
            self._session.outcome = self.outcome
            self._ended = self._session.close()
            for node, name in self._names.items():
                self.lineage.ended(name, self._ended[node])
            remember((o, self._ended[handle.node]) for o, handle in self._cached)
            self._cached.clear()
        ended = self._ended or ()
        submitted = {name: ended[node] for node, name in self._names.items()}
        return {**submitted, **self._called}

    def unseen(self) -> dict[str, State]:
        """Submitted runs that did not succeed, and that nobody has asked about."""
        ended = self._ended or ()
        return {
            name: ended[node]
            for node, name in self._names.items()
            if node not in self._looked and _is_bad(ended[node])
        }

    def finish(self, value: Any) -> Any:
        """End the scope of a body: wait, and put values where futures are returned."""
        self.close()
        return with_results(value)

    def abandon(self, reason: str) -> None:
        """End the scope of a body that did not end well."""
        self.cancel(reason)
        self.close()


def _is_bad(state: State) -> bool:
    """Whether a run, or a child of it, failed by itself."""
    if state.is_mapped():
        return any(map(_is_bad, state.states or ()))
    return not state.is_successful() and not isinstance(state, TriggerFailed)


def _variables_of(
    task: Task, name: str, mapped: bool, inputs: Inputs
) -> dict[str, Any]:
    """Context variables of a run that is submitted."""
    found: dict[str, Any] = {}
    if task.options.cache_for is not None:
        found["caches"] = known_to([task.options])
    if not mapped:
        found["task_run_name"] = name
    listed = inputs.listed()
    if listed:
        found["task_inputs"] = listed
    return found


def with_results(value: Any) -> Any:
    """A value with results in the place of futures; see decision F2.

    Raises
    ------
    Exception
        If the value is a future, or holds nothing but futures: what made the first
        run fail that did not succeed.
    """
    strict = isinstance(value, PrefectFuture | FutureList) or (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(item, PrefectFuture | FutureList) for item in value)
    )

    def result_of(leaf: Any) -> Any:
        if isinstance(leaf, FutureList):
            if strict or node_of(leaf) is not None:
                return leaf.result(raise_on_failure=strict)
            return [result_of(future) for future in leaf]
        if isinstance(leaf, PrefectFuture):
            if strict:
                return leaf.result()
            leaf.wait()
            state = leaf.state
            return leaf.result() if state.is_successful() else state
        return leaf

    return rebuild(value, result_of)


def resolve(
    bound: Mapping[str, Any], wait_for: Any
) -> tuple[dict[str, Any], list[Above]]:
    """Arguments with values in the place of futures and states, waited for.

    Returns
    -------
    dict of str to object
        The arguments; a run that did not succeed gives its exception.
    list of (str, State, bool)
        Name and state of each run above, and whether it may have failed.
    """
    above: list[Above] = []
    found = {key: _resolved(value, above, False) for key, value in bound.items()}
    if wait_for is not None:
        given = wait_for
        if not isinstance(given, PrefectFuture | FutureList | AllowFailure | State):
            given = list(given)
        _resolved(given, above, False)
    return found, above


def _resolved(value: Any, above: list[Above], tolerant: bool) -> Any:
    def looked_up(leaf: Any) -> Any:
        if isinstance(leaf, Annotation):
            return _resolved(leaf.value, above, tolerant)
        if isinstance(leaf, Quote):
            return leaf.value
        if isinstance(leaf, AllowFailure):
            return _resolved(leaf.value, above, True)
        if isinstance(leaf, PrefectFuture | FutureList):
            leaf.wait()
            return _value_of(leaf, above, tolerant)
        if isinstance(leaf, State):
            above.append((leaf.name, leaf, tolerant))
            return leaf.result(raise_on_failure=False) if has_ended(leaf) else None
        return leaf

    return rebuild(value, looked_up)


def _value_of(
    future: PrefectFuture[Any] | FutureList[Any],
    above: list[Above],
    tolerant: bool,
) -> Any:
    if isinstance(future, FutureList):
        handle = node_of(future)
        if handle is None:
            return [_value_of(one, above, tolerant) for one in future]
        state = future.state
        children = state.states if state.is_mapped() else None
        if children is None:
            above.append((handle.name, state, tolerant))
            return state.result(raise_on_failure=False)
        above.extend(
            (f"{handle.task_name}[{n}]", child, tolerant)
            for n, child in enumerate(children)
        )
        return future.result(raise_on_failure=False)
    state = future.state
    above.append((future.name, state, tolerant))
    if state.is_paused() or not state.is_final():
        return None
    return future.result(raise_on_failure=False)


def holds_future(value: Any) -> bool:
    """Whether there is a future or a state anywhere in a value."""
    found = False

    def look(leaf: Any) -> Any:
        nonlocal found
        if isinstance(leaf, State | PrefectFuture | FutureList):
            found = True
        if isinstance(leaf, AllowFailure | Annotation):
            rebuild(leaf.value, look)
        return leaf

    rebuild(value, look)
    return found


def _bare(value: Any) -> Any:
    """An argument without its annotations."""
    while isinstance(value, Annotation | AllowFailure | Quote):
        value = value.value
    return value


def _by_name(above: list[Above]) -> dict[Any, State]:
    return {name: state for name, state, _ in above}


def _upstream_error(name: str, state: State, above: list[Above]) -> UpstreamTaskError:
    """Why a run did not start, with the first failure above as its cause."""
    error = UpstreamTaskError(f"{name} did not run: {state.message}")
    for _, found, tolerant in above:
        if not tolerant and has_ended(found) and not found.is_paused():
            cause = found.result(raise_on_failure=False)
            if not found.is_successful() and isinstance(cause, BaseException):
                error.__cause__ = cause
                break
    return error


def _dask_annotations() -> dict[str, Any]:
    """Annotations of the surrounding `dask.annotate` blocks that runs can have."""
    found = get_annotations()
    return {key: found[key] for key in ANNOTATIONS if key in found}


def _same(value: Any) -> Any:
    """Hand on what is given, so that it is the value of a run."""
    return value


_ITEM: Final = Task(_same, name="item")
