"""The task graph: tasks, the edges between them and their constants, as plain tables.

What may be added, and what is said of what may not, is the matter of `flow_graph`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from prefect_dask_core.edges import Edge, sort_topologically
from prefect_dask_core.tasks import Task


class TaskGraph:
    """Tasks with their slugs, the edges between them, and the constants they are given.

    Dictionaries keep the order in which things were added, as sets do not. Each change
    takes constant time.

    Attributes
    ----------
    slugs : dict of Task to str
        Each task with its slug; its keys are the tasks.
    edges : dict of Edge to None
        The edges.
    edges_to, edges_from : dict of Task to dict of Edge to None
        Edges that end and that begin at each task.
    constants : dict of Task to dict of str to value
        Inputs that are plain values, of the tasks that have any.
    bound : dict of Task to set of str
        Inputs of each task that are bound, by an edge or a constant.

    Examples
    --------
    >>> graph = TaskGraph()
    >>> first, second = Task("first"), Task("second")
    >>> graph.add(first, graph.free_slug("first"))
    >>> graph.add(second, graph.free_slug("second"))
    >>> graph.link(Edge(first, second))
    >>> graph.order(), graph.slugs[second]
    ((<Task: first>, <Task: second>), 'second-1')
    """

    def __init__(self) -> None:
        self.slugs: dict[Task, str] = {}
        self.edges: dict[Edge, None] = {}
        self.edges_to: dict[Task, dict[Edge, None]] = {}
        self.edges_from: dict[Task, dict[Edge, None]] = {}
        self.constants: dict[Task, dict[str, Any]] = {}
        self.bound: dict[Task, set[str]] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}
        #: The order of the tasks, until something changes.
        self._order: tuple[Task, ...] | None = None

    def __contains__(self, task: object) -> bool:
        return task in self.slugs

    def has_slug(self, slug: str) -> bool:
        """Whether a task of the graph has a slug."""
        return slug in self._taken

    def free_slug(self, prefix: str) -> str:
        """The first free one of ``prefix-1``, ``prefix-2``, ..."""
        number = self._counts.get(prefix, 0) + 1
        while f"{prefix}-{number}" in self._taken:
            number += 1
        self._counts[prefix] = number
        return f"{prefix}-{number}"

    def add(self, task: Task, slug: str) -> None:
        """Add a task."""
        self.slugs[task] = slug
        self._taken.add(slug)
        self.edges_to[task] = {}
        self.edges_from[task] = {}
        self.bound[task] = set()
        self._order = None

    def remove(self, task: Task) -> None:
        """Take a task away, with its edges and constants."""
        for edge in (*self.edges_to[task], *self.edges_from[task]):
            self._unlink(edge)
        self._taken.discard(self.slugs[task])
        self.constants.pop(task, None)
        for table in (self.edges_to, self.edges_from, self.bound, self.slugs):
            del table[task]

    def link(self, edge: Edge) -> None:
        """Add an edge between two tasks of the graph."""
        self.edges[edge] = None
        self.edges_from[edge.upstream_task][edge] = None
        self.edges_to[edge.downstream_task][edge] = None
        if edge.key is not None:
            self.bound[edge.downstream_task].add(edge.key)
        self._order = None

    def _unlink(self, edge: Edge) -> None:
        del self.edges[edge]
        del self.edges_from[edge.upstream_task][edge]
        del self.edges_to[edge.downstream_task][edge]
        if edge.key is not None:
            self.bound[edge.downstream_task].discard(edge.key)
        self._order = None

    def bind(self, task: Task, key: str, value: Any) -> None:
        """Give an input of a task a constant."""
        self.constants.setdefault(task, {})[key] = value
        self.bound[task].add(key)

    def order(self) -> tuple[Task, ...]:
        """Tasks in an order that respects every edge.

        Raises
        ------
        CycleError
            If the edges form a cycle.
        """
        if self._order is None:
            self._order = sort_topologically(
                self.slugs,
                ((e.upstream_task, e.downstream_task) for e in self.edges),
                label=self.slugs.__getitem__,
            )
        return self._order

    def order_from(self, roots: Iterable[Task]) -> tuple[Task, ...]:
        """Some tasks and all that come after them, in order."""
        wanted = set()
        left = list(roots)
        while left:
            task = left.pop()
            if task not in wanted:
                wanted.add(task)
                left.extend(edge.downstream_task for edge in self.edges_from[task])
        return tuple(task for task in self.order() if task in wanted)

    def roots(self) -> AbstractSet[Task]:
        """Tasks that come after no other."""
        return ordered_set(t for t, edges in self.edges_to.items() if not edges)

    def ends(self) -> AbstractSet[Task]:
        """Tasks that come before no other."""
        return ordered_set(t for t, edges in self.edges_from.items() if not edges)

    def ends_of_work(self) -> AbstractSet[Task]:
        """The same as if nothing had to be set up or cleaned up."""
        return ordered_set(
            task
            for task, edges in self.edges_from.items()
            if task.resource_role not in ("init", "cleanup")
            and all(e.downstream_task.resource_role == "cleanup" for e in edges)
        )

    def copy(self) -> TaskGraph:
        """Tables of their own over the same tasks, edges and values."""
        twin = TaskGraph()
        twin.slugs = dict(self.slugs)
        twin.edges = dict(self.edges)
        twin.edges_to = {task: dict(edges) for task, edges in self.edges_to.items()}
        twin.edges_from = {task: dict(edges) for task, edges in self.edges_from.items()}
        twin.constants = {task: dict(given) for task, given in self.constants.items()}
        twin.bound = {task: set(keys) for task, keys in self.bound.items()}
        twin._taken = set(self._taken)
        twin._counts = dict(self._counts)
        twin._order = self._order
        return twin


def ordered_set(tasks: Iterable[Task]) -> AbstractSet[Task]:
    """A set that remembers the order in which it was made."""
    return dict.fromkeys(tasks).keys()
