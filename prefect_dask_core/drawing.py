"""Drawing: a flow as a picture, as text for Mermaid or Graphviz.

`picture_of` works out what is drawn, as plain records; the rest only spells them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from prefect_dask_core.displays import text
from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.children import Children
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.states import State, StateType
from prefect_dask_core.tasks import Task

#: Most children of a mapped task that are drawn one by one.
MOST_CHILDREN: Final = 20
#: Most tasks that a notebook draws unasked.
MOST_DRAWN: Final = 100

_CLASSES: Final[Mapping[str, type[State]]] = {
    found.__name__: found for found in State.children(include_self=True)
}
#: Which state gives its colour to a box that stands for many children: the worst.
_SEVERITY: Final = (
    StateType.CRASHED,
    StateType.FAILED,
    StateType.CANCELLED,
    StateType.CANCELLING,
    StateType.PAUSED,
    StateType.RUNNING,
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.COMPLETED,
)


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """One shape.

    Parameters
    ----------
    id : str
        Slug of the task, for a child with its index: ``"load-1[3]"``.
    lines : tuple of str
        What stands inside.
    box : bool
        Whether it is a box, for a mapped task or a child; else it is round.
    state : str or None
        Class of the state that gives the colour.
    """

    id: str
    lines: tuple[str, ...]
    box: bool
    state: str | None


@dataclass(frozen=True, slots=True)
class DrawnEdge:
    """One arrow, between the ids of two shapes; dashed if it is mapped."""

    start: str
    end: str
    label: str | None
    dashed: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn of a flow."""

    name: str
    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]


def picture_of(flow: FlowGraph, flow_state: State | None = None) -> Picture:
    """What is drawn of a flow.

    Parameters
    ----------
    flow : FlowGraph
        The flow.
    flow_state : State, optional
        State of a run of the flow, for colours and children.

    Examples
    --------
    >>> flow = FlowGraph("two steps")
    >>> edges = flow.chain(Task("read"), Task("write"))
    >>> picture = picture_of(flow)
    >>> [node.lines for node in picture.nodes], len(picture.edges)
    ([('read',), ('write',)], 1)
    """
    states = _states_of(flow, flow_state)
    shapes = {
        task: _shapes(flow.slugs[task], task, _is_mapped(flow, task), states.get(task))
        for task in flow.sorted_tasks()
    }
    edges = [
        drawn
        for task in shapes
        for edge in flow.edges_to(task)
        for drawn in _arrows(edge, shapes[edge.upstream_task], shapes[task])
    ]
    nodes = [node for drawn in shapes.values() for node in drawn]
    return Picture(flow.name, tuple(nodes), tuple(edges))


def _states_of(flow: FlowGraph, flow_state: State | None) -> dict[Task, State]:
    if flow_state is None:
        return {}
    states = getattr(flow_state, "states", None)
    if not isinstance(states, Mapping):
        raise OptionTypeError(
            f"flow_state={flow_state!r} has no states of tasks; give the state that "
            "flow.run(...) returned."
        )
    return {task: states[task] for task in flow.tasks if task in states}


def _is_mapped(flow: FlowGraph, task: Task) -> bool:
    return any(edge.mapped for edge in flow.edges_to(task))


def _shapes(
    slug: str, task: Task, mapped: bool, state: State | None
) -> list[DrawnNode]:
    """Shapes of a task: one, or one per child of a fan-out that is not large."""
    name = f"{task.name} <map>" if mapped else task.name
    kind = None if state is None else type(state).__name__
    if state is None or not state.is_mapped() or state.map_states is None:
        return [DrawnNode(slug, (name,), mapped, kind)]
    children = state.map_states
    if 0 < len(children) <= MOST_CHILDREN:
        return [
            DrawnNode(
                f"{slug}[{index}]", (f"{task.name}[{index}]",), True, type(of).__name__
            )
            for index, of in enumerate(children)
        ]
    counts = _counts(children)
    worst = min(counts, key=_severity, default=kind)
    told = [f"{number} {found}" for found, number in counts.items()]
    return [DrawnNode(slug, (name, ", ".join(told) or "no children"), True, worst)]


def _counts(children: Sequence[State]) -> Mapping[str, int]:
    """Number of children by the name of their state's class."""
    if isinstance(children, Children):
        return children.counts()
    return Counter(type(child).__name__ for child in children)


def _severity(kind: str) -> int:
    return _SEVERITY.index(_CLASSES[kind].type)


def _arrows(
    edge: Edge, above: list[DrawnNode], below: list[DrawnNode]
) -> list[DrawnEdge]:
    """Arrows of an edge: child to child where it is mapped, else from all to all."""
    each = edge.mapped and not edge.flattened and len(above) == len(below)
    pairs = zip(above, below, strict=True) if each else product(above, below)
    return [DrawnEdge(a.id, b.id, edge.key, edge.mapped) for a, b in pairs]


def color_of(kind: str) -> tuple[str, str]:
    """Colours of a shape and of the text on it, by the class of its state.

    Examples
    --------
    >>> color_of("Crashed"), color_of("Skipped")
    (('#000000', '#ffffff'), ('#b8c4bd', '#000000'))
    """
    fill = _CLASSES.get(kind, State).color
    channels = (int(fill[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (_linear(channel) for channel in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # Where black and white have the same contrast (WCAG 2.1, relative luminance).
    return fill, "#000000" if luminance > 0.179 else "#ffffff"


def _linear(channel: float) -> float:
    if channel <= 0.04045:
        return channel / 12.92
    return float(((channel + 0.055) / 1.055) ** 2.4)


# -- Mermaid -----------------------------------------------------------------------


def mermaid(picture: Picture) -> str:
    """Text of a picture for Mermaid.

    Examples
    --------
    >>> flow = FlowGraph("two steps")
    >>> edges = flow.chain(Task("read"), Task('say "hi"'))
    >>> print(mermaid(picture_of(flow)))
    flowchart TD
        read_1(["read"])
        say_hi_1(["say #quot;hi#quot;"])
        read_1 --> say_hi_1
    """
    ids = _mermaid_ids([node.id for node in picture.nodes])
    lines = ["flowchart TD"]
    for node in picture.nodes:
        text = "<br/>".join(map(_mermaid_text, node.lines))
        left, right = ("[", "]") if node.box else ("([", "])")
        lines.append(f'    {ids[node.id]}{left}"{text}"{right}')
    for edge in picture.edges:
        arrow = "-.->" if edge.dashed else "-->"
        label = "" if edge.label is None else f'|"{_mermaid_text(edge.label)}"|'
        lines.append(f"    {ids[edge.start]} {arrow}{label} {ids[edge.end]}")
    of_kind: dict[str, list[str]] = {}
    for node in picture.nodes:
        if node.state is not None:
            of_kind.setdefault(node.state, []).append(ids[node.id])
    for kind, members in of_kind.items():
        fill, text = color_of(kind)
        lines.append(f"    classDef {kind} fill:{fill},color:{text}")
        lines.append(f"    class {','.join(members)} {kind}")
    return "\n".join(lines)


#: Words that mean something to Mermaid where an id could stand.
_RESERVED: Final = frozenset(
    (
        *("call", "class", "classdef", "click", "default", "direction", "end"),
        *("flowchart", "graph", "href", "linkstyle", "style", "subgraph"),
    )
)


def _mermaid_ids(slugs: Sequence[str]) -> dict[str, str]:
    """Ids of letters, digits and underscores, each once."""
    ids: dict[str, str] = {}
    taken = set()
    for slug in slugs:
        wanted = re.sub(r"[^A-Za-z0-9]+", "_", slug).strip("_") or "task"
        if wanted.lower() in _RESERVED:
            wanted = f"{wanted}_"
        found, number = wanted, 2
        while found in taken:
            found, number = f"{wanted}_{number}", number + 1
        taken.add(found)
        ids[slug] = found
    return ids


def _mermaid_text(text: str) -> str:
    """Text in quotes; Mermaid has entities of its own, and Markdown in backticks."""
    for character, entity in (
        ("#", "#35;"),
        ("&", "#amp;"),
        ('"', "#quot;"),
        ("<", "#lt;"),
        (">", "#gt;"),
        ("`", "#96;"),
    ):
        text = text.replace(character, entity)
    return " ".join(text.split())


# -- Graphviz ----------------------------------------------------------------------


def digraph(picture: Picture, horizontal: bool = False) -> Any:
    """Graph of a picture for Graphviz.

    Parameters
    ----------
    picture : Picture
        What to draw.
    horizontal : bool
        Whether it goes from left to right instead of downwards.

    Returns
    -------
    graphviz.Digraph
        The graph; notebooks show it.

    Raises
    ------
    ImportError
        Without the library `graphviz`.
    """
    try:
        import graphviz
    except ImportError as error:
        raise ImportError(
            "drawing a flow needs the library graphviz and, for a picture, the "
            "program dot: pip install 'prefect_dask_core[viz]', and install Graphviz "
            "with the system's package manager, or both with conda install "
            "python-graphviz. flow.to_mermaid() needs neither."
        ) from error
    rank = {"rankdir": "LR"} if horizontal else {}
    # The name is also that of the file in which somebody may look at the graph.
    name = re.sub(r"\W+", "-", picture.name)
    graph = graphviz.Digraph(name=name, graph_attr=rank)
    # Not by slug: a colon in the id of a node would mean a port.
    ids = {node.id: f"n{number}" for number, node in enumerate(picture.nodes)}
    for node in picture.nodes:
        look = {
            "shape": "box" if node.box else "ellipse",
            "tooltip": graphviz.escape(node.id),
        }
        if node.state is not None:
            fill, text = color_of(node.state)
            look.update(style="filled", fillcolor=fill, fontcolor=text)
        label = "\n".join(map(graphviz.escape, node.lines))
        graph.node(ids[node.id], graphviz.nohtml(label), **look)
    for edge in picture.edges:
        key = None if edge.label is None else graphviz.nohtml(edge.label)
        style = {"style": "dashed"} if edge.dashed else {}
        graph.edge(ids[edge.start], ids[edge.end], label=key, **style)
    return graph


def picture_html(picture: Picture) -> str:
    """A picture for a notebook: drawn, or as text where Graphviz is not installed."""
    if len(picture.nodes) > MOST_DRAWN:
        return f"<div>{len(picture.nodes):,} tasks: too many to draw here</div>"
    try:
        found: str = digraph(picture).pipe(format="svg", encoding="utf-8")
    except (ImportError, OSError):  # the library, or the program, is not there
        return f"<pre>{text(mermaid(picture))}</pre>"
    return found[found.index("<svg") :]


def save_picture(graph: Any, filename: str, format: str | None = None) -> Path:
    """Draw a graph into a file, and return the file's path.

    Parameters
    ----------
    graph : graphviz.Digraph
        The graph.
    filename : str
        The file; the suffix of the format is added unless it is there.
    format : str, optional
        Format; unless given that of the suffix, else PDF.
    """
    path = Path(filename)
    suffix = path.suffix[1:].lower()
    if format is None:
        format = suffix if suffix in PICTURE_FORMATS else "pdf"
    if suffix != format.lower():
        path = path.with_name(f"{path.name}.{format}")
    path.write_bytes(graph.pipe(format=format))
    return path


#: Suffixes that say which format is meant.
PICTURE_FORMATS: Final = frozenset({"pdf", "png", "svg", "jpg", "jpeg", "gif", "dot"})
