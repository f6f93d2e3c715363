"""Summary: the state of a flow run from the states of its tasks."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import cloudpickle

from prefect_dask_core.engine.columns import (
    CODE_BY_STATE,
    FAILED,
    STATE_BY_CODE,
    Children,
    code_of,
    tally_of,
    tally_of_state,
)
from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.upstream import (
    Failure,
    Failures,
    details_of,
    failure_in,
)
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    DataReference,
    Failed,
    Mapped,
    Paused,
    Pending,
    State,
    TriggerFailed,
    counts_as_failure,
)
from prefect_dask_core.tasks import Constant, Task
from prefect_dask_core.triggers import Tally

_FAILED_BY_ITSELF: Final = FAILED - {CODE_BY_STATE[TriggerFailed]}

#: Message of a flow run all of whose reference tasks succeeded.
ALL_SUCCEEDED: Final = "all reference tasks succeeded."


class TaskStates(Mapping[Task, State]):
    """States of the tasks of a flow run, by task.

    A task's name or slug finds its state too, as long as only one task has it. The
    state of a flow run has them as ``state.states``.

    Parameters
    ----------
    plan : Plan
        What ran.
    states : sequence of State
        One per node.
    parameters : mapping, optional
        Parameters of the run.
    view : RunView, optional
        What is shown of the run.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> @task
    ... def invert(x):
    ...     return 1 / x
    >>> with Flow("inverses") as flow:
    ...     inverses = invert.map([1, 0, 2])
    >>> state = flow.run(task_runner=SequentialTaskRunner())
    >>> state.states.counts()
    {'Completed': 2, 'Failed': 1}
    >>> state.states.failures()
    [('invert[1]', Failed('ZeroDivisionError: division by zero'))]
    """

    __slots__ = ("_by_identity", "_by_name", "_labels", "parameters", "view")

    def __init__(
        self,
        plan: Plan,
        states: Sequence[State],
        parameters: Mapping[str, Any] | None = None,
        view: RunView | None = None,
    ) -> None:
        self.view = view
        self.parameters = dict(parameters or {})
        pairs = list(zip(plan.nodes, states, strict=True))
        self._by_identity = {node.identity: (node.task, state) for node, state in pairs}
        self._labels = labels_of(plan)
        self._by_name: dict[str, list[State]] = {}
        for node, state in pairs:
            for name in {node.slug, node.name}:
                self._by_name.setdefault(name, []).append(state)

    def __getitem__(self, key: Task | str) -> State:
        if isinstance(key, str):
            return self._named(key)
        found = self._by_identity.get(getattr(key, "identity", ""))
        if found is None:
            raise KeyError(
                f"{key!r} is not a task of this flow run. Calling a task inside a "
                "flow binds a copy: use what the call returned, or the task's name."
            )
        return found[1]

    def _named(self, name: str) -> State:
        found = self._by_name.get(name, [])
        if len(found) == 1:
            return found[0]
        if not found:
            known = ", ".join(sorted(self._by_name))
            raise KeyError(f"no task of this flow run is called {name!r}, but {known}.")
        raise KeyError(
            f"{len(found)} tasks of this flow run are called {name!r}; use a slug "
            f"({name}-1, {name}-2, ...) or the task itself."
        )

    def counts(self) -> dict[str, int]:
        """Number of task runs by the class of their state; each child is one."""
        pairs = self._by_identity.values()
        return counts_of(
            state for task, state in pairs if not isinstance(task, Constant)
        )

    def failures(self) -> list[tuple[str, State]]:
        """Name and state of each task run that failed or crashed, in order.

        A child is named as ``"load[3]"``, and a task by its slug if another one has
        its name. Those whose trigger refused them are among them, after what failed
        above.
        """
        pairs = zip(self._labels, self._by_identity.values(), strict=True)
        return [pair for name, (_, state) in pairs for pair in failures_of(name, state)]

    def __reduce__(self) -> tuple[Any, ...]:
        # The function of a task cannot be pickled by its name, which is the task's.
        fields = (self._by_identity, self._by_name, self._labels, self.parameters)
        return _restored, (cloudpickle.dumps(fields), self.view)

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            return len(self._by_name.get(key, ())) == 1
        return getattr(key, "identity", "") in self._by_identity

    def __iter__(self) -> Iterator[Task]:
        return (task for task, _ in self._by_identity.values())

    def __len__(self) -> int:
        return len(self._by_identity)


def _restored(blob: bytes, view: RunView | None) -> TaskStates:
    states = object.__new__(TaskStates)
    states.view = view
    fields = pickle.loads(blob)
    states._by_identity, states._by_name, states._labels, states.parameters = fields
    return states


def labels_of(plan: Plan) -> list[str]:
    """What each node is called: its task's name, its slug if several have that."""
    times = Counter(node.name for node in plan.nodes)
    return [node.name if times[node.name] == 1 else node.slug for node in plan.nodes]


class ReferenceValues(DataReference):
    """Values of the reference tasks of a run, by task, fetched when asked for."""

    __slots__ = ("states",)

    def __init__(self, states: Mapping[Task, State]) -> None:
        self.states = states

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_values, (cloudpickle.dumps(self.states),)

    def __repr__(self) -> str:
        return f"ReferenceValues({', '.join(task.name for task in self.states)})"

    def load(self) -> dict[Task, Any]:
        """Fetch the values."""
        return {task: state.result() for task, state in self.states.items()}


def _restored_values(blob: bytes) -> ReferenceValues:
    return ReferenceValues(pickle.loads(blob))


def flow_state(
    plan: Plan,
    states: Sequence[State],
    parameters: Mapping[str, Any] | None = None,
    view: RunView | None = None,
) -> State:
    """State of a flow run.

    Parameters
    ----------
    plan : Plan
        What ran.
    states : sequence of State
        One per node.
    parameters : mapping, optional
        Parameters of the run, for one that resumes it.
    view : RunView, optional
        What is shown of the run.

    Returns
    -------
    State
        With the states of all tasks: ``state[task]``. `Failed` if a reference task
        failed or crashed (its data: the first failure's exception), `Cancelled` if
        one was cancelled, `Paused` or `Pending` if a terminal task has not finished,
        else `Completed`.

    Notes
    -----
    Source of the rule: reference tasks of the graph generations; a cancelled
    reference task is not hidden behind a success, as it was there.
    """
    by_task = TaskStates(plan, states, parameters, view)
    terminal = [_tally(plan, states, index) for index in plan.terminal]
    if any(tally.finished < tally.total for tally in terminal):
        return _unfinished(plan, states, by_task)
    reference = sorted(plan.reference)
    failed = [n for n in reference if _tally(plan, states, n).failed]
    if failed:
        names = [name for n in failed for name in _tally(plan, states, n).failed_names]
        more = sum(_tally(plan, states, n).failed for n in failed) - len(names[:3])
        told = ", ".join(names[:3]) + (f" and {more} more" if more else "")
        first = failure_in(failed[0], states[failed[0]], None)
        assert first is not None
        message = f"reference tasks failed: {told}{_told(plan, states, first)}"
        return Failed(message, data=_first_failure(states[failed[0]]), states=by_task)
    if any(_is_cancelled(states[n]) for n in reference):
        return Cancelled("the run was cancelled before its end.", states=by_task)
    values = ReferenceValues({plan.nodes[n].task: states[n] for n in reference})
    return Completed(ALL_SUCCEEDED, data=values, states=by_task)


def _told(plan: Plan, states: Sequence[State], failure: Failure) -> str:
    """What a failure began with: itself, or a failure above."""
    if isinstance(failure.state, TriggerFailed):
        above = Failures(plan, states).first_above(failure.node, failure.index)
        failure = above or failure
    return failure.told(labels_of(plan)[failure.node])


def _tally(plan: Plan, states: Sequence[State], index: int) -> Tally:
    state, name = states[index], plan.nodes[index].name
    if isinstance(state, Mapped) and isinstance(state.states, Children):
        total = Tally(0, 0, 0, 0, 0, ())
        for segment in state.states.segments:
            total = total + tally_of(segment, name, mapped=True)
        return total
    return tally_of_state(state, name)


def _unfinished(plan: Plan, states: Sequence[State], by_task: TaskStates) -> State:
    paused = [
        plan.nodes[index].name
        for index, state in enumerate(states)
        if state.is_paused() or any(child.is_paused() for child in _some(state))
    ]
    if paused:
        return Paused(f"waiting for: {', '.join(paused[:3])}.", states=by_task)
    return Pending("some tasks have not finished.", states=by_task)


def _some(state: State) -> Iterator[State]:
    """Children whose state is not a plain success."""
    return (child for _, child in details_of(state))


def counts_of(states: Iterable[State]) -> dict[str, int]:
    """Number of task runs by the class of their state; each child is one."""
    counts: dict[str, int] = {}
    for state in states:
        found = {STATE_BY_CODE[code_of(state)].__name__: 1}
        if isinstance(state.states, Children):
            found = state.states.counts()
        for name, number in found.items():
            counts[name] = counts.get(name, 0) + number
    return counts


def failures_of(name: str, state: State) -> list[tuple[str, State]]:
    """Name and state of what failed or crashed: a node, or children of it."""
    if not state.is_mapped():
        return [(name, state)] if counts_as_failure(state) else []
    return [
        (f"{name}[{index}]", state[index])  # with its facts, and what failed above it
        for index, child in details_of(state)
        if counts_as_failure(child)
    ]


def failed_by_itself(name: str, state: State) -> tuple[str, State, int] | None:
    """The first run of a node that failed by itself, and how many more did.

    What its trigger refused did not. Only that one state is looked at.

    Parameters
    ----------
    name, state : str, State
        Of the node.

    Returns
    -------
    tuple of (str, State, int), or None
        Name, a child as ``"load[3]"``, and state of the first; how many more there are.
    """
    if not isinstance(state.states, Children) or not state.is_mapped():
        refused = isinstance(state, TriggerFailed)
        return None if refused or not counts_as_failure(state) else (name, state, 0)
    first, count = None, 0
    for segment in state.states.segments:
        for code in _FAILED_BY_ITSELF:
            found = segment.codes.count(code)
            count += found
            if found and (first is None or first >= segment.start):
                at = segment.start + segment.codes.index(code)
                first = at if first is None else min(first, at)
    if first is None:
        return None
    return f"{name}[{first}]", state[first], count - 1


def _is_cancelled(state: State) -> bool:
    return state.is_cancelled() or any(child.is_cancelled() for child in _some(state))


def _first_failure(state: State) -> BaseException:
    found = failure_in(0, state, None)
    if found is None or found.index is None:
        return _error(state)
    return _error(state[found.index])


def _error(state: State) -> BaseException:
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else RuntimeError(repr(error))
