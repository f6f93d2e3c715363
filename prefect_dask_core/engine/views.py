"""Views: what may be read of a flow run, while it runs and afterwards.

A runner knows its nodes in its own way; a `Look` is the one way to ask it. A `RunView`
joins the looks of a run (a function flow has that of its session and that of the tasks
it calls itself) and numbers their nodes. Nothing here waits, and nothing is added to
what a driver does for each block.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import cloudpickle

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.whole import Outcome
from prefect_dask_core.states import NO_DATA, Mapped, Pending, State
from prefect_dask_core.tasks import Task

#: Modules with bodies that only hand values on, for the package's own use.
_OWN: Final = frozenset(
    {"prefect_dask_core.engine.growing", "prefect_dask_core.scopes"}
)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a flow run from its begin.

    Parameters
    ----------
    run_id : str
        Hexadecimal id.
    flow_name, run_name : str
        Names of the flow and of this run.
    begin : float
        Seconds since the epoch.
    parameters : mapping of str to object
        Values of the parameters.
    parent_run_id : str or None
        Id of the flow run in which this one runs.
    parent_task_run_id : str or None
        Id of the task run in which this one runs.
    """

    run_id: str
    flow_name: str
    run_name: str
    begin: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent_run_id: str | None = None
    parent_task_run_id: str | None = None


class EdgeView(NamedTuple):
    """An edge that ends at a node.

    Parameters
    ----------
    node : int
        Number of the node above, in the view.
    key : str or None
        Parameter of the body; `None` where only the order matters.
    mapped : bool
        Whether the input is taken element by element.
    flattened : bool
        Whether it is unnested one level first.
    """

    node: int
    key: str | None
    mapped: bool
    flattened: bool = False


class NodeView(NamedTuple):
    """One node, as it is shown.

    Parameters
    ----------
    number : int
        Its number in the view; a node has a higher one than those it reads.
    name : str
        Name of its task.
    slug : str
        What tells it from other nodes of the run: ``"load-1"``.
    mapped : bool
        Whether it expands into children.
    edges : tuple of EdgeView
        In the order of the inputs; several may come from one node.
    helper : bool
        Whether the package made it: the list of an argument, a count of items.
    """

    number: int
    name: str
    slug: str
    mapped: bool
    edges: tuple[EdgeView, ...] = ()
    helper: bool = False


class Look(Protocol):
    """What a runner knows of its nodes at this moment; may be asked by any thread."""

    def nodes(self) -> Sequence[Node]:
        """Nodes so far; later ones are added at the end."""

    def plain(self) -> Sequence[int]:
        """Nodes without children that have ended, in the order of their ends."""

    def fan_outs(self) -> Sequence[int]:
        """Nodes whose number of children is known."""

    def children(self, index: int) -> Children | None:
        """Children of a node as far as they are known; `None` if it has none yet."""

    def segments(self, index: int) -> Sequence[Segment]:
        """What has ended of a node."""

    def state(self, index: int) -> State:
        """State of a node."""


class DriverLook:
    """What a driver knows.

    Parameters
    ----------
    driver : Driver
        Of a running or an ended run. It belongs to another thread, which only adds.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def nodes(self) -> Sequence[Node]:
        """Nodes so far."""
        return self._driver.plan.nodes

    def plain(self) -> Sequence[int]:
        """Nodes without children that have ended."""
        return self._driver.ended_plain()

    def fan_outs(self) -> Sequence[int]:
        """Nodes whose number of children is known."""
        return self._driver.fan_outs()

    def children(self, index: int) -> Children | None:
        """Children of a node as far as they are known."""
        return self._driver.children(index)

    def segments(self, index: int) -> Sequence[Segment]:
        """What has ended of a node."""
        return self._driver.segments(index)

    def state(self, index: int) -> State:
        """State of a node."""
        return self._driver.state(index)


class WholeLook:
    """What a runner knows that runs whole nodes, one after the other.

    Parameters
    ----------
    nodes : sequence of Node
        Its nodes; may grow.
    outcomes : mapping of int to sequence of Outcome
        What became of those that have ended; grows.
    """

    def __init__(
        self, nodes: Sequence[Node], outcomes: Mapping[int, Sequence[Outcome]]
    ) -> None:
        self._nodes = nodes
        self._outcomes = outcomes

    def nodes(self) -> Sequence[Node]:
        """Nodes so far."""
        return self._nodes

    def plain(self) -> Sequence[int]:
        """Nodes without children that have ended."""
        ended = list(self._outcomes)
        return [index for index in ended if not self._outcomes[index][0].fanout]

    def fan_outs(self) -> Sequence[int]:
        """Nodes whose number of children is known."""
        ended = list(self._outcomes)
        return [index for index in ended if self._outcomes[index][0].fanout]

    def children(self, index: int) -> Children | None:
        """Children of a node that has ended."""
        found = self._outcomes.get(index)
        if found is None or not found[0].fanout:
            return None
        return Children(found[0].length, self.segments(index))

    def segments(self, index: int) -> Sequence[Segment]:
        """What has ended of a node."""
        found = self._outcomes.get(index, ())
        return [outcome.result.segments[index] for outcome in found]

    def state(self, index: int) -> State:
        """State of a node."""
        children = self.children(index)
        if children is not None:
            return Mapped(states=children)
        found = self.segments(index)
        return found[0].state(0) if found else Pending()


class SegmentLook:
    """What is known from segments alone: of task runs called, or read from records.

    Parameters
    ----------
    children : mapping of int to Children, optional
        Children by node.
    plain : mapping of int to Segment, optional
        Other nodes that have ended.
    """

    def __init__(
        self,
        children: Mapping[int, Children] | None = None,
        plain: Mapping[int, Segment] | None = None,
    ) -> None:
        self._nodes: list[Node] = []
        self._children = dict(children or {})
        self._plain = dict(plain or {})

    @classmethod
    def of_states(cls, nodes: Sequence[Node], states: Sequence[State]) -> SegmentLook:
        """What the states of nodes tell, one per node: no begins."""
        look = cls()
        look._nodes = list(nodes)
        for node, state in zip(nodes, states, strict=True):
            if isinstance(state.states, Children):
                look._children[node.index] = state.states
                continue
            segment = Segment(0)
            segment.open(1)
            when = state.timestamp or 0.0
            shown = state.replace(data=NO_DATA) if state.is_successful() else state
            made = None if state.run is None else state.run.attempts
            segment.put(0, shown, when, when, made)
            look._plain[node.index] = segment
        return look

    def begin(self, task: Task, slug: str) -> int:
        """Add a node of a task that is called, and give its index."""
        index = len(self._nodes)
        self._nodes.append(Node(index, slug, task, task.identity, (), False, False))
        return index

    def end(self, index: int, segment: Segment) -> None:
        """Take in how a node ended."""
        self._plain[index] = segment

    def nodes(self) -> Sequence[Node]:
        """Nodes that were begun."""
        return self._nodes

    def plain(self) -> Sequence[int]:
        """Nodes without children that have ended."""
        return list(self._plain)

    def fan_outs(self) -> Sequence[int]:
        """Nodes with children."""
        return list(self._children)

    def children(self, index: int) -> Children | None:
        """Children of a node."""
        return self._children.get(index)

    def segments(self, index: int) -> Sequence[Segment]:
        """What has ended of a node."""
        if index in self._children:
            return self._children[index].segments
        return [self._plain[index]] if index in self._plain else []

    def state(self, index: int) -> State:
        """State of a node."""
        if index in self._children:
            return Mapped(states=self._children[index])
        return self._plain[index].state(0) if index in self._plain else Pending()


class RunView:
    """A read-only look at a flow run, which grows while the run goes on.

    Parameters
    ----------
    info : RunInfo
        What is known from the begin.
    nodes : sequence of NodeView
        Of a run that is known from records: its nodes.
    look : Look, optional
        What became of these, by their numbers.

    Notes
    -----
    Constants of a flow are no nodes here: they never run. `refresh` takes in nodes that
    were added, and only one thread may call it; all else may be asked by any thread.
    """

    def __init__(
        self, info: RunInfo, nodes: Iterable[NodeView] = (), look: Look | None = None
    ) -> None:
        self.info = info
        #: When the run ended, in seconds since the epoch; `None` while it runs.
        self.end: float | None = None
        #: Seconds between begin and end in which nobody worked at the run, as it was
        #: resumed later.
        self.seconds_between = 0.0
        #: Final state of the run, without those of its tasks.
        self.state: State | None = None
        #: Gives the lines that its tasks have logged, or the last of them.
        self.log_lines: Callable[[], Sequence[str]] = _no_lines
        #: The file of these lines, if there is one.
        self.log_file: Path | None = None
        self._nodes: list[NodeView] = list(nodes)
        self._looks: list[Look] = [] if look is None else [look]
        self._taken = [len(self._nodes)] if look is not None else []
        # Number in the view by number in the look; where each node is looked up.
        self._numbers: list[dict[int, int]] = []
        self._places: list[tuple[Look, int]] = []
        if look is not None:
            numbers = range(len(self._nodes))
            self._numbers.append({number: number for number in numbers})
            self._places = [(look, number) for number in numbers]

    def add_look(self, look: Look) -> None:
        """Take in another place where nodes of this run are."""
        self._numbers.append({})
        self._taken.append(0)
        self._looks.append(look)

    @property
    def has_look(self) -> bool:
        """Whether anybody has said where the nodes are."""
        return bool(self._looks)

    @property
    def nodes(self) -> Sequence[NodeView]:
        """Nodes so far, as of the last `refresh`; later ones come at the end."""
        return self._nodes

    def refresh(self) -> None:
        """Take in nodes that were added."""
        for number, look in enumerate(list(self._looks)):
            found = look.nodes()
            taken, count = self._taken[number], len(found)
            for position in range(taken, count):
                self._take(look, self._numbers[number], found[position])
            self._taken[number] = max(taken, count)

    def _take(self, look: Look, numbers: dict[int, int], node: Node) -> None:
        if node.constant:
            return
        edges = tuple(
            EdgeView(numbers[item.node], item.key, item.mapped, item.flattened)
            for item in node.inputs
            if item.node is not None and item.node in numbers
        )
        number = len(self._places)
        numbers[node.index] = number
        self._places.append((look, node.index))
        task = node.task
        helper = task.auto_generated or getattr(task.fn, "__module__", "") in _OWN
        self._nodes.append(
            NodeView(number, task.name, node.slug, node.mapped, edges, helper)
        )

    def children(self, index: int) -> Children | None:
        """Children of a node as far as they are known; `None` if it has none yet."""
        look, number = self._places[index]
        return look.children(number)

    def segments(self, index: int) -> Sequence[Segment]:
        """What has ended of a node, in index order; may grow while it is read."""
        look, number = self._places[index]
        return look.segments(number)

    def state_of(self, index: int) -> State:
        """State of a node at this moment."""
        look, number = self._places[index]
        return look.state(number)

    def plain(self, counts: list[int]) -> list[int]:
        """Nodes without children that have ended since the last time.

        Parameters
        ----------
        counts : list of int
            What the last call left there; empty at the first one.
        """
        fresh = []
        for number in range(len(self._looks)):
            if number == len(counts):
                counts.append(0)
            found = self._looks[number].plain()
            known = self._numbers[number]
            # One that is not known yet was added since the last refresh: next time.
            while counts[number] < len(found) and found[counts[number]] in known:
                fresh.append(known[found[counts[number]]])
                counts[number] += 1
        return fresh

    def fan_outs(self) -> list[int]:
        """Nodes whose number of children is known."""
        return [
            known[index]
            for look, known in zip(self._looks, self._numbers, strict=False)
            for index in look.fan_outs()
            if index in known
        ]

    def _fields(self) -> dict[str, Any]:
        """What is pickled."""
        return {**self.__dict__, "log_lines": _Lines(tuple(self.log_lines()))}

    def __reduce__(self) -> tuple[Any, ...]:
        # By cloudpickle: exceptions and parameters may be of classes of a script.
        fields = self._fields()
        try:
            blob = cloudpickle.dumps(fields)
        except Exception:
            # Parameters are there to be shown; some of them cannot travel.
            told = {name: repr(value) for name, value in self.info.parameters.items()}
            fields = {**fields, "info": replace(self.info, parameters=told)}
            blob = cloudpickle.dumps(fields)
        return _restored, (type(self), blob)

    def settle(self, state: State, end: float) -> None:
        """Keep what became of the nodes, and let go of the runner and of all values."""
        self.refresh()
        children: dict[int, Children] = {}
        plain: dict[int, Segment] = {}
        for number, (look, index) in enumerate(self._places):
            found = look.children(index)
            bare = [segment.without_values() for segment in look.segments(index)]
            if found is not None:
                children[number] = Children(len(found), bare)
            elif bare:
                plain[number] = bare[0]
        settled = SegmentLook(children, plain)
        numbers = range(len(self._nodes))
        self._places = [(settled, number) for number in numbers]
        self._looks, self._taken = [settled], [len(self._nodes)]
        self._numbers = [{number: number for number in numbers}]
        self.state, self.end = state.replace(states=None), end


class _Lines(NamedTuple):
    """Lines that stay as they are."""

    lines: tuple[str, ...]

    def __call__(self) -> Sequence[str]:
        return self.lines


def _no_lines() -> Sequence[str]:
    return ()


def _restored(kind: type[RunView], blob: bytes) -> RunView:
    view = object.__new__(kind)
    view.__dict__.update(pickle.loads(blob))
    return view
