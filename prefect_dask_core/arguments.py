"""Arguments: how what is given to a task enters a flow.

A task stays what it is. A list, tuple, set or dict with tasks inside becomes a task
that collects their values. Anything else is a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import GraphError, MappingMissingIterable
from prefect_dask_core.tasks import Task

_COLLECTIONS: Final = (list, tuple, set, frozenset, dict)


def has_task(value: Any) -> bool:
    """Whether a value is a task, or a collection with a task anywhere inside.

    Notes
    -----
    A long list of plain values costs one pass over their types, at the speed of C.

    Examples
    --------
    >>> has_task([1, {"a": (Task("load"), 2)}]), has_task([[1], "load"])
    (True, False)
    """
    if isinstance(value, Task | Annotation):
        return True
    if not isinstance(value, _COLLECTIONS):
        return False
    items = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, items))
    if any(issubclass(kind, Task | Annotation) for kind in kinds):
        return True
    if not any(issubclass(kind, _COLLECTIONS) for kind in kinds):
        return False
    return any(has_task(item) for item in items)


def unwrap(value: Any, mapped: bool) -> Annotation:
    """An argument with its flags: those of its annotations, else those of the call.

    Examples
    --------
    >>> from prefect_dask_core.edges import unmapped
    >>> unwrap(unmapped(3), mapped=True)
    Annotation(value=3, mapped=False, flattened=False)
    """
    if not isinstance(value, Annotation):
        return Annotation(value, mapped)
    return Annotation(
        value.value, mapped if value.mapped is None else value.mapped, value.flattened
    )


def is_mappable(value: Any) -> bool:
    """Whether an argument may be mapped over; text stands for itself (decision C4).

    Of a task only the run can tell, so it may.

    Examples
    --------
    >>> [is_mappable(value) for value in ([1], {"a": 1}, range(3), "abc", 3)]
    [True, True, True, False, False]
    """
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def replayable(value: Any, flattened: bool = False) -> Any:
    """A mapped argument as it can be kept: what is read only once becomes a list.

    Parameters
    ----------
    value : object
        The argument.
    flattened : bool
        Whether it is unnested: its items are kept likewise.

    Examples
    --------
    >>> replayable(x * x for x in range(3)), replayable("abc")
    ([0, 1, 4], 'abc')
    """
    kept = list(value) if isinstance(value, Iterator) else value
    if not flattened or type(kept) not in (list, tuple):
        return kept
    if any(issubclass(kind, Iterator) for kind in set(map(type, kept))):
        return [replayable(item) for item in kept]
    return kept


def require_mappable(task: str, inputs: dict[str, Annotation]) -> None:
    """Raise if a mapped call has nothing that could be mapped over.

    Parameters
    ----------
    task : str
        Name of the task, for the message.
    inputs : dict of str to Annotation
        The arguments.

    Raises
    ------
    MappingMissingIterable
        If no argument is mapped and iterable.
    """
    if any(item.mapped and is_mappable(item.value) for item in inputs.values()):
        return
    raise MappingMissingIterable(
        f"task {task!r} is mapped, but none of its inputs "
        f"({', '.join(inputs) or 'none'}) can be iterated over; strings and bytes "
        "stand for themselves, as does what is in unmapped(...). Call the task "
        "without .map, or pass a collection."
    )


# -- collections -------------------------------------------------------------------


def _in_order(items: dict[str, Any]) -> list[Any]:
    return [items[f"arg_{number}"] for number in range(1, len(items) + 1)]


def collect_list(**items: Any) -> list[Any]:
    """List of ``arg_1``, ``arg_2``, ... in numeric order."""
    return _in_order(items)


def collect_tuple(**items: Any) -> tuple[Any, ...]:
    """Tuple of ``arg_1``, ``arg_2``, ... in numeric order."""
    return tuple(_in_order(items))


def collect_set(**items: Any) -> set[Any]:
    """Set of ``arg_1``, ``arg_2``, ..."""
    return set(items.values())


def collect_dict(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Dict of keys and values.

    Raises
    ------
    ValueError
        If there is not one value per key.
    """
    return dict(zip(keys, values, strict=True))


class List(Task):
    """A list of the values of tasks."""

    auto_generated = True

    def __init__(self, **options: Any) -> None:
        super().__init__(collect_list, **{"name": "List", **options})


class Tuple(Task):
    """A tuple of the values of tasks."""

    auto_generated = True

    def __init__(self, **options: Any) -> None:
        super().__init__(collect_tuple, **{"name": "Tuple", **options})


class Set(Task):
    """A set of the values of tasks."""

    auto_generated = True

    def __init__(self, **options: Any) -> None:
        super().__init__(collect_set, **{"name": "Set", **options})


class Dict(Task):
    """A dict of the values of tasks."""

    auto_generated = True

    def __init__(self, **options: Any) -> None:
        super().__init__(collect_dict, **{"name": "Dict", **options})


# One of each, to be copied: copies share body and options, which travel once.
_LIST, _TUPLE, _SET, _DICT = List(), Tuple(), Set(), Dict()


def collection_task(value: Any) -> tuple[Task, dict[str, Any]]:
    """Task that collects the values of a collection with tasks inside.

    Parameters
    ----------
    value : list, tuple, set or dict
        The collection.

    Returns
    -------
    Task
        The task, not bound yet.
    dict of str to object
        Its inputs, which may be collections with tasks themselves.

    Raises
    ------
    GraphError
        If the collection is of a kind that cannot be made of values again.

    Examples
    --------
    >>> collection_task([Task("load"), 2])
    (<Task: List>, {'arg_1': <Task: load>, 'arg_2': 2})
    """
    if isinstance(value, dict):
        return _DICT.copy(), {"keys": list(value), "values": list(value.values())}
    for kind, template in ((list, _LIST), (tuple, _TUPLE), (set, _SET)):
        if isinstance(value, kind) and not hasattr(value, "_fields"):
            inputs = {f"arg_{i}": item for i, item in enumerate(value, start=1)}
            return template.copy(), inputs
    raise GraphError(
        f"a {type(value).__name__} with tasks inside cannot be put together again from "
        "their values; give a list, tuple, set or dict, or make it in a task."
    )
