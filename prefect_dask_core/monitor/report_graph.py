"""Report graph: boxes and arrows of a run, and where they stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from prefect_dask_core.engine.codes import CODE_BY_STATE, STATE_BY_CODE
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.monitor.summary import labels_of
from prefect_dask_core.states import Pending


@dataclass(frozen=True, slots=True)
class Box:
    """A box of the graph.

    Parameters
    ----------
    name : str
        Name of its task, or of its node.
    x, y : float
        Its middle: `y` is 0 for what reads nothing and goes down by 1 each step.
    runs : int
        Runs that it stands for.
    counts : dict of str to int
        These by the name of their state's class.
    mapped : bool
        Whether they are, or some are, children.
    """

    name: str
    x: float
    y: float
    runs: int
    counts: dict[str, int]
    mapped: bool


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow between two boxes, by their positions; dashed if it is mapped."""

    start: int
    end: int
    mapped: bool


class _Group(NamedTuple):
    """What shares a box."""

    rank: int
    counts: Counter[str]
    mapped: bool


#: Most boxes that are drawn; with more nodes, a box is a task.
MOST_BOXES: Final = 60


def graph(view: RunView) -> tuple[list[Box], list[Arrow]]:
    """Boxes and arrows of a run: of its nodes, or of its tasks where these are many."""
    nodes = [node for node in view.nodes if not node.helper]
    by_task = len(nodes) > MOST_BOXES
    labels = labels_of(view.nodes)
    keys = {
        node.number: node.name if by_task else labels[node.number] for node in nodes
    }
    ranks = _ranks(view)
    boxes: dict[str, _Group] = {}
    for node in nodes:
        key = keys[node.number]
        children = view.children(node.number)
        counts: Counter[str] = Counter()
        if children is None:
            segments = view.segments(node.number)
            code = segments[0].codes[0] if segments else CODE_BY_STATE[Pending]
            counts[STATE_BY_CODE[code].__name__] = 1
        else:
            counts.update(children.counts())
        known = boxes.get(key, _Group(ranks[node.number], Counter(), False))
        boxes[key] = _Group(
            min(known.rank, ranks[node.number]),
            known.counts + counts,
            known.mapped or node.mapped,
        )
    arrows: dict[tuple[str, str], bool] = {}
    for node in nodes:
        for above, dashed in _above(view, node.number):
            pair = keys[above], keys[node.number]
            if pair[0] != pair[1]:
                arrows[pair] = arrows.get(pair, False) or dashed
    return _laid_out(boxes, arrows)


def _ranks(view: RunView) -> list[int]:
    """How many steps each node is below one that reads nothing, helpers left out."""
    ranks: list[int] = []
    for node in view.nodes:
        above = (ranks[e.node] + (not view.nodes[e.node].helper) for e in node.edges)
        ranks.append(max(above, default=0))
    return ranks


def _above(view: RunView, number: int) -> list[tuple[int, bool]]:
    """Nodes that one reads, through helpers, and whether element by element."""
    found: dict[int, bool] = {}
    todo = [(edge.node, edge.mapped) for edge in view.nodes[number].edges]
    seen = set()
    while todo:
        above, mapped = todo.pop()
        if view.nodes[above].helper:
            if above not in seen:
                seen.add(above)
                todo += [(edge.node, mapped) for edge in view.nodes[above].edges]
        else:
            found[above] = found.get(above, False) or mapped
    return sorted(found.items())


def _laid_out(
    boxes: dict[str, _Group],
    arrows: dict[tuple[str, str], bool],
) -> tuple[list[Box], list[Arrow]]:
    """Places in layers, each box near the middle of those above it."""
    layers: dict[int, list[str]] = {}
    for key, group in boxes.items():
        layers.setdefault(group.rank, []).append(key)
    x: dict[str, float] = {}
    for rank in sorted(layers):
        wanted = {}
        for order, key in enumerate(layers[rank]):
            above = [x[a] for a, b in arrows if b == key and a in x]
            middle = sum(above) / len(above) if above else float(order)
            wanted[key] = middle, order
        members = sorted(layers[rank], key=wanted.__getitem__)
        centre = sum(wanted[key][0] for key in members) / len(members)
        for place, key in enumerate(members):
            x[key] = centre + place - (len(members) - 1) / 2
    left = min(x.values(), default=0.0)
    numbers = {key: number for number, key in enumerate(boxes)}
    drawn = [
        Box(
            key,
            x[key] - left,
            -float(group.rank),
            sum(group.counts.values()),
            dict(group.counts),
            group.mapped,
        )
        for key, group in boxes.items()
    ]
    return drawn, [
        Arrow(numbers[a], numbers[b], dash) for (a, b), dash in arrows.items()
    ]
