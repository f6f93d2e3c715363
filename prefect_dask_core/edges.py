"""Edges between tasks, the annotations that shape them, and the order they imply."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect_dask_core.errors import CycleError, GraphError

Node = TypeVar("Node", bound=Hashable)


class Edge:
    """A dependency of one task on another.

    Parameters
    ----------
    upstream_task : Task
        The task that comes first.
    downstream_task : Task
        The task that waits for it.
    key : str, optional
        The input of the downstream task that gets the upstream value; without it the
        edge only says what comes first.
    mapped : bool
        Whether the downstream task runs once per item of the upstream value.
    flattened : bool
        Whether the upstream value is unnested by one level before use.

    Notes
    -----
    Two edges are equal if all five are; tasks are compared by identity.
    """

    __slots__ = ("downstream_task", "flattened", "key", "mapped", "upstream_task")

    upstream_task: Any
    downstream_task: Any
    key: str | None
    mapped: bool
    flattened: bool

    def __init__(
        self,
        upstream_task: Any,
        downstream_task: Any,
        key: str | None = None,
        mapped: bool = False,
        flattened: bool = False,
    ) -> None:
        put = object.__setattr__
        put(self, "upstream_task", upstream_task)
        put(self, "downstream_task", downstream_task)
        put(self, "key", key)
        put(self, "mapped", mapped)
        put(self, "flattened", flattened)

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise AttributeError(
            f"an edge cannot be changed, so {attribute!r} stays; add another edge."
        )

    def __delattr__(self, attribute: str) -> None:
        raise AttributeError(f"an edge cannot be changed; {attribute!r} stays.")

    @property
    def tasks(self) -> set[Any]:
        """Both tasks."""
        return {self.upstream_task, self.downstream_task}

    def serialize(self, slugs: Mapping[Any, str] | None = None) -> dict[str, Any]:
        """Describe the edge as plain data, its ends by their slugs.

        Parameters
        ----------
        slugs : mapping of Task to str, optional
            Slugs of the flow; without it a task that has none of its own is named.
        """
        ends = (self.upstream_task, self.downstream_task)
        if slugs is None:
            slugs = {task: getattr(task, "slug", None) or _name(task) for task in ends}
        return {
            "upstream_task": slugs[self.upstream_task],
            "downstream_task": slugs[self.downstream_task],
            "key": self.key,
            "mapped": self.mapped,
            "flattened": self.flattened,
        }

    def _identity(self) -> tuple[int, int, str | None, bool, bool]:
        return (
            id(self.upstream_task),
            id(self.downstream_task),
            self.key,
            self.mapped,
            self.flattened,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Edge):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[Any, ...]:
        return Edge, (
            self.upstream_task,
            self.downstream_task,
            self.key,
            self.mapped,
            self.flattened,
        )

    def __repr__(self) -> str:
        ends = f"{_name(self.upstream_task)} to {_name(self.downstream_task)}"
        flags = [f"key={self.key}"] if self.key is not None else []
        flags += [flag for flag in ("mapped", "flattened") if getattr(self, flag)]
        return f"<Edge {', '.join([ends, *flags])}>"


def _name(task: Any) -> str:
    return str(getattr(task, "name", task))


# -- annotations -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Annotation:
    """An argument together with how its edge differs from the others of the call.

    Parameters
    ----------
    value : object
        The argument.
    mapped : bool, optional
        Whether the edge is mapped; `None`: as the call is.
    flattened : bool
        Whether the value is unnested by one level.
    """

    value: Any
    mapped: bool | None = None
    flattened: bool = False


def _annotate(value: Any, **flags: Any) -> Annotation:
    if not isinstance(value, Annotation):
        return Annotation(value, **flags)
    merged = {"mapped": value.mapped, "flattened": value.flattened, **flags}
    return Annotation(value.value, **merged)


def unmapped(value: Any) -> Annotation:
    """Give the argument whole to every child of a mapped task.

    Examples
    --------
    >>> unmapped([1, 2])
    Annotation(value=[1, 2], mapped=False, flattened=False)
    >>> flatten(unmapped([[1], [2]]))
    Annotation(value=[[1], [2]], mapped=False, flattened=True)
    """
    return _annotate(value, mapped=False)


def mapped(value: Any) -> Annotation:
    """Map over this argument although the call is not mapped."""
    return _annotate(value, mapped=True)


def flatten(value: Any) -> Annotation:
    """Unnest an argument by one level before it is used.

    Mostly around what a mapped task gives: each child gives a list, and the next task
    is mapped over all their items, one list after the other.

    Parameters
    ----------
    value : object
        In a graph flow a task, mapped or not, or a collection. In a function flow what
        `map` or `submit` gave, a collection with futures inside, or any collection.

    Returns
    -------
    Annotation
        The argument, for `map`, `submit` or a call; `unmapped`, `mapped` and
        `allow_failure` may stand around it, or inside.

    Notes
    -----
    Lists, tuples, sets, dicts (their keys) and all else that can be iterated over
    are unnested; strings and bytes are not.

    The children of a mapped task are looked at one by one, and so are, in a function
    flow, the items of a collection with futures inside. An empty list gives no element.
    What cannot be iterated over stays one element. So does a child that failed, crashed
    or was not run: the trigger of the task below refuses that one element, and all
    others run; in `allow_failure` it gives the exception. A child that was skipped is
    one element, which is skipped as well. A value that raises when it is iterated over
    fails the run that gave it where that was still to be counted; else, where a
    function flow maps over it after its end, it stays one element.

    One value, of a plain task or a constant, is unnested if all its items are
    collections, and otherwise stays as it is. In a graph flow a list of tasks is one
    value, which is not there if one of them fails.

    Source of the rules: ``flatten`` of the graph generations.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, flow, task
    >>> @task
    ... def parts(n):
    ...     return list("abc"[:n])
    >>> @task
    ... def name(part):
    ...     return part.upper()

    In a function flow:

    >>> @flow(task_runner=SequentialTaskRunner())
    ... def names():
    ...     mapped = name.map(flatten(parts.map([2, 0, 1])))
    ...     return mapped, name.map(flatten([parts.submit(1), ["x", "y"]]))
    >>> names()
    (['A', 'B', 'A'], ['A', 'X', 'Y'])

    In a graph flow:

    >>> with Flow("names") as graph:
    ...     found = name.map(flatten(parts.map([2, 0, 1])))
    >>> graph.run(task_runner=SequentialTaskRunner())[found].result()
    ['A', 'B', 'A']
    """
    return _annotate(value, flattened=True)


# -- order -------------------------------------------------------------------------


def sort_topologically(
    nodes: Iterable[Node],
    edges: Iterable[tuple[Node, Node]],
    label: Callable[[Node], str] = str,
) -> tuple[Node, ...]:
    """Order in which every node comes after those it depends on.

    Parameters
    ----------
    nodes : iterable of hashable
        Nodes in the order in which they were added.
    edges : iterable of (upstream, downstream)
        Pairs of nodes; a pair may occur several times.
    label : callable (node) -> str
        Name of a node, for messages.

    Returns
    -------
    tuple of nodes
        If the given order respects all edges, that order. A node that was added
        before something it depends on is preceded by it, and else keeps its place.

    Raises
    ------
    CycleError
        If there is none, because the edges form a cycle.
    GraphError
        If an edge begins or ends at an unknown node.

    Notes
    -----
    Depth first, in time linear in the number of nodes and edges.

    Examples
    --------
    >>> sort_topologically("abc", [("c", "a")])
    ('c', 'a', 'b')
    >>> sort_topologically("abc", [("a", "b"), ("b", "c"), ("c", "b")])
    Traceback (most recent call last):
    prefect_dask_core.errors.CycleError: the edges form a cycle: b -> c -> b; remove \
one of them.
    """
    above: dict[Node, list[Node]] = {node: [] for node in nodes}
    for upstream, downstream in edges:
        for end in (upstream, downstream):
            if end not in above:
                raise GraphError(
                    f"an edge from {label(upstream)} to {label(downstream)} was given, "
                    f"but {label(end)} is not among the nodes; add it."
                )
        above[downstream].append(upstream)
    return _sorted(above, label)


def _sorted(
    above: Mapping[Node, list[Node]], label: Callable[[Node], str]
) -> tuple[Node, ...]:
    """Post-order of a depth-first walk upwards; iterative, as chains may be long."""
    done: dict[Node, None] = {}
    for start in above:
        if start in done:
            continue
        # Nodes being visited, in the order of the walk, each with what is left above.
        path = {start: iter(above[start])}
        stack = [start]
        while stack:
            node = stack[-1]
            for upstream in path[node]:
                if upstream in path:
                    raise _cycle(stack, upstream, label)
                if upstream not in done:
                    path[upstream] = iter(above[upstream])
                    stack.append(upstream)
                    break
            else:
                done[node] = None
                del path[node]
                stack.pop()
    return tuple(done)


def _cycle(
    stack: list[Node], closing: Node, label: Callable[[Node], str]
) -> CycleError:
    # The walk goes upwards, and people read downwards.
    around = [closing, *reversed(stack[stack.index(closing) :])]
    path = " -> ".join(label(node) for node in around)
    return CycleError(f"the edges form a cycle: {path}; remove one of them.")
