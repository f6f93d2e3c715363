"""Feeds: how the inputs of a step are read, child by child.

A feed is a source with the arguments of the block at hand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.engine.flattening import Elements, Place, flat_values
from prefect_dask_core.engine.plan import flattened
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import Readable
from prefect_dask_core.engine.tallies import (
    ONE_COMPLETED,
    sum_tallies,
    tally_of,
    tally_of_state,
    tolerate,
)
from prefect_dask_core.engine.templates import Part, Template, fill
from prefect_dask_core.engine.unreadable import UnreadableItem
from prefect_dask_core.errors import InputError
from prefect_dask_core.states import Completed, State
from prefect_dask_core.triggers import Tally


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


class ConstantFeed(Feed):
    """A constant, the same for every child."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def value(self, index: int) -> Any:
        """The constant."""
        return self._value


class ItemsFeed(Feed):
    """The items of a constant that is mapped over."""

    def __init__(self, values: Readable, start: int) -> None:
        self._values = values
        self._start = start

    def value(self, index: int) -> Any:
        """Item of a child."""
        return self._values[index - self._start]


class WholeFeed(Feed):
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
        """How all above ended, counted once."""
        return self._tally

    def value(self, index: int) -> Any:
        """The value, or a new list of all children's."""
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
        """All states above."""
        if self._fanout and not any(len(s) for s in self._segments):
            yield None, Completed(data=[])
        for segment in self._segments:
            for offset in range(len(segment)):
                number = segment.start + offset if self._fanout else None
                yield number, segment.state(offset)


class EachItemFeed(Feed):
    """The items of a plain node's value."""

    def __init__(
        self, name: str, segment: Segment, items: Sequence[Any] | None
    ) -> None:
        self._segment = segment
        self._tally = tally_of(segment, name, mapped=False)
        self._items = items

    def tally(self, index: int) -> Tally:
        """How the node above ended."""
        return self._tally

    def value(self, index: int) -> Any:
        """Item of a child."""
        if self._items is None:
            # Lost with its workers since it was counted; the state says so.
            return self._segment.value(0)
        return self._items[index]

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """State of the node above."""
        return [(None, self._segment.state(0))]


class EachChildFeed(Feed):
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
        """How the child above ended."""
        segment, offset = self._find(index)
        if segment.codes[offset] == COMPLETED:
            return ONE_COMPLETED
        child = segment.start + offset
        return tally_of_state(segment.state(offset), f"{self._name}[{child}]")

    def is_completed(self, index: int) -> bool:
        """Whether the child above completed."""
        segment, offset = self._find(index)
        return segment.codes[offset] == COMPLETED

    def value(self, index: int) -> Any:
        """Value of the child above."""
        segment, offset = self._find(index)
        return segment.value(offset)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """State of the child above."""
        segment, offset = self._find(index)
        return [(segment.start + offset, segment.state(offset))]


class FlatChildFeed(Feed):
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
        """How the child ended that gives an element."""
        place = self._find(index)
        segment, offset = place.segment, place.offset
        if segment.codes[offset] == COMPLETED:
            return ONE_COMPLETED
        child = segment.start + offset
        return tally_of_state(segment.state(offset), f"{self._name}[{child}]")

    def is_completed(self, index: int) -> bool:
        """Whether the child completed that gives an element."""
        place = self._find(index)
        return place.segment.codes[place.offset] == COMPLETED

    def value(self, index: int) -> Any:
        """The element; a child of one element gives its value."""
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
        """State of the child that gives an element."""
        place = self._find(index)
        segment, offset = place.segment, place.offset
        return [(segment.start + offset, segment.state(offset))]


class LocalFeed(EachChildFeed):
    """An earlier step of the same block; its segment fills while the block runs."""

    def __init__(self, name: str, segment: Segment, mapped: bool, flat: bool) -> None:
        super().__init__(name, [segment])
        self._mapped = mapped
        self._flat = flat

    def _find(self, index: int) -> tuple[Segment, int]:
        segment = self._segments[0]
        return segment, index - segment.start

    def tally(self, index: int) -> Tally:
        """How the earlier step ended."""
        if self._mapped:
            return super().tally(index)
        return tally_of(self._segments[0], self._name, mapped=False)

    def value(self, index: int) -> Any:
        """Value of the earlier step."""
        value = super().value(index)
        return flattened(value) if self._flat else value

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """State of the earlier step."""
        if self._mapped:
            return super().states(index)
        return [(None, self._segments[0].state(0))]


class TolerantFeed(Feed):
    """An input whose failures count as successes; its value is then the exception."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.constant_tally = feed.constant_tally

    def tally(self, index: int) -> Tally | None:
        """How the run above ended, failures being successes."""
        found = self._feed.tally(index)
        return None if found is None else tolerate(found)

    def value(self, index: int) -> Any:
        """The value above, or the exception."""
        return self._feed.value(index)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """States above, as they are."""
        return self._feed.states(index)


class FilledFeed(Feed):
    """Templates, filled with the values of the nodes they refer to."""

    def __init__(
        self, feed: Feed, above: Mapping[int, tuple[str, Sequence[Segment], bool]]
    ) -> None:
        self._feed = feed
        self._whole = {
            node: WholeFeed(name, segments, fanout, False)
            for node, (name, segments, fanout) in above.items()
        }
        self._each = {
            node: EachChildFeed(name, segments)
            for node, (name, segments, fanout) in above.items()
            if fanout
        }
        self.constant_tally = isinstance(feed, ConstantFeed)

    def tally(self, index: int) -> Tally | None:
        """How the runs ended to which the templates refer."""
        found = self._template(index)
        if found is None:
            return None
        return sum_tallies(self._tally_of(part, index) for part in found.parts)

    def value(self, index: int) -> Any:
        """The filled template."""
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
        """States of the runs to which the templates refer, numbered."""
        found = self._template(index)
        if found is None:
            return
        number = 0
        for part in found.parts:
            given = [part] if isinstance(part, State) else self._states_of(part, index)
            for state in given:
                yield number, state
                number += 1

    def _template(self, index: int) -> Template | None:
        """The template of a child, if it has one that can be read."""
        try:
            found = self._feed.value(index)
        except UnreadableItem:
            return None  # the run is told when it asks for the value
        return found if isinstance(found, Template) else None

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
