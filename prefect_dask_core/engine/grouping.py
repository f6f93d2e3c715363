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

from prefect_dask_core.engine.columns import Segment
from prefect_dask_core.engine.fanout import AIM, BLOCKS_PER_THREAD, LEAST_WORK, Pace
from prefect_dask_core.engine.feeds import is_success
from prefect_dask_core.engine.plan import Node, definition_key
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
        self._paces: dict[Hashable, Pace] = {}
        self._alone: set[Hashable] = set()
        self._tried: dict[Hashable, int] = {}
        self._held_back: dict[Hashable, list[int]] = {}

    @property
    def holds_back(self) -> bool:
        """Whether nodes wait until it is known how long their kind takes."""
        return bool(self._held_back)

    def may_go(self, node: Node, threads: int) -> bool:
        """Whether a node goes out now; else it is held back until `learn` gives it."""
        kind = self._kind(node.task)
        if kind in self._paces or kind in self._alone or node.task.isasync:
            return True
        self._tried[kind] = tried = self._tried.get(kind, 0) + 1
        if tried <= self._most_tried * max(threads, 1):
            return True
        self._held_back.setdefault(kind, []).append(node.index)
        return False

    def learn(self, node: Node, segment: Segment) -> Sequence[int]:
        """Take in how a node ended; the nodes that were held back until then."""
        kind = self._kind(node.task)
        if is_success(segment) and segment.values is None:
            # The values of a block come and go together; this one is large.
            self._alone.add(kind)
        elif kind not in self._alone:
            pace = self._paces.setdefault(kind, Pace())
            pace.observe(1, segment.ends[0] - segment.begins[0])
        return self._held_back.pop(kind, ())

    def give_up(self) -> list[int]:
        """Take the kinds of which none has ended so far as long ones.

        Returns
        -------
        list of int
            Nodes that were held back.
        """
        self._alone.update(self._held_back)
        held_back = [node for nodes in self._held_back.values() for node in nodes]
        self._held_back.clear()
        return held_back

    def seconds(self, node: Node) -> float | None:
        """Seconds that a node takes; `None` if it runs by itself."""
        if node.task.isasync:
            return None
        kind = self._kind(node.task)
        pace = self._paces.get(kind)
        return None if pace is None or kind in self._alone else pace.seconds


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
