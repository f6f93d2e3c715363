"""Resume: what of an earlier run stands, and what has to run again.

What completed is kept, child by child; the rest runs again, and with it whatever read
it, because its input changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.elsewhere import Elsewhere
from prefect_dask_core.engine.flattening import count_elements
from prefect_dask_core.engine.plan import Node, Plan, flattened, items_of
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.results.kept import KeptItem, StoredValues
from prefect_dask_core.states import DataReference, Mapped, Missing, State


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a node stands.

    Parameters
    ----------
    segments : tuple of Segment
        Runs that are not run again, in index order; one of a plain node.
    length : int or None
        Number of children; `None` for a plain node.
    todo : tuple of (int, int)
        Ranges of children that run again; empty if the node stands as a whole.
    """

    segments: tuple[Segment, ...]
    length: int | None = None
    todo: tuple[tuple[int, int], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the node runs again."""
        return not self.todo


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run knows of an earlier one.

    Parameters
    ----------
    kept : mapping of int to Kept
        By node; a node that is missing runs as if for the first time.
    paused : mapping of int to mapping of int to str
        By node and index, the name of the pause that a run is resumed from; the
        index of a plain node is 0.
    """

    kept: Mapping[int, Kept] = field(default_factory=dict)
    paused: Mapping[int, Mapping[int, str]] = field(default_factory=dict)

    def runs_again(self, index: int) -> bool:
        """Whether anything of a node runs."""
        found = self.kept.get(index)
        return found is None or not found.is_whole

    def todo(self, index: int, length: int) -> tuple[tuple[int, int], ...]:
        """Ranges of children of a node that have to run."""
        found = self.kept.get(index)
        if found is not None:
            return found.todo
        return ((0, length),) if length else ()


NOTHING_EARLIER = Earlier()


def given_states(plan: Plan, states: Mapping[int, State]) -> Earlier:
    """Take finished states as they are, so that their nodes do not run.

    Parameters
    ----------
    plan : Plan
        What will run.
    states : mapping of int to State
        By node. Unfinished states, and those of mapped nodes, are not taken (source
        of the rule: ``task_states`` of the graph generations).
    """
    return Earlier(
        {
            index: Kept((_segment_of(plan, index, state),))
            for index, state in states.items()
            if state.is_final() and not state.is_mapped()
        }
    )


def resume_after(
    plan: Plan,
    states: Mapping[int, State],
    changed: Mapping[int, frozenset[int] | None],
    stored: frozenset[int] = frozenset(),
) -> Earlier:
    """Decide what of an earlier run stands.

    Parameters
    ----------
    plan : Plan
        What will run.
    states : mapping of int to State
        States of the earlier run, by node.
    changed : mapping of int to frozenset of int or None
        Nodes whose value will differ, such as parameters given another value; of a
        mapped node the children that differ, `None` if it does as a whole.
    stored : frozenset of int
        Nodes that find what they have stored by themselves. Where somebody needs
        their values they are submitted, and so looked for by many workers at a time.
    """
    decision = _Decision(plan, states, changed, stored)
    return Earlier(decision.kept(), _paused(states))


class _Decision:
    """Which runs of an earlier run stand."""

    def __init__(
        self,
        plan: Plan,
        states: Mapping[int, State],
        changed: Mapping[int, frozenset[int] | None],
        stored: frozenset[int],
    ) -> None:
        self._plan = plan
        self._stored = stored
        self._states = states
        #: Per node: `True` as a whole, `False` not at all, else a flag per child.
        self._stands: dict[int, bool | bytearray] = {}
        for node in plan.nodes:
            differ = changed.get(node.index, frozenset())
            self._stands[node.index] = differ is not None and self._decide(node, differ)

    def _decide(self, node: Node, differ: frozenset[int]) -> bool | bytearray:
        state = self._states.get(node.index)
        if state is None or node.constant:
            return False
        if not node.mapped or not isinstance(state.states, Children):
            return (
                state.is_successful()
                and not differ
                and all(
                    self._is_settled(above) for above in self._plan.upstream[node.index]
                )
            )
        flags = bytearray(len(state.states))
        for segment in state.states.segments:
            for offset in range(len(segment)):
                done = is_success(segment, offset) or segment.state(offset).is_skipped()
                flags[segment.start + offset] = done
        for index in differ:
            if index < len(flags):
                flags[index] = 0
        for item in node.inputs:
            above = None if item.node is None else self._stands[item.node]
            elementwise = item.mapped and not item.flattened
            if isinstance(above, bytearray) and elementwise:
                flags = bytearray(a & b for a, b in zip(flags, above, strict=True))
            elif item.node is not None and not self._is_settled(item.node):
                return False
        return True if all(flags) else flags

    def _is_settled(self, index: int) -> bool:
        """Whether a node gives its readers what it gave them before."""
        if self._plan.nodes[index].constant:
            return True
        # A resource is set up anew for those that run again, not for those that ran.
        if getattr(self._plan.nodes[index].task, "is_resource", False):
            return True
        return self._stands[index] is True

    def kept(self) -> dict[int, Kept]:
        """What stands, where its value is at hand or nobody needs it any more."""
        kept: dict[int, Kept] = {}
        runs_again: set[int] = set()
        for node in reversed(self._plan.nodes):
            found = None if node.constant else self._keep(node, runs_again)
            if found is not None:
                kept[node.index] = found
            if found is None or not found.is_whole:
                runs_again.add(node.index)
        if set(kept) == {n.index for n in self._plan.nodes if not n.constant}:
            return kept
        return {
            index: found
            for index, found in kept.items()
            if not getattr(self._plan.nodes[index].task, "is_resource", False)
        }

    def _keep(self, node: Node, runs_again: set[int]) -> Kept | None:
        stands = self._stands[node.index]
        if stands is False:
            return None
        state = self._states[node.index]
        needed = self._is_needed(node.index, runs_again)
        if needed and node.index in self._stored:
            return None
        if not isinstance(state.states, Children):
            segment = _segment_of(self._plan, node.index, state, needed)
            if needed and segment.values is None:
                return None
            return Kept((segment,))
        children = state.states
        flags = bytearray([1]) * len(children) if stands is True else stands
        assert isinstance(flags, bytearray)
        if needed and not all(map(_is_at_hand, children.segments)):
            return None
        # What nobody reads again need not be at hand, and its length is not asked for.
        flat = needed and node.index in self._plan.flattened
        return Kept(
            tuple(_standing(children.segments, flags, flat)),
            len(children),
            tuple(_ranges(flags, 0)),
        )

    def _is_needed(self, index: int, runs_again: set[int]) -> bool:
        """Whether a run that is to come reads the value of a node."""
        return any(
            item.node == index and item.key is not None
            for reader in self._plan.dependents[index]
            if reader in runs_again
            for item in self._plan.nodes[reader].inputs
        )


def _is_at_hand(segment: Segment) -> bool:
    """Whether the values of some children can be had."""
    if isinstance(segment.values, Elsewhere):
        try:
            segment.values = list(segment.values.load())
        except MissingResult:
            return False
    return segment.values is not None


def _segment_of(
    plan: Plan,
    index: int,
    state: State,
    needed: bool = True,
) -> Segment:
    """The segment of a plain node, as if it had just run."""
    segment = Segment(0)
    segment.open(1)
    end = state.timestamp or 0.0
    begin, made = end, None
    if state.run is not None:
        begin, made = state.run.begin or end, state.run.attempts
        segment.worker = state.run.worker
    measured = needed and index in plan.measured
    if isinstance(state.data, KeptItem) and not measured:
        # Read when somebody asks, by whoever needs it.
        segment.put(0, state.replace(data=None), begin, end, made)
        segment.kept = kept = state.data.as_kept()
        segment.values = StoredValues(kept, 1)
        return segment
    if isinstance(state.data, DataReference):
        try:
            state = state.replace(data=state.data.load())
        except MissingResult as error:
            state = state.replace(data=Missing(str(error)))
    missing = isinstance(state.data, Missing)
    segment.put(0, state, begin, end, made)
    if missing:
        segment.values = None
    elif measured and is_success(segment):
        items = items_of(segment.values[0])
        if items is not None:
            segment.length = len(items)
            segment.flat_length = len(flattened(items))
    return segment


def _standing(
    segments: Sequence[Segment], flags: bytearray, flat: bool
) -> list[Segment]:
    found = []
    for segment in segments:
        own = flags[segment.start : segment.stop]
        for start, stop in _ranges(own, 1):
            part = segment if all(own) else segment.part(start, stop)
            if flat and part.flat_length is None:
                part.flat_length = count_elements(part)
            found.append(part)
    return found


def _ranges(flags: bytearray, wanted: int) -> list[tuple[int, int]]:
    """Ranges in which every flag is the wanted one.

    Examples
    --------
    >>> _ranges(bytearray([1, 0, 0, 1, 0]), 0)
    [(1, 3), (4, 5)]
    """
    found = []
    at = 0
    mark, other = bytes([wanted]), bytes([1 - wanted])
    while (start := flags.find(mark, at)) >= 0:
        stop = flags.find(other, start)
        at = len(flags) if stop < 0 else stop
        found.append((start, at))
    return found


def _paused(states: Mapping[int, State]) -> dict[int, dict[int, str]]:
    """Names of the pauses of a run, by node and index."""
    found: dict[int, dict[int, str]] = {}
    for index, state in states.items():
        if isinstance(state, Mapped) and isinstance(state.states, Children):
            for segment in state.states.segments:
                for offset, child in segment.details.items():
                    if child.is_paused():
                        found.setdefault(index, {})[segment.start + offset] = child.name
        elif state.is_paused():
            found[index] = {0: state.name}
    return found
