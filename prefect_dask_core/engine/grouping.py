"""Grouping: which plain nodes run together in one block, and which are tried first.

Dask's own cost of a task is about a millisecond. Nodes that take less run together, and
what is not known to be tiny runs by itself. So a few nodes of each kind go out first,
one by one, and the others of their kind once one of those has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.codes import code_of
from prefect_dask_core.engine.fanout import AIM, BLOCKS_PER_THREAD, LEAST_WORK
from prefect_dask_core.engine.plan import Node, definition_key
from prefect_dask_core.engine.quick import is_quick
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.states import Completed, Failed, TimedOut
from prefect_dask_core.tasks import Task

#: Most groups of nodes in one block.
MOST_TOGETHER: Final = 500
#: Nodes of a kind per thread that go out before it is known how long one takes.
TRIED_PER_THREAD: Final = 4
#: Seconds of work that a block of several groups is expected to have at least, for the
#: bound at which it hands back what it has not begun.
LEAST_AIM: Final = 0.05


class Kinds:
    """What is known of how long nodes take, by their kind.

    Parameters
    ----------
    kind : callable, optional
        Gives the kind of a task.
    tried : int, optional
        Nodes of a kind per thread that go out before it is known how long one takes.
    """

    def __init__(
        self,
        kind: Callable[[Task[..., Any]], Hashable] | None = None,
        tried: int = TRIED_PER_THREAD,
    ) -> None:
        self._kind = kind or kind_of
        self._most_tried = tried
        self._seconds: dict[Hashable, float] = {}
        self._large: set[Hashable] = set()
        self._given_up: set[Hashable] = set()
        self._tried: dict[Hashable, int] = {}
        self._ended: dict[Hashable, int] = {}
        self._held_back: dict[Hashable, list[int]] = {}

    @property
    def holds_back(self) -> bool:
        """Whether nodes wait until it is known how long their kind takes."""
        return bool(self._held_back)

    def may_go(self, node: Node, threads: int) -> bool:
        """Whether a node goes out now; else it is held back until `learn` gives it."""
        kind = self._kind(node.task)
        known = kind in self._seconds or kind in self._large or kind in self._given_up
        if known or not could_share(node.task):
            return True
        tried = self._tried.get(kind, 0)
        if tried < self._most_tried * max(threads, 1):
            self._tried[kind] = tried + 1
            return True
        self._held_back.setdefault(kind, []).append(node.index)
        return False

    def learn(self, node: Node, segment: Segment) -> Sequence[int]:
        """Take in how a node ended; the nodes that were held back until then.

        A run that took long counts at once, and is forgotten by halves. Of one whose
        body has not run nothing is learnt.
        """
        kind = self._kind(node.task)
        if is_success(segment) and segment.values is None:
            # The values of a block come and go together; this one is large.
            self._large.add(kind)
        elif segment.codes[0] in _RAN and segment.attempts_of(0):
            measured = max(segment.ends[0] - segment.begins[0], 1e-7)
            known = self._seconds.get(kind, measured)
            self._seconds[kind] = max(measured, 0.5 * (known + measured))
        self._ended[kind] = ended = self._ended.get(kind, 0) + 1
        if kind in self._seconds or kind in self._large:
            return self._held_back.pop(kind, ())
        if ended >= self._tried.get(kind, 0):
            self._given_up.add(kind)  # none of the bodies that were tried has run
            return self._held_back.pop(kind, ())
        return ()

    def give_up(self) -> list[int]:
        """Wait no longer for the kinds of which none has ended so far.

        Returns
        -------
        list of int
            Nodes that were held back.
        """
        self._given_up.update(self._held_back)
        held_back = [node for nodes in self._held_back.values() for node in nodes]
        self._held_back.clear()
        return held_back

    def is_large(self, node: Node) -> bool:
        """Whether values of such nodes are known to be large."""
        return self._kind(node.task) in self._large

    def seconds(self, node: Node) -> float | None:
        """Seconds that a node takes; `None` if it runs by itself."""
        if not could_share(node.task) or self.is_large(node):
            return None
        return self._seconds.get(self._kind(node.task))


#: States of runs whose body has run, and which so tell how long one takes.
_RAN: Final = frozenset(code_of(state) for state in (Completed(), Failed(), TimedOut()))


def could_share(task: Task[..., Any]) -> bool:
    """Whether runs of a task may share a block with others.

    Not those that may wait, for an attempt or for the end of a coroutine: what else
    is in the block would be told with them. Nor those that want their pipeline.
    """
    return not task.isasync and not task.options.retries and is_quick(task)


def kind_of(task: Task[..., Any]) -> Hashable:
    """What tasks have in common that take about as long as each other."""
    if task.auto_generated and type(task).run is not Task.run:
        return type(task).__qualname__  # a collection made for an argument
    return definition_key(task)


class Group(NamedTuple):
    """Nodes that run one after the other: a node, or a chain.

    Parameters
    ----------
    nodes : tuple of int
        In an order that respects every edge.
    seconds : float or None
        How long they take; `None` if they have to be a block by themselves.
    """

    nodes: tuple[int, ...]
    seconds: float | None


class Together(NamedTuple):
    """Groups that run in one block.

    Parameters
    ----------
    nodes : tuple of int
        The nodes, those of a group side by side.
    parts : tuple of int
        Positions at which a group begins, other than the first.
    aim : float
        Seconds of work; 0 for one group, which hands nothing back.
    """

    nodes: tuple[int, ...]
    parts: tuple[int, ...] = ()
    aim: float = 0.0


def put_together(
    groups: Sequence[Group],
    upstream: Callable[[int], Iterable[int]],
    label: Callable[[int], Hashable],
    threads: int,
    most: float = AIM,
    is_there: Callable[[int], bool] = lambda node: False,
) -> list[Together]:
    """Put groups of tiny nodes into common blocks.

    Parameters
    ----------
    groups : sequence of Group
        In an order that respects every edge.
    upstream : callable
        Gives the nodes above a node.
    label : callable
        Groups share a block only if it gives the same for their first nodes.
    threads : int
        Worker threads; 0 counts as 1.
    most : float
        Most seconds of work in a block that is shared.
    is_there : callable, optional
        Tells whether the value of a node is there, and small. A group shares a block
        only if all it reads is that, or comes from shared blocks itself: nothing tiny
        waits for a straggler that only another group reads.

    Returns
    -------
    list of Together
        In an order that respects every edge.

    Notes
    -----
    Only groups of one level share a block: none of them reads another, directly or
    not, and blocks cannot read each other in a circle. A level is divided into four
    blocks per thread, as the rest of a fan-out is, but not below 5 ms of work.

    Examples
    --------
    >>> leaves = [Group((n,), 0.001) for n in range(4)]
    >>> top = Group((4, 5), None)
    >>> above = {4: (0, 1, 2, 3), 5: (4,)}
    >>> for found in put_together(
    ...     [*leaves, top], lambda n: above.get(n, ()), lambda n: None, threads=1
    ... ):
    ...     print(found.nodes, found.parts)
    (0, 1, 2, 3) (1, 2, 3)
    (4, 5) ()
    """
    groups = _ready_groups(groups, upstream, is_there)
    if all(group.seconds is None for group in groups):
        return [Together(group.nodes) for group in groups]
    places = list(zip(_levels(groups, upstream), _labels(groups, label), strict=True))
    limits = _limits(groups, places, threads, most)
    found: list[tuple[int, Together]] = []
    begun: dict[_Place, _Begun] = {}
    for group, place in zip(groups, places, strict=True):
        if group.seconds is None or group.seconds >= limits[place]:
            found.append((place[0], Together(group.nodes)))
            continue
        block = begun.setdefault(place, _Begun())
        block.groups.append(group)
        block.seconds += group.seconds
        if block.seconds >= limits[place] or len(block.groups) == MOST_TOGETHER:
            found.append((place[0], begun.pop(place).together()))
    found += [(place[0], block.together()) for place, block in begun.items()]
    found.sort(key=lambda one: (one[0], one[1].nodes[0]))
    return [together for _, together in found]


def _ready_groups(
    groups: Sequence[Group],
    upstream: Callable[[int], Iterable[int]],
    is_there: Callable[[int], bool],
) -> list[Group]:
    """The groups, without the seconds of those that have to wait for something long."""
    tiny: set[int] = set()
    found = []
    for group in groups:
        if group.seconds is not None:
            own = frozenset(group.nodes)
            waits = any(
                above not in own and above not in tiny and not is_there(above)
                for node in group.nodes
                for above in upstream(node)
            )
            if waits:
                group = Group(group.nodes, None)
            else:
                tiny.update(own)
        found.append(group)
    return found


#: Level, and label.
_Place = tuple[int, Hashable]


def _levels(
    groups: Sequence[Group], upstream: Callable[[int], Iterable[int]]
) -> list[int]:
    """Level of each group: one more than the highest among those it reads."""
    level_of: dict[int, int] = {}
    levels = []
    for group in groups:
        above = [level_of.get(n, -1) for node in group.nodes for n in upstream(node)]
        level = max(above, default=-1) + 1
        level_of.update(dict.fromkeys(group.nodes, level))
        levels.append(level)
    return levels


def _labels(
    groups: Sequence[Group], label: Callable[[int], Hashable]
) -> list[Hashable]:
    return [label(group.nodes[0]) for group in groups]


def _limits(
    groups: Sequence[Group], places: Sequence[_Place], threads: int, most: float
) -> dict[_Place, float]:
    """Seconds of work for which a block of each place is cut."""
    work: dict[_Place, float] = {}
    for group, place in zip(groups, places, strict=True):
        work[place] = work.get(place, 0.0) + (group.seconds or 0.0)
    blocks = BLOCKS_PER_THREAD * max(threads, 1)
    return {
        place: min(most, max(seconds / blocks, LEAST_WORK))
        for place, seconds in work.items()
    }


@dataclass(slots=True)
class _Begun:
    """A block that is being filled."""

    groups: list[Group] = field(default_factory=list)
    seconds: float = 0.0

    def together(self) -> Together:
        """The block."""
        nodes = tuple(node for group in self.groups for node in group.nodes)
        if len(self.groups) == 1:
            return Together(nodes)
        *ends, _ = accumulate(len(group.nodes) for group in self.groups)
        return Together(nodes, tuple(ends), max(self.seconds, LEAST_AIM))
