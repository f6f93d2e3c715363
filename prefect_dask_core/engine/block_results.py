"""Block results: what a block leaves for the blocks that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.engine.plan import flattened, items_of
from prefect_dask_core.engine.segments import Segment


class StaleInput(Exception):
    """A block above gave less than was promised.

    What a block hands back depends on how long its children take, so one that is run
    again after a worker's death may hand back more the second time; one of plain nodes
    may do so when its readers are submitted already. They have to be run anew.
    """


class BlockResult:
    """What a block leaves for the blocks that read it.

    Parameters
    ----------
    segments : dict of int to Segment
        By node.
    items : dict of int to list
        By node, of plain nodes that are mapped over: their value as a list.
    """

    __slots__ = ("flat_items", "items", "segments")

    def __init__(
        self, segments: dict[int, Segment], items: dict[int, list[Any]]
    ) -> None:
        self.segments = segments
        self.items = items
        #: What `flat_items_in` has made; it does not travel.
        self.flat_items: dict[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockResult, (self.segments, self.items)


class PlainValue:
    """The value of a plain node that completed, in one piece.

    Parameters
    ----------
    value : object
        The value.
    """

    __slots__ = ("flat_items", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        #: What `flat_items_in` has made; it does not travel.
        self.flat_items: dict[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainValue, (self.value,)


#: Types of values that any serializer gives back as they are.
BARE: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


def segment_in(argument: Any, node: int) -> Segment:
    """What an argument of a block says of a node above.

    Parameters
    ----------
    argument : object
        What a block left: a `BlockResult`, or what `leanest` made of it.
    node : int
        The node.

    Raises
    ------
    StaleInput
        If the block has handed the node back.
    """
    if isinstance(argument, BlockResult):
        found = argument.segments.get(node)
        if found is None:
            raise StaleInput(f"the block above has handed node {node} back")
        return found
    bare = argument.value if isinstance(argument, PlainValue) else argument
    return Segment.of_value(bare)


def segments_in(
    arguments: Sequence[Any],
    node: int,
    positions: Sequence[int],
    spans: Sequence[tuple[int, int]],
) -> list[Segment]:
    """What some arguments of a block say of the children of a fan-out.

    Parameters
    ----------
    arguments : sequence
        Arguments of the block.
    node : int
        The fan-out, or a plain node.
    positions : sequence of int
        Arguments that hold it, in any order.
    spans : sequence of (int, int)
        Children that each of these is known to hold; empty where all count.

    Returns
    -------
    list of Segment
        In index order.

    Raises
    ------
    StaleInput
        If one of them holds less.
    """
    found = [segment_in(arguments[p], node) for p in positions]
    if spans:
        found = list(map(_clipped, found, spans))
    return sorted(found, key=_start_of)


def _clipped(segment: Segment, span: tuple[int, int]) -> Segment:
    """The children a segment is known to hold; it may hold more when run again."""
    start, stop = span
    if segment.stop == stop and segment.start == start:
        return segment
    if segment.start > start or segment.stop < stop:
        raise StaleInput(
            f"children {start} to {stop} were expected, and {segment.start} to "
            f"{segment.stop} are there"
        )
    return segment.part(start - segment.start, stop - segment.start)


def _start_of(segment: Segment) -> int:
    return segment.start


def items_in(argument: Any, node: int) -> list[Any] | None:
    """Items of a plain node above, `None` if it cannot be mapped over."""
    if isinstance(argument, BlockResult):
        return argument.items.get(node)
    bare = argument.value if isinstance(argument, PlainValue) else argument
    return items_of(bare)


def flat_items_in(argument: Any, node: int) -> list[Any] | None:
    """Items of a plain node above, unnested one level where they are collections.

    Notes
    -----
    Made once per worker: all blocks that read some of them share the list.
    """
    known: Any = None
    if isinstance(argument, BlockResult | PlainValue):
        known = argument.flat_items = argument.flat_items or {}
        if node in known:
            return known[node]  # type: ignore[no-any-return]
    items = items_in(argument, node)
    found = None if items is None else flattened(items)
    if known is not None:
        known[node] = found
    return found


def measure(segment: Segment, items: list[Any] | None, flat: bool) -> None:
    """Note how many items a plain node's value has, and how many once flattened."""
    if items is not None:
        segment.length = len(items)
        if flat:
            segment.flat_length = len(flattened(items))


def leanest(result: BlockResult, node: int) -> Any:
    """What a block of one plain node leaves: its value, where that says all.

    A number or a text is left bare, anything else in a wrapper that is pickled. A state
    that says more stays a `BlockResult`, and so does a value that can be iterated over
    only once.

    Notes
    -----
    Measured on a tree of 5,000 nodes: a `BlockResult` for each costs 0.2 ms more of
    the workers' time than the bare value. What Dask has a serializer of its own for is
    wrapped all the same: that one makes a plain array of a subclass's, and sends a list
    item by item, each thing in it once more (100,000 numbers took 1.5 s).
    """
    segment = result.segments[node]
    if segment.codes[0] != COMPLETED or segment.details or segment.values is None:
        return result
    if segment.kept is not None:
        return result
    value = segment.values[0]
    if node in result.items and result.items[node] is not value:
        return result
    return value if type(value) in BARE else PlainValue(value)


def result_of(given: Mapping[int, Segment]) -> BlockResult:
    """A block's result made of what is known already, for the blocks that read it.

    Parameters
    ----------
    given : mapping of int to Segment
        By node.
    """
    items = {}
    for node, segment in given.items():
        if segment.length is not None and segment.values is not None:
            found = items_of(segment.values[0])
            if found is not None:
                items[node] = found
    return BlockResult(dict(given), items)
