"""Upstream: the failure that a run did not start because of, however far above."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import cloudpickle

from prefect_dask_core.engine.columns import (
    BAD,
    CODE_BY_STATE,
    FAILED,
    STATE_BY_CODE,
    Children,
)
from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.states import Mapped, State, TriggerFailed

_REFUSED: Final = CODE_BY_STATE[TriggerFailed]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that did not succeed.

    Parameters
    ----------
    node : int
        Its node.
    index : int or None
        Which child it is.
    state : State
        How it ended.
    """

    node: int
    index: int | None
    state: State

    def told(self, name: str) -> str:
        """The end of a message about what it is the reason of.

        Parameters
        ----------
        name : str
            Name of its node.

        Examples
        --------
        >>> from prefect_dask_core.states import Failed
        >>> Failure(4, 7, Failed("KeyError: 'x'")).told("load")
        "; it began with load[7]: KeyError: 'x'"
        """
        child = "" if self.index is None else f"[{self.index}]"
        said = self.state.message or repr(self.state)
        return f"; it began with {name}{child}: {said}"


#: Gives the failure of a node: of the very child if there is an index, else the first.
FailureOf = Callable[[int, int | None], Failure | None]


def first_failure(
    parents: Callable[[int], Iterable[int]],
    failure_of: FailureOf,
    node: int,
    index: int | None,
) -> Failure | None:
    """The failure that a run did not start because of.

    Parameters
    ----------
    parents : callable
        Gives the nodes that a node reads or comes after.
    failure_of : callable
        Gives the failure of a node.
    node, index : int, int or None
        The run.

    Returns
    -------
    Failure or None
        Of a run that failed by itself, if one is found.
    """
    found: Failure | None = None
    while True:
        above = list(parents(node))
        nearest = _first(above, failure_of, index)
        if nearest is None and index is not None:
            nearest = _first(above, failure_of, None)
        if nearest is None:
            return found
        found = nearest
        if not isinstance(found.state, TriggerFailed):
            return found
        node, index = found.node, found.index


def _first(
    nodes: Iterable[int], failure_of: FailureOf, index: int | None
) -> Failure | None:
    # The child of the same index of any node goes before other children of the first.
    return next((one for n in nodes if (one := failure_of(n, index)) is not None), None)


def failure_in(node: int, state: State, index: int | None) -> Failure | None:
    """Failure of a node in some state.

    Parameters
    ----------
    node : int
        The node.
    state : State
        Its state.
    index : int or None
        Which child is asked for; `None`: the first that failed or crashed.
    """
    if not state.is_mapped():
        return Failure(node, None, state) if _is_bad(state) else None
    if index is not None:
        children = state.states or ()
        if index >= len(children) or not _is_bad(state[index]):
            return None
        return Failure(node, index, state[index])
    bad = _BadChildren(state)
    number = bad.first()
    child = None if number is None else bad.state(number)
    return None if child is None else Failure(node, number, child)


def _is_bad(state: State) -> bool:
    return state.is_final() and not state.is_successful()


def details_of(state: State) -> Iterator[tuple[int, State]]:
    """Index and state of the children whose state is not a plain success."""
    if isinstance(state, Mapped) and isinstance(state.states, Children):
        for segment in state.states.segments:
            for offset, detail in sorted(segment.details.items()):
                yield segment.start + offset, detail


class _BadChildren:
    """The children of a node that did not succeed, and no values of the others.

    Nothing is unpickled before somebody asks.

    Parameters
    ----------
    state : State
        Of the node.
    """

    __slots__ = ("_segments",)

    def __init__(self, state: State) -> None:
        self._segments: list[tuple[int, bytes | bytearray, Mapping[int, State]]] = []
        if isinstance(state, Mapped) and isinstance(state.states, Children):
            self._segments = [
                (segment.start, segment.codes, segment.details)
                for segment in state.states.segments
                if not BAD.isdisjoint(segment.codes)
            ]

    def __bool__(self) -> bool:
        return bool(self._segments)

    def first(self) -> int | None:
        """Index of the first that failed or crashed."""
        for start, codes, _ in self._segments:
            found = [at for code in FAILED if (at := codes.find(code)) >= 0]
            if found:
                return start + min(found)
        return None

    def state(self, index: int) -> State | None:
        """State of a child; `None` if it succeeded or has not ended."""
        position = bisect_right(self._segments, index, key=itemgetter(0)) - 1
        if position < 0:
            return None
        start, codes, details = self._segments[position]
        offset = index - start
        if offset >= len(codes) or codes[offset] not in BAD:
            return None
        detail = details.get(offset)
        return STATE_BY_CODE[codes[offset]]() if detail is None else detail


class Failures:
    """What did not succeed in a flow run, and what stands below what.

    It holds the states of these runs alone, so that states of a run can hold it, and
    no value of the run with it.

    Parameters
    ----------
    plan : Plan
        What ran.
    states : sequence of State
        One per node.
    """

    __slots__ = ("_children", "_plain", "_upstream")

    def __init__(self, plan: Plan, states: Sequence[State]) -> None:
        self._upstream = list(plan.upstream)
        self._plain: dict[int, State] = {}
        self._children: dict[int, _BadChildren] = {}
        for node, state in enumerate(states):
            if not state.is_mapped():
                if _is_bad(state):
                    self._plain[node] = state
                continue
            bad = _BadChildren(state)
            if bad:
                self._children[node] = bad

    def first_above(self, node: int, index: int | None) -> Failure | None:
        """The failure that a run did not start because of."""
        return first_failure(self._upstream.__getitem__, self._failure, node, index)

    def _failure(self, node: int, index: int | None) -> Failure | None:
        if node in self._plain:
            return Failure(node, None, self._plain[node])
        children = self._children.get(node)
        if children is None:
            return None
        if index is None:
            index = children.first()
        state = None if index is None else children.state(index)
        return None if state is None else Failure(node, index, state)


class Above:
    """What makes the cause of a run that did not start, when somebody asks.

    Parameters
    ----------
    failures : Failures
        What did not succeed in the flow run.
    node, index : int, int or None
        The run that did not start.
    """

    __slots__ = ("_failures", "_index", "_node")

    def __init__(self, failures: Failures, node: int, index: int | None) -> None:
        self._failures, self._node, self._index = failures, node, index

    def __call__(self) -> BaseException | None:
        """What made the first run above fail; `None` if none is known."""
        found = self._failures.first_above(self._node, self._index)
        if found is None:
            return None
        error: BaseException = found.state.result(raise_on_failure=False)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        # A state that travels alone takes the one exception along, if that can travel.
        try:
            return _known, (cloudpickle.dumps(self()),)
        except Exception:
            return _known, (None,)


class _Known:
    """A cause that was found before it travelled."""

    __slots__ = ("_blob",)

    def __init__(self, blob: bytes | None) -> None:
        self._blob = blob

    def __call__(self) -> BaseException | None:
        found: BaseException | None = None
        if self._blob is not None:
            found = cloudpickle.loads(self._blob)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _known, (self._blob,)


def _known(blob: bytes | None) -> _Known:
    return _Known(blob)


class _Refusals:
    """Gives the states of refused children what makes their causes."""

    __slots__ = ("_failures", "_node")

    def __init__(self, failures: Failures, node: int) -> None:
        self._failures, self._node = failures, node

    def __call__(self, index: int) -> Above:
        return Above(self._failures, self._node, index)


def with_causes(plan: Plan, states: Sequence[State]) -> Sequence[State]:
    """States of a flow run; those of refused runs know what failed above them.

    Parameters
    ----------
    plan : Plan
        What ran.
    states : sequence of State
        One per node.
    """
    if not any(_has_refused(state) for state in states):
        return states
    failures = Failures(plan, states)
    found = []
    for node, state in enumerate(states):
        if isinstance(state, TriggerFailed):
            state = state.replace(_above=Above(failures, node, None))
        elif _has_refused(state) and isinstance(state.states, Children):
            children = Children(len(state.states), state.states.segments)
            children.above = _Refusals(failures, node)
            state = state.replace(states=children)
        found.append(state)
    return found


def _has_refused(state: State) -> bool:
    if isinstance(state.states, Children):
        return any(_REFUSED in segment.codes for segment in state.states.segments)
    return isinstance(state, TriggerFailed)
