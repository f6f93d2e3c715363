"""Plan: tasks and edges, frozen into numbered nodes in an order that can be run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from prefect_dask_core.edges import Edge
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.results.result import Result
from prefect_dask_core.tasks import Constant, Task


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node.

    Parameters
    ----------
    key : str or None
        Parameter of the body; `None` where only the order matters.
    node : int or None
        The node above; `None` for a constant.
    value : object
        The constant.
    mapped : bool
        Whether the input is taken element by element.
    flattened : bool
        Whether it is unnested one level first.
    edge : Edge or None
        The edge it comes from.
    """

    key: str | None
    node: int | None
    value: Any
    mapped: bool
    flattened: bool
    edge: Edge | None


@dataclass(frozen=True, slots=True)
class Node:
    """One task in one flow run.

    Parameters
    ----------
    index : int
        Its number; a node's upstream has lower numbers.
    slug : str
        Its slug in the flow.
    task : Task
        Its definition, the very object of the flow, which people ask for.
    identity : str
        What tells the task from all others, wherever it has travelled.
    inputs : tuple of Input
        In the order in which they were declared.
    mapped : bool
        Whether it expands into children.
    constant : bool
        Whether it is a constant: it never runs.
    variables : mapping of str to object
        Context variables of its runs, over those of the flow run.
    tolerated : frozenset of int
        Nodes above that may end in any way; an unsuccessful one gives its exception.
    annotations : mapping of str to object
        Dask annotations of its blocks.
    """

    index: int
    slug: str
    task: Task
    identity: str
    inputs: tuple[Input, ...]
    mapped: bool
    constant: bool
    variables: Mapping[str, Any] = field(default_factory=dict)
    tolerated: frozenset[int] = frozenset()
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name


class GrowingPlan:
    """A plan whose nodes come while it runs, as those of a function flow do.

    Parameters
    ----------
    flow_name : str
        Name of the flow.

    Notes
    -----
    The attributes are those of a `Plan`. All nodes are added after those they read.
    """

    def __init__(self, flow_name: str) -> None:
        self.flow_name = flow_name
        self.nodes: list[Node] = []
        self.dependents: list[list[int]] = []
        self.upstream: list[tuple[int, ...]] = []
        self.measured: set[int] = set()
        self.flattened: set[int] = set()
        self.reference: frozenset[int] = frozenset()

    def add(self, node: Node) -> None:
        """Add a node; its index is the number of nodes there were.

        Raises
        ------
        ValueError
            If the index is another, or an input is of a later node.
        """
        if node.index != len(self.nodes):
            raise ValueError(f"node {node.index} was added as number {len(self.nodes)}")
        above: list[int] = []
        for item in node.inputs:
            if item.node is None:
                continue
            if item.node >= node.index:
                raise ValueError(f"node {node.index} reads {item.node}, a later one")
            if item.node not in above:
                above.append(item.node)
                self.dependents[item.node].append(node.index)
            if item.mapped:
                self.measured.add(item.node)
                if item.flattened:
                    self.flattened.add(item.node)
        self.nodes.append(node)
        self.dependents.append([])
        self.upstream.append(tuple(above))


@dataclass(frozen=True, slots=True)
class Plan:
    """A flow as numbered nodes.

    Parameters
    ----------
    flow_name : str
        Name of the flow.
    nodes : tuple of Node
        In topological order.
    dependents : tuple of tuple of int
        Per node, the nodes that read it, each once, ascending.
    upstream : tuple of tuple of int
        Per node, the nodes it reads, each once; constants left out.
    measured : frozenset of int
        Nodes that others map over.
    flattened : frozenset of int
        Nodes whose value, or whose children's values, others map over flattened.
    reference : frozenset of int
        Nodes that decide the state of the flow.
    """

    flow_name: str
    nodes: tuple[Node, ...]
    dependents: tuple[tuple[int, ...], ...]
    upstream: tuple[tuple[int, ...], ...]
    measured: frozenset[int]
    flattened: frozenset[int]
    reference: frozenset[int]

    @property
    def terminal(self) -> frozenset[int]:
        """Nodes that no other node reads."""
        return frozenset(i for i, found in enumerate(self.dependents) if not found)


def plan_flow(
    name: str,
    ordered: Sequence[Task],
    edges_to: Mapping[Task, Iterable[Edge]],
    constants: Mapping[Task, Mapping[str, Any]],
    slugs: Mapping[Task, str],
    reference: Iterable[Task],
) -> Plan:
    """Freeze a flow.

    Parameters
    ----------
    name : str
        Name of the flow.
    ordered : sequence of Task
        In topological order.
    edges_to : mapping
        Per task, the edges that end at it.
    constants : mapping
        Per task, its constant arguments by parameter.
    slugs : mapping
        Per task, its slug.
    reference : iterable of Task
        Tasks that decide the state of the flow.
    """
    number = {task: index for index, task in enumerate(ordered)}
    nodes = []
    dependents: list[list[int]] = [[] for _ in ordered]
    upstream = []
    measured = set()
    flat = set()
    for index, task in enumerate(ordered):
        inputs = [
            _input_of(edge, number[edge.upstream_task]) for edge in edges_to[task]
        ]
        inputs += [
            Input(key, None, value, mapped=False, flattened=False, edge=None)
            for key, value in constants.get(task, {}).items()
        ]
        above = []
        for item in inputs:
            if item.node is not None and item.node not in above:
                above.append(item.node)
                dependents[item.node].append(index)
            if item.mapped and item.node is not None:
                measured.add(item.node)
                if item.flattened:
                    flat.add(item.node)
        upstream.append(tuple(above))
        nodes.append(
            Node(
                index,
                slugs[task],
                task,
                task.identity,
                tuple(inputs),
                mapped=any(item.mapped for item in inputs),
                constant=isinstance(task, Constant),
                annotations=task.annotations,
            )
        )
    if any(node.annotations for node in nodes):
        nodes = _with_those_of_readers(nodes, dependents)
    return Plan(
        name,
        tuple(nodes),
        tuple(map(tuple, dependents)),
        tuple(upstream),
        frozenset(measured),
        frozenset(flat),
        frozenset(number[task] for task in reference),
    )


def _with_those_of_readers(
    nodes: Sequence[Node], dependents: Sequence[Sequence[int]]
) -> list[Node]:
    """Nodes of which collections made for an argument run where their reader does.

    Else the collection would not share a block with it.
    """
    found = list(nodes)
    for node in reversed(nodes):
        readers = dependents[node.index]
        if node.task.auto_generated and len(readers) == 1:
            theirs = found[readers[0]].annotations
            found[node.index] = replace(node, annotations=theirs)
    return found


#: Context variable of a flow run: where tasks without a result keep their values. It
#: is taken away before user code sees the variables.
FLOW_RESULT: Final = "_flow_result"


def options_within(task: Task, result: Result | None) -> TaskOptions:
    """Options of a task in a flow that has a result for tasks without their own.

    Parameters
    ----------
    task : Task
        The task. It stays as it is: handlers are given the task of the flow, which
        people compare with those they have.
    result : Result or None
        That of the flow.

    Raises
    ------
    OptionValueError
        If the task cannot have that result.
    """
    options = task.options
    if result is None or options.result is not None:
        return options
    # What is made anew each time, or was given, is not worth keeping.
    if task.auto_generated or task.is_resource or isinstance(task, Parameter):
        return options
    # Worked out once, not for each of many blocks.
    known = task.__dict__.get("_within")
    if known is None or known[0] is not options or known[1] is not result:
        known = options, result, replace(options, result=result)
        task.__dict__["_within"] = known
    found: TaskOptions = known[2]
    return found


def _input_of(edge: Edge, index: int) -> Input:
    """The input an edge stands for; a constant is folded into it."""
    task = edge.upstream_task
    if isinstance(task, Constant):
        value = flattened(task.value) if edge.flattened else task.value
        # Made a list here, once, and not again for each block that is cut from it.
        items = items_of(value) if edge.mapped else None
        value = value if items is None else items
        return Input(edge.key, None, value, edge.mapped, False, None)
    return Input(edge.key, index, None, edge.mapped, edge.flattened, edge)


def fuse(plan: Plan, group: Sequence[int]) -> list[tuple[int, ...]]:
    """Join plain nodes that nothing can run between into blocks.

    A node joins the block of the node above where that is its only reader and its
    only upstream (a chain gains nothing from being sent piece by piece); a collection
    made for an argument joins the block of the task whose argument it is.

    Parameters
    ----------
    plan : Plan
        The plan.
    group : sequence of int
        Plain nodes that are submitted together, ascending.

    Returns
    -------
    list of tuple of int
        Blocks in an order that respects every edge; nodes within each likewise.

    Notes
    -----
    Measured on a chain of 5,000 nodes on two worker processes: 6 ms per node piece by
    piece, which is Dask's round trip; a fused chain pays it once.
    """
    members: dict[int, list[int]] = {}
    home: dict[int, int] = {}
    inside = set(group)
    for index in group:
        above = [node for node in plan.upstream[index] if node in inside]
        joined: list[int] = []
        for node in above:
            only_reader = plan.dependents[node] == (index,)
            alike = plan.nodes[node].annotations == plan.nodes[index].annotations
            chain = plan.upstream[index] == (node,)
            if (
                only_reader
                and alike
                and (chain or plan.nodes[node].task.auto_generated)
            ):
                joined.extend(members.pop(home[node]))
        joined.append(index)
        members[index] = joined
        for node in joined:
            home[node] = index
    return [tuple(sorted(nodes)) for _, nodes in sorted(members.items())]


def definition_key(task: Task[..., Any]) -> Hashable:
    """What tasks of one definition have in common, as long as they live.

    A subclass may keep anything in its attributes, so only copies of a plain task are
    known to be the same definition.
    """
    if type(task).run is Task.run and (type(task) is Task or task.auto_generated):
        return id(task.fn), id(task.options)
    return id(task)


def items_of(value: Any) -> list[Any] | None:
    """Items a value is mapped over, `None` if it stands for itself.

    Notes
    -----
    Source of the rule: decision C4. Strings and bytes stand for themselves, a dict is
    mapped over its keys, sets and generators become lists.

    Examples
    --------
    >>> items_of({"a": 1, "b": 2}), items_of("ab"), items_of(3)
    (['a', 'b'], None, None)
    """
    if isinstance(value, list):
        return value
    if isinstance(value, str | bytes | bytearray | Task) or not hasattr(
        value, "__iter__"
    ):
        return None
    return list(value)


def flattened(value: Any) -> Any:
    """A collection of collections, unnested one level; other values unchanged.

    Examples
    --------
    >>> flattened([[1, 2], [3]]), flattened([1, 2]), flattened(5)
    ([1, 2, 3], [1, 2], 5)
    """
    items = items_of(value)
    parts = None if items is None else [items_of(item) for item in items]
    if parts is None or any(part is None for part in parts):
        return value
    return [item for part in parts for item in part or ()]
