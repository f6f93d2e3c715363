"""The graph of a flow: tasks and the edges between them, built in a ``with`` block.

Running is not known here; see `flows`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, KeysView, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, TypeVar

from prefect_dask_core.annotations import AllowFailure, Quote
from prefect_dask_core.arguments import (
    collection_task,
    has_task,
    replayable,
    require_mappable,
    unwrap,
)
from prefect_dask_core.context import ContextBlock, OpenBlock, context
from prefect_dask_core.edges import Annotation, Edge
from prefect_dask_core.errors import (
    DuplicateSlugError,
    GraphError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
)
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.task_graph import TaskGraph, ordered_set
from prefect_dask_core.tasks import Constant, Task

GraphT = TypeVar("GraphT", bound="FlowGraph")


class FlowGraph:
    """Tasks and the edges between them.

    Parameters
    ----------
    name : str
        Name of the flow.
    tasks : iterable of Task, optional
        Tasks to begin with.
    edges : iterable of Edge, optional
        Edges to begin with.
    reference_tasks : iterable of Task, optional
        Tasks that decide the final state; those at the end of the flow unless given.
    validate : bool, optional
        Whether to look for cycles at once.

    Notes
    -----
    Adding a task or an edge takes constant time. What is wrong with one is said when
    it is added; a cycle when the outermost ``with`` block ends (decisions D5, D6).

    Examples
    --------
    >>> from prefect_dask_core.tasks import task
    >>> @task
    ... def extract():
    ...     return [1, 2]
    >>> @task
    ... def total(numbers, start=0):
    ...     return sum(numbers, start)
    >>> with FlowGraph("sums") as flow:
    ...     result = total(extract(), start=10)
    >>> flow.sorted_tasks()
    (<Task: extract>, <Task: total>)
    >>> flow.constants[result]
    {'start': 10}
    """

    def __init__(
        self,
        name: str,
        *,
        tasks: Iterable[Task] | None = None,
        edges: Iterable[Edge] | None = None,
        reference_tasks: Iterable[Task] | None = None,
        validate: bool | None = None,
    ) -> None:
        if not name:
            raise OptionValueError('a flow needs a name; write Flow("etl").')
        if not isinstance(name, str):
            raise OptionTypeError(f"the name of a flow is a string, not {name!r}.")
        self.name = name
        self._graph = TaskGraph()
        self._reference_tasks: dict[Task, None] = {}
        self._blocks: list[ContextBlock] = []
        for task in tasks or ():
            self.add_task(task)
        for edge in edges or ():
            self.add_edge(
                edge.upstream_task,
                edge.downstream_task,
                key=edge.key,
                mapped=edge.mapped,
                flattened=edge.flattened,
            )
        if reference_tasks is not None:
            self.set_reference_tasks(reference_tasks)
        if validate:
            self.validate()

    # -- block ------------------------------------------------------------------

    def __enter__(self: GraphT) -> GraphT:
        # Of each block around, what was made in it: an inner flow may use it.
        unused = (*context.get("_unused_tasks", ()), {})
        block = context(flow=self, _unused_tasks=unused)
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        unused = list(context._unused_tasks[-1].values())
        self._blocks.pop().__exit__()
        if kind is not None:
            return  # what was built is incomplete, and the exception says more
        if unused:
            names = ", ".join(repr(task.name) for task in unused)
            warnings.warn(
                f"tasks were made inside the block of flow {self.name!r} and never "
                f"added to it: {names}; call them, or make them outside of the block.",
                stacklevel=2,
            )
        if not self._blocks:
            self.sorted_tasks()

    @property
    def is_open(self) -> bool:
        """Whether the flow is being built in a ``with`` block."""
        return bool(self._blocks)

    # -- building ---------------------------------------------------------------

    def add_task(self, task: Task) -> Task:
        """Add a task and return it; nothing happens if the flow has it.

        Raises
        ------
        TypeError
            If it is not a task.
        DuplicateSlugError
            If another task has the slug that this one asks for; also a `ValueError`.
        """
        if task.__class__ is not Task and not isinstance(task, Task):
            raise OptionTypeError(
                f"flow {self.name!r} was given {task!r} as a task; decorate a function "
                "with @task, or wrap it as Task(function)."
            )
        if task in self._graph:
            return task
        block: OpenBlock | None = context.get("task_block")
        if block is not None and not isinstance(task, Parameter | Constant):
            block.add_task(task, self)
        self._graph.add(task, self._slug_for(task))
        for made in context.get("_unused_tasks", ()):
            made.pop(id(task), None)
        return task

    def _slug_for(self, task: Task) -> str:
        """The slug a task asks for, or name, tags and a number joined by dashes."""
        if task.slug is not None:
            if self._graph.has_slug(task.slug):
                kind = "parameter" if isinstance(task, Parameter) else "task"
                raise DuplicateSlugError(
                    f"flow {self.name!r} has a {kind} with the slug {task.slug!r} "
                    f"already; give {task!r} another one."
                )
            return task.slug
        return self._graph.free_slug("-".join([task.name, *sorted(task.tags)]))

    def add_edge(
        self,
        upstream_task: Any,
        downstream_task: Any,
        key: str | None = None,
        mapped: bool = False,
        flattened: bool = False,
        validate: bool | None = None,
    ) -> Edge:
        """Add an edge; its ends are made tasks and added where needed.

        Parameters
        ----------
        upstream_task, downstream_task : Task, annotation or value
            The ends. The flags of an annotation win.
        key : str, optional
            Input of the downstream task that gets the upstream value.
        mapped, flattened : bool
            Flags of the edge, see `Edge`.
        validate : bool, optional
            Whether to look for cycles at once.

        Returns
        -------
        Edge
            The edge. A constant given to an input is kept in `constants` instead; its
            edge is not part of the flow.
        """
        downstream = self._as_task(unwrap(downstream_task, mapped=False).value)
        given = unwrap(upstream_task, mapped)
        flat = flattened or given.flattened
        edge = self._connect(
            Annotation(given.value, given.mapped, flat), downstream, key
        )
        if validate:
            self.validate()
        if edge is None:
            return Edge(Constant(given.value), downstream, key)
        return edge

    def _connect(
        self, given: Annotation, downstream: Task, key: str | None
    ) -> Edge | None:
        """Add one edge, or a constant, which has none."""
        self._check_input(downstream, key)
        value = given.value
        if value is downstream:
            raise GraphError(
                f"task {downstream.name!r} cannot come before itself in flow "
                f"{self.name!r}."
            )
        if isinstance(value, Task):
            upstream = value
        else:
            if given.mapped:
                value = replayable(value, given.flattened)
            where = "comes before" if key is None else f"was given as {key!r} to"
            refuse_lazy(value, f"{where} task {downstream.name!r}")
            plain = key is not None and not given.mapped and not given.flattened
            if has_task(value):
                upstream = self.collect(value)
            elif plain:
                self._bind_constant(downstream, str(key), value)
                return None
            else:
                upstream = Constant(value)
        edge = Edge(upstream, downstream, key, bool(given.mapped), given.flattened)
        self._link(edge)
        return edge

    def _check_input(self, task: Task, key: str | None) -> None:
        if isinstance(task, Parameter):
            raise GraphError(
                f"the parameter {task.name!r} cannot come after another task; its "
                "value is given when the flow runs."
            )
        if key is None:
            return
        if not str(key).isidentifier():
            raise GraphError(
                f"the edge to task {task.name!r} has the key {key!r}, but a key is the "
                "name of a parameter."
            )
        if not task.body_signature.accepts(key):
            known = ", ".join(sorted(task.body_signature.names)) or "none"
            raise ParameterBindError(
                f"task {task.name!r} has no parameter {key!r}; its parameters: {known}."
            )
        if key in self._graph.bound.get(task, ()):
            raise GraphError(
                f"the parameter {key!r} of task {task.name!r} was bound before in flow "
                f"{self.name!r}; call the task to bind a copy."
            )

    def _bind_constant(self, task: Task, key: str, value: Any) -> None:
        self.add_task(task)
        self._graph.bind(task, key, value)

    def _link(self, edge: Edge) -> None:
        self.add_task(edge.upstream_task)
        self.add_task(edge.downstream_task)
        self._graph.link(edge)

    def _as_task(self, value: Any) -> Task:
        if isinstance(value, Task):
            return value
        return self.collect(value) if has_task(value) else Constant(value)

    def collect(self, value: Any) -> Task:
        """Add a task that collects the values of a collection with tasks inside."""
        collector, inputs = collection_task(value)
        self.set_dependencies(collector, keyword_tasks=inputs)
        return collector

    def chain(self, *tasks: Any, validate: bool | None = None) -> list[Edge]:
        """Add plain edges from each task to the next.

        Examples
        --------
        >>> flow = FlowGraph("steps")
        >>> flow.chain(Task("first"), Task("second"), Task("third"))
        [<Edge first to second>, <Edge second to third>]
        """
        edges = [self.add_edge(tasks[i], tasks[i + 1]) for i in range(len(tasks) - 1)]
        if validate:
            self.validate()
        return edges

    def set_dependencies(
        self,
        task: Any,
        upstream_tasks: Iterable[Any] | None = None,
        downstream_tasks: Iterable[Any] | None = None,
        keyword_tasks: Mapping[str, Any] | None = None,
        mapped: bool = False,
        validate: bool | None = None,
    ) -> None:
        """Add a task with its edges.

        Parameters
        ----------
        task : Task or value
            The task; added even if nothing else is given.
        upstream_tasks, downstream_tasks : iterable of Task, optional
            Tasks that come before and after it.
        keyword_tasks : mapping of str to Task or value, optional
            Its inputs.
        mapped : bool
            Whether the edges to the task are mapped, but for annotated ones.
        validate : bool, optional
            Whether to look for cycles at once.

        Raises
        ------
        MappingMissingIterable
            If it is mapped, and nothing that it is given can be iterated over.
        """
        task = self._as_task(task)
        inputs = {key: unwrap(v, mapped) for key, v in (keyword_tasks or {}).items()}
        above = [unwrap(upstream, mapped) for upstream in upstream_tasks or ()]
        _refuse_annotations(task, [*inputs.values(), *above])
        if mapped:
            numbered = {f"upstream task {i}": item for i, item in enumerate(above)}
            require_mappable(task.name, {**inputs, **numbered})
        is_new = task not in self._graph
        self.add_task(task)
        try:
            for key, given in inputs.items():
                self._connect(given, task, key)
            for given in above:
                self._connect(given, task, None)
            for downstream in downstream_tasks or ():
                self.add_edge(task, downstream)
        except Exception:
            if is_new:  # a half-bound task would run
                self._graph.remove(task)
            raise
        if validate:
            self.validate()

    def update(
        self,
        flow: FlowGraph,
        merge_parameters: bool = False,
        validate: bool | None = None,
        merge_reference_tasks: bool = False,
    ) -> None:
        """Add the tasks, edges and constants of another flow.

        Parameters
        ----------
        flow : Flow
            The other flow; it stays as it is.
        merge_parameters : bool
            Whether a parameter of the other flow takes the place of one of the same
            name here. Otherwise two of one name are a `DuplicateSlugError`.
        validate : bool, optional
            Whether to look for cycles at once; always, if parameters were merged.
        merge_reference_tasks : bool
            Whether the reference tasks of both flows decide the final state.
        """
        references = [*self.reference_tasks(), *flow.reference_tasks()]
        if merge_parameters:
            own = {parameter.name: parameter for parameter in self.parameters()}
            for parameter in sorted(flow.parameters(), key=lambda found: found.name):
                if parameter.name in own and parameter not in self:
                    self.replace(own[parameter.name], parameter, validate=False)
                    references = [
                        parameter if task is own[parameter.name] else task
                        for task in references
                    ]
        for task in flow.tasks:
            self.add_task(task)
        for edge in flow.edges:
            if edge not in self._graph.edges:
                self._check_input(edge.downstream_task, edge.key)
                self._link(edge)
        for task, constants in flow.constants.items():
            own_constants = self._graph.constants.get(task, {})
            for key, value in constants.items():
                if key not in own_constants:
                    self._check_input(task, key)
                    self._bind_constant(task, key, value)
        if merge_reference_tasks:
            self.set_reference_tasks(references)
        if validate or merge_parameters:
            self.validate()

    def replace(self, old: Task, new: Any, validate: bool = True) -> None:
        """Put a task in the place of another, with its edges and constants.

        Raises
        ------
        GraphError
            If the flow does not have the old task.
        ParameterBindError
            If the new task lacks an input that the old one had bound.
        """
        self._require(old)
        new = self._as_task(new)
        if new is old:
            return
        graph = self._graph
        constants = graph.constants.get(old, {})
        edges = [*graph.edges_to[old], *graph.edges_from[old]]
        for key in (*constants, *(edge.key for edge in graph.edges_to[old])):
            self._check_input(new, key)
        is_reference = old in self._reference_tasks
        graph.remove(old)
        self.add_task(new)
        for edge in edges:
            ends = (edge.upstream_task, edge.downstream_task)
            upstream, downstream = (new if end is old else end for end in ends)
            self._link(
                Edge(upstream, downstream, edge.key, edge.mapped, edge.flattened)
            )
        for key, value in constants.items():
            self._bind_constant(new, key, value)
        if is_reference:
            del self._reference_tasks[old]
            self._reference_tasks[new] = None
        if validate:
            self.validate()

    def copy(self: GraphT) -> GraphT:
        """Flow of its own over the same task objects."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._graph = self._graph.copy()
        twin._reference_tasks = dict(self._reference_tasks)
        twin._blocks = []
        return twin

    def __copy__(self: GraphT) -> GraphT:
        return self.copy()

    # -- questions --------------------------------------------------------------

    @property
    def tasks(self) -> KeysView[Task]:
        """The tasks: a set that remembers the order in which they were added."""
        return self._graph.slugs.keys()

    @property
    def edges(self) -> KeysView[Edge]:
        """The edges: a set that remembers the order in which they were added."""
        return self._graph.edges.keys()

    @property
    def slugs(self) -> Mapping[Task, str]:
        """Slug of each task."""
        return MappingProxyType(self._graph.slugs)

    @property
    def constants(self) -> Mapping[Task, dict[str, Any]]:
        """Inputs that are plain values, per task that has any."""
        return MappingProxyType(self._graph.constants)

    def get_tasks(
        self,
        name: str | None = None,
        slug: str | None = None,
        tags: Iterable[str] | None = None,
        task_type: type[Task] | None = None,
    ) -> list[Task]:
        """Tasks that meet all given criteria.

        Parameters
        ----------
        name, slug : str, optional
            Name, slug in this flow.
        tags : iterable of str, optional
            Tags that the task has, perhaps among others.
        task_type : type, optional
            Class of the task.
        """
        wanted = frozenset(tags or ())
        return [
            task
            for task, own_slug in self._graph.slugs.items()
            if (name is None or task.name == name)
            and (slug is None or own_slug == slug)
            and wanted <= task.tags
            and (task_type is None or isinstance(task, task_type))
        ]

    def parameters(self) -> set[Parameter]:
        """The parameters, which are tasks like others."""
        return {task for task in self._graph.slugs if isinstance(task, Parameter)}

    def root_tasks(self) -> AbstractSet[Task]:
        """Tasks that come after no other."""
        return self._graph.roots()

    def terminal_tasks(self) -> AbstractSet[Task]:
        """Tasks that come before no other."""
        return self._graph.ends()

    def reference_tasks(self) -> AbstractSet[Task]:
        """Tasks that decide the final state of a run.

        Unless set, those that come before no other; the tasks that clean up a
        resource do not count, neither as these nor as what comes after.
        """
        if self._reference_tasks:
            return self._reference_tasks.keys()
        # Cleaning up says nothing about how the work went.
        return self._graph.ends_of_work()

    def set_reference_tasks(self, tasks: Iterable[Task]) -> None:
        """Say which tasks decide the final state; none: those at the end."""
        chosen = dict.fromkeys(tasks)
        for task in chosen:
            self._require(task)
        self._reference_tasks = chosen

    def edges_to(self, task: Task) -> AbstractSet[Edge]:
        """Edges that end at a task."""
        self._require(task)
        return self._graph.edges_to[task].keys()

    def edges_from(self, task: Task) -> AbstractSet[Edge]:
        """Edges that begin at a task."""
        self._require(task)
        return self._graph.edges_from[task].keys()

    def upstream_tasks(self, task: Task) -> AbstractSet[Task]:
        """Tasks just before a task."""
        return ordered_set(edge.upstream_task for edge in self.edges_to(task))

    def downstream_tasks(self, task: Task) -> AbstractSet[Task]:
        """Tasks just after a task."""
        return ordered_set(edge.downstream_task for edge in self.edges_from(task))

    def all_upstream_edges(self) -> dict[Task, AbstractSet[Edge]]:
        """Edges that end at each task."""
        return {task: edges.keys() for task, edges in self._graph.edges_to.items()}

    def all_downstream_edges(self) -> dict[Task, AbstractSet[Edge]]:
        """Edges that begin at each task."""
        return {task: edges.keys() for task, edges in self._graph.edges_from.items()}

    def has_edges(self, task: Task) -> bool:
        """Whether any edge of the flow begins or ends at a task."""
        return bool(self._graph.edges_to.get(task) or self._graph.edges_from.get(task))

    def sorted_tasks(
        self, root_tasks: Iterable[Task] | None = None
    ) -> tuple[Task, ...]:
        """Tasks in an order that respects every edge.

        Parameters
        ----------
        root_tasks : iterable of Task, optional
            Only these and what comes after them.

        Raises
        ------
        CycleError
            If the edges form a cycle.
        """
        if root_tasks is None:
            return self._graph.order()
        roots = list(root_tasks)
        for task in roots:
            self._require(task)
        return self._graph.order_from(roots)

    def validate(self) -> None:
        """Raise if the edges form a cycle, or a reference task is not in the flow."""
        for task in self._reference_tasks:
            self._require(task)
        self.sorted_tasks()

    def _require(self, task: Any) -> None:
        if not isinstance(task, Task) or task not in self._graph:
            raise GraphError(
                f"{task!r} is not a task of flow {self.name!r}; a call inside the "
                "flow's block returns the task that was added, which is a copy."
            )

    # -- values -----------------------------------------------------------------

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and task in self._graph

    def __iter__(self) -> Iterator[Task]:
        return iter(self.sorted_tasks())

    def __len__(self) -> int:
        return len(self._graph.slugs)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, FlowGraph)
        return (
            self.name == other.name
            and self.tasks == other.tasks
            and self.edges == other.edges
            and self.reference_tasks() == other.reference_tasks()
        )

    def __repr__(self) -> str:
        return f"<Flow: {self.name}>"

    def __getstate__(self) -> dict[str, Any]:
        if self.is_open:
            raise TypeError(
                f"flow {self.name!r} cannot be pickled inside its own block; do it "
                "after the block."
            )
        return self.__dict__


def _refuse_annotations(task: Task, given: Iterable[Annotation]) -> None:
    """Refuse what only means something where runs are submitted."""
    for item in given:
        if isinstance(item.value, AllowFailure | Quote):
            kind = "allow_failure" if isinstance(item.value, AllowFailure) else "quote"
            raise GraphError(
                f"task {task.name!r} was given {kind}(...) inside `with Flow(...)`, "
                "where it has no meaning; to run after a failure give the task "
                "trigger=all_finished, and constants are never looked into there."
            )
