"""Templates: values with places that are filled when the runs above have ended.

An argument such as ``{"rows": [future, 3]}`` becomes a template: the same value with a
numbered hole where the future was, and for each hole the node it stands for.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.plan import Input
from prefect_dask_core.states import State

#: Types that hold nothing; a collection of these only is not walked through.
_ATOMS: Final = frozenset({int, float, str, bytes, bool, complex, type(None)})
_SEQUENCES: Final = (list, tuple, set, frozenset)


class Part(NamedTuple):
    """What fills a hole: the value of a node, or of one child of it.

    Parameters
    ----------
    node : int
        The node.
    child : int, optional
        Index of the child; the value of a mapped node as a whole is the list of all.
    tolerant : bool
        Whether it may have ended in any way (`annotations.allow_failure`).
    """

    node: int
    child: int | None = None
    tolerant: bool = False


class Hole:
    """Place of a template.

    Parameters
    ----------
    number : int
        Position of what fills it among the parts of the template.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Hole({self.number})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hole) and other.number == self.number

    def __hash__(self) -> int:
        return hash((Hole, self.number))

    def __reduce__(self) -> tuple[Any, ...]:
        return Hole, (self.number,)


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A value with holes.

    Parameters
    ----------
    value : object
        The value.
    parts : tuple of Part or State
        What fills the holes, by their numbers.
    """

    value: Any
    parts: tuple[Part | State, ...]


class _InTemplate:
    """Type of `PART`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PART"

    def __reduce__(self) -> str:
        return "PART"


#: Value of an input that only says: a template of the same node refers to this node.
#: How it ended is told by the template, child by child where that is mapped over.
PART: Final = _InTemplate()


def part_input(node: int) -> Input:
    """Input that makes a node depend on another that fills one of its templates."""
    return Input(None, node, PART, mapped=False, flattened=False, edge=None)


def has_template(value: Any) -> bool:
    """Whether a constant is a template, or a list with one among its items."""
    if type(value) is list:
        return Template in set(map(type, value))
    return isinstance(value, Template)


def nodes_of(value: Any) -> Iterable[int]:
    """Nodes that a constant needs: a template, or a list with templates as items."""
    if isinstance(value, Template):
        return (part.node for part in value.parts if isinstance(part, Part))
    if type(value) is list:
        return (
            part.node
            for item in value
            if isinstance(item, Template)
            for part in item.parts
            if isinstance(part, Part)
        )
    return ()


def fill(template: Template, values: Sequence[Any]) -> Any:
    """The value of a template, its holes filled.

    Parameters
    ----------
    template : Template
        The template.
    values : sequence
        One per part.

    Examples
    --------
    >>> fill(Template({"rows": [Hole(0), 3]}, (Part(7),)), ["a"])
    {'rows': ['a', 3]}
    """

    def filled(leaf: Any) -> Any:
        return values[leaf.number] if type(leaf) is Hole else leaf

    return rebuild(template.value, filled)


def rebuild(value: Any, replace: Callable[[Any], Any]) -> Any:
    """A value with some of what is in it replaced.

    Looks into lists, tuples, named tuples, sets, dicts (keys too), dataclasses and
    models of pydantic. Numbers, text and `None` are not asked about.

    Parameters
    ----------
    value : object
        The value. It is not changed.
    replace : callable (object) -> object
        Given each thing on the way; returns it, or what takes its place, which is then
        not looked into.

    Returns
    -------
    object
        The very same object if nothing in it was replaced.

    Examples
    --------
    >>> rebuild([1, (2, {"a": Hole(0)})], lambda x: 3 if x == Hole(0) else x)
    [1, (2, {'a': 3})]
    """
    return _rebuild(value, replace, set())


def _rebuild(value: Any, replace: Callable[[Any], Any], path: set[int]) -> Any:
    if type(value) in _ATOMS:
        return value
    put = replace(value)
    if put is not value:
        return put
    if isinstance(value, _SEQUENCES):
        walk = _rebuild_items
    elif isinstance(value, dict):
        walk = _rebuild_dict
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        walk = _rebuild_dataclass
    elif hasattr(type(value), "__pydantic_fields__"):
        walk = _rebuild_model
    else:
        return value
    if id(value) in path:
        return value  # it holds itself
    path.add(id(value))
    try:
        return walk(value, replace, path)
    finally:
        path.discard(id(value))


def _rebuild_items(value: Any, replace: Callable[[Any], Any], path: set[int]) -> Any:
    # A long list of plain values costs one pass over their types, at the speed of C.
    if _ATOMS.issuperset(map(type, value)):
        return value
    items = [_rebuild(item, replace, path) for item in value]
    if _are_same(items, value):
        return value
    if hasattr(value, "_make"):
        return value._make(items)
    return type(value)(items)


def _rebuild_dict(value: Any, replace: Callable[[Any], Any], path: set[int]) -> Any:
    if _ATOMS.issuperset(map(type, value)) and _ATOMS.issuperset(
        map(type, value.values())
    ):
        return value
    keys = [_rebuild(key, replace, path) for key in value]
    items = [_rebuild(item, replace, path) for item in value.values()]
    if _are_same(keys, value) and _are_same(items, value.values()):
        return value
    if type(value) is dict:
        return dict(zip(keys, items, strict=True))
    made = copy.copy(value)  # an OrderedDict, a defaultdict with its factory
    made.clear()
    made.update(zip(keys, items, strict=True))
    return made


def _rebuild_model(value: Any, replace: Callable[[Any], Any], path: set[int]) -> Any:
    names = (*type(value).model_fields, *(value.model_extra or ()))
    changed = _changes(value, names, replace, path)
    # Not validated again: what takes the place of a future is known on a worker only.
    return value.model_copy(update=changed) if changed else value


def _changes(
    value: Any, names: Iterable[str], replace: Callable[[Any], Any], path: set[int]
) -> dict[str, Any]:
    """Attributes of a value in which something is replaced."""
    changed = {}
    for name in names:
        before = getattr(value, name, None)
        after = _rebuild(before, replace, path)
        if after is not before:
            changed[name] = after
    return changed


def _rebuild_dataclass(
    value: Any, replace: Callable[[Any], Any], path: set[int]
) -> Any:
    names = [field.name for field in dataclasses.fields(value)]
    changed = _changes(value, names, replace, path)
    if not changed:
        return value
    made = copy.copy(value)
    for name, item in changed.items():
        object.__setattr__(made, name, item)  # a frozen one too: it is a fresh copy
    return made


def _are_same(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(one is other for one, other in zip(left, right, strict=True))
