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
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from dask.base import get_annotations

from prefect_dask_core.annotations import AllowFailure, Quote, allow_failure
from prefect_dask_core.cached_values import known_to, remember
from prefect_dask_core.context import context, current_tags
from prefect_dask_core.edges import Annotation
from prefect_dask_core.engine.caching import prepared, within
from prefect_dask_core.engine.pipeline import run_task
from prefect_dask_core.engine.plan import Input
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.session import Request, Session
from prefect_dask_core.engine.sharing import shared_by_children
from prefect_dask_core.engine.tallies import sum_tallies, tally_of_state, tolerate
from prefect_dask_core.engine.task_run import TaskRun
from prefect_dask_core.engine.views import RunView, SegmentLook
from prefect_dask_core.future_lists import FutureList, node_of
from prefect_dask_core.futures import Handle, PrefectFuture
from prefect_dask_core.lineage import Lineage, is_shared
from prefect_dask_core.option_checks import ANNOTATIONS
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.requests import Inputs, check_lengths, inputs_of_call
from prefect_dask_core.resolving import (
    Above,
    bare,
    by_name,
    holds_future,
    nested_items,
    resolve,
    upstream_error,
    with_results,
)
from prefect_dask_core.results.keeping import KEEPING, STAGED_IN, Keeper
from prefect_dask_core.results.kept import KeptValues
from prefect_dask_core.results.locks import LOCKED, Held
from prefect_dask_core.results.places import own_prefix
from prefect_dask_core.results.transactions import TRANSACTION, Transaction
from prefect_dask_core.run_ids import task_run_id
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.staging import SubmittedRuns
from prefect_dask_core.states import (
    NO_DATA,
    Cancelled,
    Completed,
    Running,
    State,
    TriggerFailed,
)
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import Tally
from prefect_dask_core.unused import level_of_user

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
        "_staged_in",
        "_transaction",
        "_scope",
        "_flow_context",
    }
)


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
    view : RunView, optional
        Where what runs in it is to be seen.
    graph_id : str, optional
        Hexadecimal id that is in the keys of its session; `id_base` unless given.
    """

    def __init__(
        self,
        name: str,
        variables: Mapping[str, Any],
        id_base: str,
        open_session: Callable[[str, Mapping[str, Any], str], Session],
        loose: bool = False,
        view: RunView | None = None,
        graph_id: str | None = None,
    ) -> None:
        self.name = name
        self.variables = {**variables, "_id_base": id_base}
        self.id_base = id_base
        self.lineage = Lineage()
        self._session_id = graph_id or id_base
        self._open = open_session
        self._loose = loose
        self._view = view
        self._calls: SegmentLook | None = None
        self._lock = threading.RLock()
        self._closing = threading.Lock()
        self._counts: defaultdict[str, itertools.count[int]] = defaultdict(
            itertools.count
        )
        self._session: Session | None = None
        self._names: dict[int, str] = {}
        self._looked: set[int] = set()
        self._parents: dict[int, tuple[int, ...]] = {}
        #: Held, so that their values are there at the end.
        self._cached: list[tuple[TaskOptions, Handle]] = []
        #: Runs that were called, with their states.
        self._called: dict[str, State] = {}
        #: What they returned, by its identity, with the run's name.
        self._made: dict[int, tuple[Any, str]] = {}
        #: States of the runs of attempts that were stopped.
        self._earlier: dict[str, State] = {}
        self._ended: Sequence[State] | None = None
        #: How the flow ended, for whoever watches it; set before `close`.
        self.outcome: State | None = None
        self._cancelled: str | None = None
        #: Names of tasks whose children share one value, and that were warned of.
        self._warned: set[str] = set()
        #: Whether a run in it keeps its value in a store.
        self.stores = False

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
            keeper = prepared(task, self.variables.get(KEEPING)).keeper
            self.stores = self.stores or (keeper is not None and keeper.writes)
            bound = {key: self._gathered(value) for key, value in bound.items()}
            if mapped:
                bound = {key: self._whole(value) for key, value in bound.items()}
            inputs = inputs_of_call(task, bound, wait_for, mapped, session)
            given = inputs.finish()
            mapped = mapped or any(item.mapped for item in given)
            task = task.labelled()
            name = self.next_name(task)
            if mapped:
                check_lengths(task, name, given)
                self._warn_of_sharing(task, keeper, given)
            block = context.get(TRANSACTION)
            staged_in = block.id if block is not None and block.is_block else None
            request = Request(
                task,
                name,
                given,
                mapped,
                self._variables_of(task, name, mapped, inputs, bound, staged_in),
                inputs.tolerated,
                {**_dask_annotations(), **task.annotations},
            )
            self._called[name] = Running()  # now and here, if the session is sequential
            try:
                node = session.add(request)
            except Exception:
                del self._called[name]  # refused, so there is no run
                raise
            del self._called[name]
            self._names[node] = name
            above = dict.fromkeys(i.node for i in given if i.node is not None)
            if above:
                self._parents[node] = tuple(above)
            self._looked |= inputs.tolerated
            self.lineage.add(task, name, inputs.names)
        handle = Handle(session, node, name, self.id_base, self._looked, self._parents)
        if task.options.is_cached_in_memory:
            self._cached.append((task.options, handle))
        future: Any = FutureList(handle=handle) if mapped else PrefectFuture(handle)
        if staged_in is not None:
            prefix = own_prefix({**self.variables, "task_slug": name})
            block.adopt(SubmittedRuns(task, future, keeper, prefix))
        found: PrefectFuture[Any] | FutureList[Any] = future
        return found

    def _warn_of_sharing(
        self, task: Task, keeper: Keeper | None, given: Sequence[Input]
    ) -> None:
        """Warn, once, if all children of a map would take one another's values."""
        if task.name in self._warned:
            return
        mapped = {item.key for item in given if item.mapped and item.key is not None}
        for text in shared_by_children(task.options, keeper, mapped):
            self._warned.add(task.name)
            told = f"task {task.name!r} is mapped {text}."
            warnings.warn(told, UserWarning, stacklevel=level_of_user())

    def _variables_of(
        self,
        task: Task,
        name: str,
        mapped: bool,
        inputs: Inputs,
        bound: Mapping[str, Any],
        staged_in: str | None,
    ) -> dict[str, Any]:
        """Context variables of a run that is submitted."""
        found: dict[str, Any] = {}
        if staged_in is not None:
            found[STAGED_IN] = staged_in
        block: Transaction | None = context.get(TRANSACTION)
        if block is not None and block.held:
            # It would wait for the end of the block, which waits for it.
            shared: Held = dict.fromkeys(block.held)
            found[LOCKED] = {**self.variables.get(LOCKED, {}), **shared}
        if task.options.is_cached_in_memory:
            found["caches"] = known_to([task.options])
        if not mapped:
            found["task_run_name"] = name
        listed = self._with_called(inputs.listed(), bound)
        if listed:
            found["task_inputs"] = listed
        tags = current_tags()
        # Those of the block around the call, for what the task runs in its turn.
        if tags != self.variables.get("tags"):
            found["tags"] = tags
        return found

    def _with_called(
        self,
        listed: Mapping[str, frozenset[uuid.UUID]],
        given: Mapping[str, Any],
    ) -> dict[str, frozenset[uuid.UUID]]:
        """Runs by parameter, also those that were called and returned an argument."""
        found = dict(listed)
        for key, value in given.items() if self._made else ():
            kept = self._made.get(id(value))
            if kept is not None and kept[0] is value:
                above = task_run_id(self.id_base, kept[1])
                found[key] = found.get(key, frozenset()) | {above}
        return found

    def _whole(self, value: Any) -> Any:
        """A future of one child, as one of a node, which can be mapped over."""
        if isinstance(value, PrefectFuture) and node_of(value) is None:
            return self.submit(_ITEM, {"value": value})
        return value

    def _gathered(self, value: Any) -> Any:
        """A flattened argument with futures inside, as the future of a fan-out.

        So its elements may end one by one, as those of a task that was mapped.
        """
        if not isinstance(value, Annotation) or not value.flattened:
            return value
        inner, tolerant = value.value, isinstance(value.value, AllowFailure)
        if tolerant:
            inner = inner.value
        if isinstance(inner, PrefectFuture | FutureList) and node_of(inner) is not None:
            return value
        if isinstance(inner, PrefectFuture):
            found: Any = self._whole(inner)
        else:
            if isinstance(inner, Iterator):
                inner = list(inner)
                kept = allow_failure(inner) if tolerant else inner
                value = Annotation(kept, value.mapped, flattened=True)
            if isinstance(inner, Quote | str | bytes | State) or not holds_future(
                inner
            ):
                return value
            lists = nested_items(inner)
            given = allow_failure(lists) if tolerant else lists
            found = self.submit(_ITEM, {"value": given}, mapped=True)
        if tolerant:
            found = allow_failure(found)
        return Annotation(found, value.mapped, flattened=True)

    def session(self) -> Session:
        """The session; opened now if nothing was submitted before."""
        if self._session is None:
            self._session = self._open(self.name, self.variables, self._session_id)
            if self._cancelled is not None:
                self._session.cancel(self._cancelled)
            if self._view is not None:
                self._view.add_look(self._session.look())
        return self._session

    def next_name(self, task: Task) -> str:
        """Name of the next run of a task, ``<task>-<n>`` (decision F10)."""
        if self._loose:
            return task.name
        with self._lock:
            return f"{task.name}-{next(self._counts[task.name])}"

    def begin_flow(self, flow_name: str) -> str:
        """Name of a flow that is called in this one, among its runs."""
        with self._lock:
            return f"{flow_name}-{next(self._counts[flow_name])}"

    def flow_ended(self, name: str, state: State) -> None:
        """Take in how a flow ended that was called in this one."""
        self._called[name] = state

    def next_flow_id(self, flow: str) -> str | None:
        """Id of the next run of a flow in this one; see `calls.nested_run_id`."""
        if self._loose:
            return None
        with self._lock:
            number = next(self._counts[f"flow {flow}"])
        return task_run_id(self.id_base, f"flow {flow}-{number}").hex

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
            found = {key: bare(value) for key, value in bound.items()}
        listed = self._with_called(listed, found)
        inside = within(task, self.variables.get(KEEPING))
        self.stores = self.stores or (
            inside.keeper is not None and inside.keeper.writes
        )
        run = TaskRun(
            task=task,
            name=name,
            tally=sum_tallies(_tally_of(*one) for one in above),
            upstream=partial(by_name, above),
            inputs=lambda: found,
            variables=self._variables_of_call(task, name, listed),
            now=time.time,
            settings=inside.options,
            keeper=inside.keeper,
            around=context.get(TRANSACTION),
        )
        self.lineage.add(task, name, names, list(found.values()))
        end_of = None if self._view is None else self._begin_call(task, name)
        if not self._loose:
            self._called[name] = Running()
        state: State = yield from run_task(run)
        state = _let_go(run, state)
        if isinstance(state, TriggerFailed) and above:
            state = state.replace(data=upstream_error(name, state, above))
        if end_of is not None:
            end_of(_segment_of(run, state))
        self.lineage.ended(name, state)
        value = state.data
        if state.is_successful() and not (
            self._loose or is_shared(value) or value is NO_DATA
        ):
            self._made[id(value)] = (value, name)
        if task.options.is_cached_in_memory:
            remember([(task.options, state)])
        if not self._loose:
            self._called[name] = state
        return state

    def _variables_of_call(
        self, task: Task, name: str, listed: Mapping[str, frozenset[uuid.UUID]]
    ) -> dict[str, Any]:
        """Context variables of a run that is called."""
        return {
            **self.variables,
            "task_name": task.name,
            "task_slug": name,
            "tags": current_tags(),
            "task_tags": task.tags,
            "task_full_name": name,
            "task_run_name": name,
            "map_index": None,
            "task_run_id": uuid.uuid4() if self._loose else None,
            "task_inputs": listed,
            "caches": known_to([task.options]),
        }

    def _begin_call(self, task: Task, name: str) -> Callable[[Segment], None]:
        """Let a run be seen that is called; gives what takes in its end."""
        assert self._view is not None
        with self._lock:
            if self._calls is None:
                self._calls = SegmentLook()
                self._view.add_look(self._calls)
            return partial(self._calls.end, self._calls.begin(task, name))

    # -- the end ----------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Start nothing more."""
        self._cancelled = reason
        if self._session is not None:
            self._session.cancel(reason)

    def close(self) -> dict[str, State]:
        """Wait for all that was submitted; states of all runs by name."""
        # One after the other: whoever was interrupted while it waited asks again.
        with self._closing:
            if self._session is not None and self._ended is None:
                self._session.outcome = self.outcome
                self._ended = self._session.close()
                self._take_ends()
            called = list(self._called.items())
            told = {name: self._stopped(state) for name, state in called}
            return {**self._earlier, **self._submitted(), **told}

    def _take_ends(self) -> None:
        ended = self._ended or ()
        for name, state in self._submitted().items():
            self.lineage.ended(name, state)
        remember((options, ended[handle.node]) for options, handle in self._cached)
        self._cached.clear()

    def _submitted(self) -> dict[str, State]:
        """States of all that was submitted before the end, by name."""
        ended = self._ended or ()
        with self._lock:  # code that was left behind may still add some
            names = list(self._names.items())
        return {name: ended[node] for node, name in names if node < len(ended)}

    def settle(self, timeout: float | None = None) -> bool:
        """Wait for all that was submitted so far; whether it has ended in time."""
        session, known = self._session, -1
        end = None if timeout is None else time.monotonic() + timeout
        while session is not None and len(self._names) > known:
            known = len(self._names)
            left = None if end is None else max(0.0, end - time.monotonic())
            if not session.wait(list(self._names), left):
                return False
        return True

    def successor(self) -> Scope:
        """What a further attempt runs in: this scope, or a fresh one if it was stopped.

        Code of a stopped attempt that was left behind keeps the old one.
        """
        if self._cancelled is None:
            return self
        fresh = Scope(
            self.name,
            self.variables,
            self.id_base,
            self._open,
            loose=self._loose,
            view=self._view,
        )
        fresh._earlier = self.close()
        fresh.stores = self.stores
        fresh._counts, fresh.lineage = self._counts, self.lineage
        # Two sessions of one id would make the same keys.
        fresh._session_id = uuid.uuid4().hex
        return fresh

    def _stopped(self, state: State) -> State:
        """State of a run that was called, of one that was interrupted as well."""
        if state.is_running() and self._cancelled is not None:
            return Cancelled(self._cancelled, timestamp=time.time())
        return state

    def unseen(self) -> dict[str, State]:
        """Submitted runs that did not succeed, and that nobody has asked about.

        What was cancelled with the whole flow run is not among them: that is told.
        """
        stopped = self._cancelled is not None
        submitted = self._submitted()
        seen = {name for node, name in self._names.items() if node in self._looked}
        return {
            name: state
            for name, state in submitted.items()
            if name not in seen and is_bad(state, stopped)
        }

    def finish(self, value: Any) -> Any:
        """End the scope of a body: wait, and put values where futures are returned."""
        self.close()
        return with_results(value)

    def abandon(self, reason: str) -> None:
        """End the scope of a body that did not end well."""
        self.cancel(reason)
        self.close()


def _segment_of(run: TaskRun, state: State) -> Segment:
    """What is shown of a run that was called; its value belongs to the caller."""
    segment = Segment(0)
    segment.open(1)
    end = run.end or time.time()
    shown = state.replace(data=NO_DATA) if state.is_successful() else state
    segment.put(0, shown, run.begin, end, run.attempts_made, run.waits)
    return segment.without_values()


def _let_go(run: TaskRun, state: State) -> State:
    """The state of a call, without a value that is to be read from the store."""
    keeper = run.keeper
    if run.kept is None or keeper is None or keeper.in_memory or keeper.store is None:
        return state
    if not isinstance(state, Completed):
        return state
    kept = KeptValues(keeper.store, own_prefix(run.variables), None)
    kept.note(0, run.kept)
    return state.replace(data=kept.item(0))


def is_bad(state: State, stopped: bool = False) -> bool:
    """Whether a run, or a child of it, failed by itself.

    Parameters
    ----------
    state : State
        How it ended.
    stopped : bool
        Whether all of the flow run was stopped: being cancelled is no failure then.
    """
    if state.is_mapped():
        return any(is_bad(child, stopped) for child in state.states or ())
    if state.is_successful() or isinstance(state, TriggerFailed):
        return False
    return not (stopped and state.is_cancelled())


def _tally_of(label: str, state: State, tolerant: bool) -> Tally:
    found = tally_of_state(state, label)
    return tolerate(found) if tolerant else found


def _dask_annotations() -> dict[str, Any]:
    """Annotations of the surrounding `dask.annotate` blocks that runs can have."""
    found = get_annotations()
    return {key: found[key] for key in ANNOTATIONS if key in found}


def _same(value: Any) -> Any:
    """Hand on what is given, so that it is the value of a run."""
    return value


_ITEM: Final = Task(_same, name="item")
