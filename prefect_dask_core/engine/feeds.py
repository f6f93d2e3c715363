"""Feeds: where the inputs of a step come from, and how they are read.

A source says in a few words where an input is; it travels with its block. A feed is
a source with the arguments of the block at hand, read child by child.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.columns import (
    COMPLETED,
    ONE_COMPLETED,
    Segment,
    tally_of,
    tally_of_state,
)
from prefect_dask_core.engine.flattening import Elements, Place, flat_values
from prefect_dask_core.engine.plan import flattened, items_of
from prefect_dask_core.engine.templates import Part, Template, fill
from prefect_dask_core.errors import InputError, InternalError
from prefect_dask_core.states import Completed, State
from prefect_dask_core.triggers import Tally

_NOTHING: Final = Tally(0, 0, 0, 0, 0, ())


class Readable(Protocol):
    """A list, or values that are unpickled when first read."""

    def __getitem__(self, offset: int, /) -> Any:
        """Item at an offset."""


# -- where an input comes from -----------------------------------------------------


class Fixed(NamedTuple):
    """A constant, the same for every child."""

    value: Any


class Items(NamedTuple):
    """A constant mapped over: the items of this block's children."""

    values: Readable
    start: int


class Shared(NamedTuple):
    """A large constant that is an argument of the block of its own."""

    position: int


class StaleInput(Exception):
    """A block above gave less than was promised.

    What a block hands back depends on how long its children take, so one that is run
    again after a worker's death may hand back more the second time; one of plain nodes
    may do so when its readers are submitted already. They have to be run anew.
    """


class Whole(NamedTuple):
    """The value of a node above: of a plain one, or a list of all children's.

    Parameters
    ----------
    node : int
        The node.
    positions : tuple of int
        Arguments of the block that hold it.
    fanout : bool
        Whether it has children.
    flattened : bool
        Whether it is unnested one level.
    spans : tuple of (int, int)
        Children that each argument is known to hold; empty where none are lost.
    """

    node: int
    positions: tuple[int, ...]
    fanout: bool
    flattened: bool = False
    spans: tuple[tuple[int, int], ...] = ()


class Each(NamedTuple):
    """Element by element: the items of a plain node, or the children of a fan-out.

    The fields are those of `Whole`, and of a fan-out that is flattened the elements
    that each argument holds, as they were counted; empty where nobody did.
    """

    node: int
    positions: tuple[int, ...]
    fanout: bool
    flattened: bool = False
    spans: tuple[tuple[int, int], ...] = ()
    elements: tuple[tuple[int, int], ...] = ()


class Local(NamedTuple):
    """The same child of an earlier step of this block."""

    node: int
    flattened: bool = False


class Filled(NamedTuple):
    """What another source gives, its templates filled with what nodes above give.

    Parameters
    ----------
    source : Fixed, Items or Shared
        Gives templates, or values with none.
    above : tuple of (str, Whole)
        Name and place of each node that a template refers to.
    """

    source: Fixed | Items | Shared
    above: tuple[tuple[str, Whole], ...]


Source = Fixed | Items | Shared | Whole | Each | Local | Filled


class StepInput(NamedTuple):
    """One input of a step.

    Parameters
    ----------
    key : str or None
        Parameter of the body; `None` where only the order matters.
    name : str
        Name of the task above, for messages.
    source : Source
        Where the value comes from.
    edge : Edge or None
        Handed to a user's trigger as the key of the state.
    tolerated : bool
        Whether the run above may have ended in any way.
    """

    key: str | None
    name: str
    source: Source
    edge: Edge | None
    tolerated: bool = False


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


# -- reading inputs ----------------------------------------------------------------


class Feed:
    """One input of a step, ready to be read child by child."""

    def tally(self, index: int) -> Tally | None:
        """How the run above ended; `None` for constants, which triggers ignore."""
        return None

    def value(self, index: int) -> Any:
        """Value for a child."""
        raise LookupError("this input carries no value")

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """States above, each with its index if it is a child's."""
        return ()

    #: Whether `tally` is the same for all children.
    constant_tally = True

    def is_completed(self, index: int) -> bool:
        """Whether the run above a child completed, and was not skipped."""
        tally = self.tally(index)
        return tally is None or (tally.successful == tally.total and not tally.skipped)


class _ConstantFeed(Feed):
    def __init__(self, value: Any) -> None:
        self._value = value

    def value(self, index: int) -> Any:
        return self._value


class _ItemsFeed(Feed):
    def __init__(self, values: Readable, start: int) -> None:
        self._values = values
        self._start = start

    def value(self, index: int) -> Any:
        return self._values[index - self._start]


class _WholeFeed(Feed):
    """A plain node's state and value, or those of all children of a fan-out."""

    def __init__(
        self, name: str, segments: Sequence[Segment], fanout: bool, flat: bool
    ) -> None:
        self._segments = segments
        self._fanout = fanout
        self._flat = flat
        self._values: list[Any] | None = None
        if fanout and not any(len(s) for s in segments):
            # An empty fan-out stands as one success.
            self._tally = ONE_COMPLETED
        else:
            self._tally = sum_tallies(
                tally_of(segment, name, mapped=fanout) for segment in segments
            )

    def tally(self, index: int) -> Tally:
        return self._tally

    def value(self, index: int) -> Any:
        if not self._fanout:
            value = self._segments[0].value(0)
            return flattened(value) if self._flat else value
        if self._values is None:
            found: list[Any] = []
            for segment in self._segments:
                found.extend(map(segment.value, range(len(segment))))
            self._values = flat_values(self._segments) if self._flat else found
        return list(self._values)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        if self._fanout and not any(len(s) for s in self._segments):
            yield None, Completed(data=[])
        for segment in self._segments:
            for offset in range(len(segment)):
                number = segment.start + offset if self._fanout else None
                yield number, segment.state(offset)


class _EachItemFeed(Feed):
    """The items of a plain node's value."""

    def __init__(
        self, name: str, segment: Segment, items: Sequence[Any] | None
    ) -> None:
        self._segment = segment
        self._tally = tally_of(segment, name, mapped=False)
        self._items = items

    def tally(self, index: int) -> Tally:
        return self._tally

    def value(self, index: int) -> Any:
        if self._items is None:
            # Lost with its workers since it was counted; the state says so.
            return self._segment.value(0)
        return self._items[index]

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        return [(None, self._segment.state(0))]


class _EachChildFeed(Feed):
    """The children of a fan-out, index by index."""

    constant_tally = False

    def __init__(self, name: str, segments: Sequence[Segment]) -> None:
        self._name = name
        self._segments = segments
        self._begins = [segment.start for segment in segments]

    def _find(self, index: int) -> tuple[Segment, int]:
        position = bisect_right(self._begins, index) - 1
        if position >= 0 and index < self._segments[position].stop:
            segment = self._segments[position]
            return segment, index - segment.start
        raise LookupError(f"child {index} of {self._name} is not among the inputs")

    def tally(self, index: int) -> Tally:
        segment, offset = self._find(index)
        if segment.codes[offset] == COMPLETED:
            return ONE_COMPLETED
        child = segment.start + offset
        return tally_of_state(segment.state(offset), f"{self._name}[{child}]")

    def is_completed(self, index: int) -> bool:
        segment, offset = self._find(index)
        return segment.codes[offset] == COMPLETED

    def value(self, index: int) -> Any:
        segment, offset = self._find(index)
        return segment.value(offset)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        segment, offset = self._find(index)
        return [(segment.start + offset, segment.state(offset))]


class _FlatChildFeed(Feed):
    """The elements of the children of a fan-out, one after the other."""

    constant_tally = False

    def __init__(
        self,
        name: str,
        segments: Sequence[Segment],
        promised: Mapping[int, tuple[int, int]],
    ) -> None:
        self._name = name
        self._elements = Elements(segments, promised)
        # Elements are read in order, so the last child mostly has the next one, too.
        self._last = Place(0, 0, Segment(0), 0, None)

    def _find(self, index: int) -> Place:
        place = self._last
        if not place.start <= index < place.stop:
            place = self._last = self._elements.find(index)
        return place

    def tally(self, index: int) -> Tally:
        place = self._find(index)
        segment, offset = place.segment, place.offset
        if segment.codes[offset] == COMPLETED:
            return ONE_COMPLETED
        child = segment.start + offset
        return tally_of_state(segment.state(offset), f"{self._name}[{child}]")

    def is_completed(self, index: int) -> bool:
        place = self._find(index)
        return place.segment.codes[place.offset] == COMPLETED

    def value(self, index: int) -> Any:
        place = self._find(index)
        start, _, segment, offset, items = place
        if items is None:
            return segment.value(offset)
        if index - start >= len(items):
            raise LookupError(
                f"child {segment.start + offset} of {self._name} was run again after a "
                f"worker's death, and gave {len(items)} items, fewer than before"
            )
        return items[index - start]

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        place = self._find(index)
        segment, offset = place.segment, place.offset
        return [(segment.start + offset, segment.state(offset))]


class _LocalFeed(_EachChildFeed):
    """An earlier step of the same block; its segment fills while the block runs."""

    def __init__(self, name: str, segment: Segment, mapped: bool, flat: bool) -> None:
        super().__init__(name, [segment])
        self._mapped = mapped
        self._flat = flat

    def _find(self, index: int) -> tuple[Segment, int]:
        segment = self._segments[0]
        return segment, index - segment.start

    def tally(self, index: int) -> Tally:
        if self._mapped:
            return super().tally(index)
        return tally_of(self._segments[0], self._name, mapped=False)

    def value(self, index: int) -> Any:
        value = super().value(index)
        return flattened(value) if self._flat else value

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        if self._mapped:
            return super().states(index)
        return [(None, self._segments[0].state(0))]


class _TolerantFeed(Feed):
    """An input whose failures count as successes; its value is then the exception."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.constant_tally = feed.constant_tally

    def tally(self, index: int) -> Tally | None:
        found = self._feed.tally(index)
        return None if found is None else tolerate(found)

    def value(self, index: int) -> Any:
        return self._feed.value(index)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        return self._feed.states(index)


def tolerate(tally: Tally) -> Tally:
    """A tally in which whatever ended has succeeded.

    Examples
    --------
    >>> tolerate(Tally(3, 1, 1, 0, 2, ("load",)))
    Tally(total=3, successful=2, failed=0, skipped=0, finished=2, failed_names=())
    """
    return Tally(tally.total, tally.finished, 0, tally.skipped, tally.finished, ())


class _FilledFeed(Feed):
    """Templates, filled with the values of the nodes they refer to."""

    def __init__(
        self, feed: Feed, above: Mapping[int, tuple[str, Sequence[Segment], bool]]
    ) -> None:
        self._feed = feed
        self._whole = {
            node: _WholeFeed(name, segments, fanout, False)
            for node, (name, segments, fanout) in above.items()
        }
        self._each = {
            node: _EachChildFeed(name, segments)
            for node, (name, segments, fanout) in above.items()
            if fanout
        }
        self.constant_tally = isinstance(feed, _ConstantFeed)

    def tally(self, index: int) -> Tally | None:
        found = self._feed.value(index)
        if not isinstance(found, Template):
            return None
        return sum_tallies(self._tally_of(part, index) for part in found.parts)

    def value(self, index: int) -> Any:
        found = self._feed.value(index)
        if not isinstance(found, Template):
            return found
        try:
            values = [self._value_of(part, index) for part in found.parts]
            return fill(found, values)
        except Exception as error:  # a value may not go where the future stood
            raise InputError(
                "an argument with futures inside cannot be put together: "
                f"{type(error).__name__}: {error}"
            ) from error

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        found = self._feed.value(index)
        if not isinstance(found, Template):
            return
        number = 0
        for part in found.parts:
            given = [part] if isinstance(part, State) else self._states_of(part, index)
            for state in given:
                yield number, state
                number += 1

    def _feed_of(self, part: Part, index: int) -> tuple[Feed, int]:
        if part.child is None or part.node not in self._each:
            return self._whole[part.node], index
        return self._each[part.node], part.child

    def _tally_of(self, part: Part | State, index: int) -> Tally:
        if isinstance(part, State):
            return tally_of_state(part, part.name)
        feed, place = self._feed_of(part, index)
        found = feed.tally(place)
        assert found is not None
        return tolerate(found) if part.tolerant else found

    def _value_of(self, part: Part | State, index: int) -> Any:
        if isinstance(part, State):
            return part.result(raise_on_failure=False)
        feed, place = self._feed_of(part, index)
        return feed.value(place)

    def _states_of(self, part: Part, index: int) -> Iterable[State]:
        feed, place = self._feed_of(part, index)
        return (state for _, state in feed.states(place))


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies; of none: an empty one."""
    total = None
    for tally in tallies:
        total = tally if total is None else total + tally
    return _NOTHING if total is None else total


def _in_order(
    arguments: Sequence[Any],
    node: int,
    positions: Sequence[int],
    spans: Sequence[tuple[int, int]],
) -> list[Segment]:
    """Segments of a node in index order; blocks are cut in any order."""
    found = [segment_in(arguments[p], node) for p in positions]
    if spans:
        found = list(map(_clipped, found, spans))
    return sorted(found, key=_start)


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


def _start(segment: Segment) -> int:
    return segment.start


def open_feed(
    step_input: StepInput,
    arguments: Sequence[Any],
    segments: Mapping[int, Segment],
    mapped: bool,
) -> Feed:
    """Get an input ready for reading.

    Parameters
    ----------
    step_input : StepInput
        The input.
    arguments : sequence
        Arguments of the block: block results and large constants.
    segments : mapping of int to Segment
        Of the earlier steps of the block.
    mapped : bool
        Whether the step runs children.
    """
    feed = _open(step_input, arguments, segments, mapped)
    return _TolerantFeed(feed) if step_input.tolerated else feed


def _open(
    step_input: StepInput,
    arguments: Sequence[Any],
    segments: Mapping[int, Segment],
    mapped: bool,
) -> Feed:
    name, source = step_input.name, step_input.source
    match source:
        case Filled(inner, above):
            places = {
                whole.node: (
                    label,
                    _in_order(arguments, whole.node, whole.positions, whole.spans),
                    whole.fanout,
                )
                for label, whole in above
            }
            plain = step_input._replace(source=inner)
            return _FilledFeed(_open(plain, arguments, segments, mapped), places)
        case Fixed(value):
            return _ConstantFeed(value)
        case Items(values, start):
            return _ItemsFeed(values, start)
        case Shared(position):
            return _ConstantFeed(arguments[position])
        case Local(node, flat):
            return _LocalFeed(name, segments[node], mapped, flat)
        case Each(node, positions, True, flat, spans, elements):
            found = _in_order(arguments, node, positions, spans)
            if not flat:
                return _EachChildFeed(name, found)
            starts = (start for start, _ in spans) if elements else ()
            return _FlatChildFeed(name, found, dict(zip(starts, elements, strict=True)))
        case Each(node, positions, False, flat):
            argument = arguments[positions[0]]
            read = flat_items_in if flat else items_in
            items = read(argument, node)
            return _EachItemFeed(name, segment_in(argument, node), items)
        case Whole(node, positions, fanout, flat, spans):
            found = _in_order(arguments, node, positions, spans)
            return _WholeFeed(name, found, fanout, flat)
        case _:
            raise InternalError(f"no feed reads {source!r}")


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
