"""Children: the segments of a mapped node, joined to what reads as its states."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final, overload

from prefect_dask_core.displays import counts_html
from prefect_dask_core.engine.codes import FAILED, SKIPPED, STATE_BY_CODE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.states import Pending, State, TriggerFailed

_start: Final = attrgetter("start")


class Children(Sequence[State]):
    """States of all children of a mapped node, made when looked at.

    Parameters
    ----------
    length : int
        Number of children.

    Notes
    -----
    An index with no segment yet reads as `Pending`.
    """

    __slots__ = ("_length", "_segments", "above")

    def __init__(self, length: int, segments: Sequence[Segment] = ()) -> None:
        self._length = length
        #: By the index of a refused child, what gives the failure above it.
        self.above: Callable[[int], Callable[[], BaseException | None]] | None = None
        # One list: another thread may read while it grows.
        self._segments: list[Segment] = []
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Take in the segment of a block."""
        if len(segment) == 0:
            return
        if not self._segments or self._segments[-1].start <= segment.start:
            self._segments.append(segment)
            return
        position = bisect_right(self._segments, segment.start, key=_start)
        self._segments.insert(position, segment)

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in index order."""
        return self._segments

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> State: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[State]: ...

    def __getitem__(self, index: int | slice) -> State | Sequence[State]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        found = self.locate(index)
        if found is None:
            return Pending()
        return self._state(*found)

    def _state(self, segment: Segment, offset: int) -> State:
        state = segment.state(offset)
        if self.above is not None and isinstance(state, TriggerFailed):
            # Nobody else has it.
            object.__setattr__(state, "_above", self.above(segment.start + offset))
        return state

    def locate(self, index: int) -> tuple[Segment, int] | None:
        """Segment and offset of a child, `None` if nothing is known of it."""
        if not -self._length <= index < self._length:
            raise IndexError(
                f"child {index} of a mapped task that has {self._length} children."
            )
        index %= self._length
        segments = self._segments
        position = bisect_right(segments, index, key=_start) - 1
        if position < 0:
            return None
        segment = segments[position]
        if not segment.start <= index < segment.stop:
            return None
        return segment, index - segment.start

    def __iter__(self) -> Iterator[State]:
        for index in range(self._length):
            yield self[index]

    def counts(self) -> dict[str, int]:
        """Number of children by the name of their state's class.

        Examples
        --------
        >>> children = Children(3)
        >>> children.counts()
        {'Pending': 3}
        """
        counts: dict[str, int] = {}
        known = 0
        for segment in self._segments:
            known += len(segment)
            for code in set(segment.codes):
                name = STATE_BY_CODE[code].__name__
                counts[name] = counts.get(name, 0) + segment.codes.count(code)
        if known < self._length:
            counts["Pending"] = counts.get("Pending", 0) + self._length - known
        return counts

    def failures(self) -> list[tuple[int, State]]:
        """Index and state of each child that failed or crashed, in order.

        Those whose trigger refused them are among them.

        Examples
        --------
        >>> from prefect_dask_core.states import Completed, Failed
        >>> segment = Segment(start=4)
        >>> segment.open(2)
        >>> segment.put(0, Completed(data="a"), 1.0, 2.0)
        >>> segment.put(1, Failed("no"), 2.0, 3.0)
        >>> Children(6, [segment]).failures()
        [(5, Failed('no'))]
        """
        return [
            (segment.start + offset, self._state(segment, offset))
            for segment in self._segments
            if not FAILED.isdisjoint(segment.codes)
            for offset, code in enumerate(segment.codes)
            if code in FAILED
        ]

    def any_skipped(self) -> bool:
        """Whether a child was skipped."""
        return any(
            code in segment.codes for segment in self._segments for code in SKIPPED
        )

    def attempts(self, index: int) -> int:
        """Attempts the child made: 0 where its body was not called."""
        found = self.locate(index)
        return 0 if found is None else found[0].attempts_of(found[1])

    def times(self, index: int) -> tuple[float, float] | None:
        """Begin and end of the child, in seconds since the epoch."""
        found = self.locate(index)
        if found is None:
            return None
        return found[0].begins[found[1]], found[0].ends[found[1]]

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.counts().items())
        return f"<Children: {counts or 'none'}>"

    def _repr_html_(self) -> str:
        return f"<div>{counts_html(self.counts())}</div>"
