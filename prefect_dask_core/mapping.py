"""Mapping a function that calls several tasks, as one would map a single task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_dask_core.arguments import (
    has_task,
    is_mappable,
    replayable,
    require_mappable,
    unwrap,
)
from prefect_dask_core.context import context
from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import GraphError, OptionTypeError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.tasks import Constant, Task


def apply_map(
    func: Callable[..., Any], *args: Any, flow: FlowGraph | None = None, **kwargs: Any
) -> Any:
    """Call a function once, with each task that it calls mapped over the arguments.

    Parameters
    ----------
    func : callable
        Calls tasks on what it is given. It runs once, while the flow is built, with a
        task in the place of each argument; use `case` and `merge` for what depends on
        an item.
    *args, **kwargs
        Tasks, or collections of equal length, given item by item; what stands in
        `unmapped` is given whole, what stands in `flatten` unnested one level first.
    flow : Flow, optional
        The flow; the active one unless given. If given, `func` gets a ``flow=`` too,
        which it may pass on to its tasks.

    Returns
    -------
    object
        What `func` returns: the mapped tasks.

    Raises
    ------
    GraphError
        Without a flow; and if `func` maps a task itself, as a task cannot be mapped
        twice over.
    OptionTypeError
        If an argument is no task, annotation or collection.
    MappingMissingIterable
        If no argument can be mapped over.

    Notes
    -----
    A task of the function that comes after no other of them also waits for all
    arguments, so that all tasks have as many children. Tasks from outside that are no
    arguments, and parameters, are given whole. Source of the rules: ``apply_map`` of
    Prefect 1.x.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task, unmapped
    >>> @task
    ... def read(name):
    ...     return len(name)
    >>> @task
    ... def scale(length, factor):
    ...     return length * factor
    >>> def measure(name, factor):
    ...     return scale(read(name), factor)
    >>> with Flow("lengths") as flow:
    ...     lengths = apply_map(measure, ["a", "bcd"], unmapped(10))
    >>> flow.run(task_runner=SequentialTaskRunner())[lengths].result()
    [10, 30]
    """
    given = flow
    flow = flow or context.get("flow")
    if flow is None:
        raise GraphError(
            "apply_map() adds tasks to a flow, and there is none; call it inside "
            "`with Flow(...)`, or give flow=."
        )
    name = getattr(func, "__name__", type(func).__name__)
    labels = [f"argument {i}" for i in range(1, len(args) + 1)]
    inputs = {
        label: _checked(name, label, value)
        for label, value in [*zip(labels, args, strict=True), *kwargs.items()]
    }
    require_mappable(name, inputs)
    arguments = {label: _argument(item, flow) for label, item in inputs.items()}
    tasks = {label: argument.value for label, argument in arguments.items()}
    scratch = _Scratch(flow.name)
    # What is made in the function joins the blocks around when it is moved.
    with context(task_block=None), scratch:
        extra = {} if given is None else {"flow": scratch}
        returned = func(
            *(tasks[label] for label in labels),
            **{key: tasks[key] for key in kwargs},
            **extra,
        )
    _move(scratch, flow, list(arguments.values()))
    return returned


class _Scratch(FlowGraph):
    """A flow that holds the function's tasks until their edges are mapped."""

    def _connect(self, given: Annotation, downstream: Task, key: str | None) -> Any:
        if given.mapped:
            raise GraphError(
                f"task {downstream.name!r} is mapped inside a function that apply_map "
                "maps already, and a task cannot be mapped twice over; call it, or "
                "flatten the arguments of apply_map."
            )
        return super()._connect(given, downstream, key)


def _checked(name: str, label: str, value: Any) -> Annotation:
    """An argument with its flags, what it is given as made readable twice."""
    item = unwrap(value, mapped=True)
    if not isinstance(value, Annotation | Task) and not is_mappable(value):
        raise OptionTypeError(
            f"apply_map({name}): {label} is {value!r}, but expected a task or a "
            f"collection to map over; write unmapped({value!r}) to give it whole."
        )
    kept = replayable(item.value, item.flattened)
    refuse_lazy(kept, f"was given as {label} to apply_map({name})")
    return Annotation(kept, item.mapped, item.flattened)


def _argument(item: Annotation, flow: FlowGraph) -> Annotation:
    """The argument as a task."""
    value = item.value
    if not isinstance(value, Task):
        value = flow.collect(value) if has_task(value) else Constant(value)
    return Annotation(value, item.mapped, item.flattened)


def _move(scratch: FlowGraph, flow: FlowGraph, arguments: list[Annotation]) -> None:
    """Add what the function made to the flow, with its edges mapped."""
    flags = {argument.value: argument for argument in arguments}
    made = {
        task: None
        for task in scratch.sorted_tasks()
        if task not in flow and task not in flags
    }
    mapped = {task for task in made if not isinstance(task, Constant | Parameter)}
    for task in made:
        flow.add_task(task)
        if task in scratch.constants:
            flow.set_dependencies(task, keyword_tasks=scratch.constants[task])
    for edge in scratch.edges:
        upstream, downstream = edge.upstream_task, edge.downstream_task
        argument = flags.get(upstream)
        if argument is None:
            each, flat = upstream in mapped, edge.flattened
        else:
            each = bool(argument.mapped)
            flat = edge.flattened or argument.flattened
        # What was there before is not mapped: it waits for all children.
        each = each and downstream in mapped
        flow.add_edge(upstream, downstream, edge.key, mapped=each, flattened=flat)
    for task in made:
        if task in mapped and not mapped & set(scratch.upstream_tasks(task)):
            _wait_for(task, arguments, flow)


def _wait_for(task: Task, arguments: list[Annotation], flow: FlowGraph) -> None:
    """Let a task have as many children as all arguments have items."""
    known = flow.upstream_tasks(task)
    for argument in arguments:
        whole = not argument.mapped and isinstance(argument.value, Constant)
        if argument.value in known or whole:
            continue
        flow.add_edge(
            argument.value,
            task,
            mapped=bool(argument.mapped),
            flattened=argument.flattened,
        )
