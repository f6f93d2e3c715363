"""Columns: the states of many children in the room of a few arrays.

A `Segment` holds what is known of consecutive children of one node (a plain node is a
segment of one); `Children` joins the segments of a mapped node and reads like a
sequence of states, which are made only when somebody looks.
"""

from __future__ import annotations

import pickle
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias, overload

from prefect_dask_core.displays import counts_html
from prefect_dask_core.errors import UnfinishedRun
from prefect_dask_core.moments import Moments, pack_moments, unpack_moments
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Cached,
    Cancelled,
    Completed,
    Crashed,
    DataReference,
    Failed,
    Finished,
    Looped,
    Missing,
    Paused,
    Pending,
    RunFacts,
    Running,
    Skipped,
    State,
    TimedOut,
    TriggerFailed,
    counts_as_failure,
    usual_attempts,
)
from prefect_dask_core.triggers import Tally

#: The class of a state by its code. The order is part of the format on the wire.
STATE_BY_CODE: Final[tuple[type[State], ...]] = (
    Completed,
    Skipped,
    Cached,
    Failed,
    TimedOut,
    TriggerFailed,
    Crashed,
    Cancelled,
    Paused,
    Pending,
    AwaitingRetry,
    Running,
    Finished,
    Looped,
)
CODE_BY_STATE: Final[dict[type[State], int]] = {
    state: code for code, state in enumerate(STATE_BY_CODE)
}
COMPLETED: Final = CODE_BY_STATE[Completed]
#: Attempts by code, where a segment has noted no others.
USUAL_ATTEMPTS: Final = tuple(usual_attempts(cls.__name__) for cls in STATE_BY_CODE)
_SUCCESSFUL: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Completed)
)
_SKIPPED: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Skipped)
)
FAILED: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Failed | Crashed)
)
_FINISHED: Final = frozenset(
    code
    for code, cls in enumerate(STATE_BY_CODE)
    if issubclass(cls, Finished) and cls is not Looped
)

#: Final, and no success.
BAD: Final = _FINISHED - _SUCCESSFUL

#: Begins and ends of the waits of one run, in seconds since the epoch.
Waits: TypeAlias = tuple[tuple[float, float], ...]

_ONE_COMPLETED: Final = bytes([COMPLETED])
_CACHED: Final = CODE_BY_STATE[Cached]
#: Message of a run whose value was in the store.
FROM_STORE: Final = "taken from the store."

#: The tally of the commonest upstream.
ONE_COMPLETED: Final = Tally(1, 1, 0, 0, 1, ())

#: What stands for the value of a child whose value is elsewhere.
NOT_KEPT = (
    "the value was used on its worker and not kept; to have it afterwards, name the "
    "task in flow.run(return_tasks=[...]), or hold or return its future where the flow "
    "is a function. A run that is resumed by its id has the values that were stored: "
    "those of tasks with persist_result=True."
)


def code_of(state: State) -> int:
    """The code of a state: that of its class, or of the nearest class with a code.

    Examples
    --------
    >>> STATE_BY_CODE[code_of(Skipped())].__name__
    'Skipped'
    """
    for cls in type(state).__mro__:
        code = CODE_BY_STATE.get(cls)
        if code is not None:
            return code
    return CODE_BY_STATE[Pending]


class Packed:
    """Values of a segment as bytes, unpickled when somebody looks.

    Parameters
    ----------
    blob : bytes
        A pickled list with one value per child.
    """

    __slots__ = ("_values", "blob")

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self._values: list[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.blob,)

    def __getitem__(self, offset: int) -> Any:
        if self._values is None:
            self._values = pickle.loads(self.blob)
        return self._values[offset]


class Elsewhere:
    """Values of a segment that stay where they are until somebody looks.

    Parameters
    ----------
    fetch : callable
        Called without arguments; returns the list with one value per child.
        May raise `MissingResult`.
    """

    __slots__ = ("_fetch", "_values")

    def __init__(self, fetch: Callable[[], Sequence[Any]]) -> None:
        self._fetch = fetch
        self._values: Sequence[Any] | None = None

    def load(self) -> Sequence[Any]:
        """Fetch the values, once."""
        if self._values is None:
            self._values = self._fetch()
        return self._values

    def __getitem__(self, offset: int) -> Any:
        return self.load()[offset]

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever pickles a state means its value.
        return list, (self.load(),)


class _ElsewhereItem(DataReference):
    """Value of one child of an `Elsewhere`."""

    __slots__ = ("offset", "values")

    def __init__(self, values: Elsewhere, offset: int) -> None:
        self.values = values
        self.offset = offset

    def load(self) -> Any:
        """Fetch the value of the child."""
        return self.values.load()[self.offset]


class Segment:
    """What is known of consecutive children of one node.

    Parameters
    ----------
    start : int
        Index of the first child; 0 for a plain node.
    codes : bytearray
        One state code per child.
    begins, ends : array of float
        Seconds since the epoch, one per child.
    attempts : dict of int to int
        Attempts made, by offset, where they are not those that are usual for the
        state; `attempts_of` reads them.
    details : dict of int to State, or PackedDetails
        The whole state, by offset, where the code alone says too little. A detail of
        a successful child carries no data; its value is in `values`. Packed, once no
        more of them come.
    values : list, Packed, Elsewhere or None
        One value per child; `None` if they were not kept.
    length : int, optional
        How many items the value of a plain node has that others map over; `None` if
        it cannot be iterated.
    flat_length : int, optional
        The same once flattened; of a fan-out, of all children together.
    worker : str, optional
        Address of the worker that ran them; `None` without a cluster.
    kept : KeptValues, optional
        Where the values are that are in a store.
    waits : dict of int to tuple of (float, float), optional
        By offset, when each wait for a further attempt began and ended; `None` where
        nobody waited.
    """

    __slots__ = (
        "attempts",
        "begins",
        "codes",
        "details",
        "ends",
        "flat_length",
        "kept",
        "length",
        "start",
        "values",
        "waits",
        "worker",
    )

    def __init__(self, start: int) -> None:
        self.start = start
        self.codes = bytearray()
        self.begins = array("d")
        self.ends = array("d")
        self.attempts: dict[int, int] = {}
        self.details: Mapping[int, State] = {}
        self.values: Any = []
        self.length: int | None = None
        self.flat_length: int | None = None
        self.worker: str | None = None
        self.kept: KeptValues | None = None
        self.waits: dict[int, Waits] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def stop(self) -> int:
        """Index after the last child."""
        return self.start + len(self.codes)

    @classmethod
    def of_value(cls, value: Any, begin: float = 0.0, end: float = 0.0) -> Segment:
        """Segment of a plain node that completed.

        Examples
        --------
        >>> Segment.of_value(5).state(0).result()
        5
        """
        return _segment(
            0,
            bytearray(_ONE_COMPLETED),
            array("d", (begin,)),
            array("d", (end,)),
            {},
            {},
            [value],
            None,
            None,
            None,
        )

    def open(self, count: int) -> None:
        """Make room for `count` children, filled in any order with `put`."""
        self.codes = bytearray(bytes([CODE_BY_STATE[Pending]]) * count)
        self.begins = array("d", bytes(8 * count))
        self.ends = array("d", bytes(8 * count))
        self.values = [None] * count

    def put(
        self,
        offset: int,
        state: State,
        begin: float,
        end: float,
        attempts: int | None = None,
        waits: Waits = (),
    ) -> None:
        """Record the final state of one child; `None`: attempts as usual for it."""
        code = code_of(state)
        self.codes[offset] = code
        details = self.details
        if not isinstance(details, dict):
            details = self.details = dict(details)
        self.begins[offset] = begin
        self.ends[offset] = end
        if waits:
            if self.waits is None:
                self.waits = {}
            self.waits[offset] = waits
        if attempts is not None and attempts != USUAL_ATTEMPTS[code]:
            self.attempts[offset] = attempts
        else:
            self.attempts.pop(offset, None)
        plain = (state.message is None and type(state) is Completed) or (
            # Of a million that are taken from a store none needs a state of its own.
            type(state) is Cached
            and state.message == FROM_STORE
            and state.hashed_inputs is None
            and state.cached_result_expiration is None
        )
        if code in _SUCCESSFUL:
            self.values[offset] = None if state.data is NO_DATA else state.data
            if not plain or state.name != STATE_BY_CODE[code].__name__:
                details[offset] = state.replace(data=NO_DATA)
        else:
            details[offset] = state

    def cut(self, count: int) -> None:
        """Forget all but the first `count` children."""
        del self.codes[count:], self.begins[count:], self.ends[count:]
        del self.values[count:]

    def part(self, start: int, stop: int) -> Segment:
        """The children from one offset to another, as a segment of their own."""
        part = Segment(self.start + start)
        part.codes = self.codes[start:stop]
        part.begins, part.ends = self.begins[start:stop], self.ends[start:stop]
        inside = range(start, stop)
        part.attempts = {n - start: v for n, v in self.attempts.items() if n in inside}
        part.details = {n - start: v for n, v in self.details.items() if n in inside}
        part.worker = self.worker
        if self.kept is not None:
            part.kept = self.kept.part(start, stop)
        waits = self.waits or {}
        part.waits = {n - start: v for n, v in waits.items() if n in inside} or None
        part.values = None
        if isinstance(self.values, StoredValues) and part.kept is not None:
            part.values = self.values.part(part.kept, start, stop)
        elif self.values is not None:
            part.values = [self.values[offset] for offset in inside]
        return part

    def state(self, offset: int) -> State:
        """State of one child.

        Examples
        --------
        >>> segment = Segment(start=4)
        >>> segment.open(2)
        >>> segment.put(0, Completed(data="a"), 1.0, 2.0)
        >>> segment.put(1, Failed("no"), 2.0, 3.0, attempts=3)
        >>> segment.state(0).result(), segment.state(1)
        ('a', Failed('no'))
        >>> segment.state(1).run
        RunFacts(attempts=3, begin=2.0, end=3.0, worker=None)
        """
        state = self._bare_state(offset)
        attempts = self.attempts_of(offset)
        # The columns have 0 for what nobody knows.
        begin: float | None = self.begins[offset] or None
        end = self.ends[offset] or state.timestamp
        if not attempts and self.codes[offset] != _CACHED:
            begin = None  # it was looked at, and no more
        # Nobody else has it.
        object.__setattr__(state, "run", RunFacts(attempts, begin, end, self.worker))
        return state

    def attempts_of(self, offset: int) -> int:
        """Attempts that one child made: how often its body was called."""
        return self.attempts.get(offset, USUAL_ATTEMPTS[self.codes[offset]])

    def _bare_state(self, offset: int) -> State:
        code = self.codes[offset]
        detail = self.details.get(offset)
        if code not in _SUCCESSFUL:
            return STATE_BY_CODE[code]() if detail is None else detail.replace()
        data = self._data(offset)
        if detail is not None:
            return detail.replace(data=data)
        if code == _CACHED:
            return Cached(FROM_STORE, data=data, timestamp=self.ends[offset])
        return STATE_BY_CODE[code](data=data, timestamp=self.ends[offset])

    def _data(self, offset: int) -> Any:
        values = self.values
        if values is None or isinstance(values, Elsewhere | StoredValues):
            item = None if self.kept is None else self.kept.item(offset)
            if item is not None:
                return item
            if values is None:
                return Missing(NOT_KEPT)
            if isinstance(values, Elsewhere):
                return _ElsewhereItem(values, offset)
        return values[offset]

    def keep(self, offset: int, key: str, in_memory: bool) -> None:
        """Note that the value of a child is in the store, and maybe nowhere else."""
        assert self.kept is not None
        self.kept.note(offset, key)
        if not in_memory:
            self.values.let_go(offset)

    def value(self, offset: int) -> Any:
        """Value a downstream task gets: the value, or an exception that says why not.

        The exception of a failure; of a run that has not finished, what asking for its
        result raises: a trigger may let a task run that does not wait for it.
        """
        if self.codes[offset] in _SUCCESSFUL:
            return self.values[offset]
        try:
            return self.state(offset).result(raise_on_failure=False)
        except UnfinishedRun as error:
            return error

    def without_values(self) -> Segment:
        """A copy that leaves the values where they are."""
        copy = Segment(self.start)
        copy.codes, copy.begins, copy.ends = self.codes, self.begins, self.ends
        copy.attempts, copy.details = self.attempts, self.details
        copy.length, copy.flat_length = self.length, self.flat_length
        copy.worker, copy.waits = self.worker, self.waits
        copy.kept = self.kept
        copy.values = None
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes: an array pickles itself by way of a slow reconstructor, and a plain
        # node's block is a segment of one, of which there are many.
        return _unpacked, (
            self.start,
            bytes(self.codes),
            *pack_moments(self.begins.tobytes(), self.ends.tobytes()),
            self.attempts,
            self.details,
            self.values,
            self.length,
            self.flat_length,
            self.worker,
            self.waits,
            self.kept,
        )


def _unpacked(
    start: int, codes: bytes, begins: Moments, ends: Moments, *rest: Any
) -> Segment:
    """Make a segment of what it was pickled as."""
    first, last = unpack_moments(len(codes), begins, ends)
    times = array("d", first), array("d", last)
    return _segment(start, bytearray(codes), *times, *rest)


def _segment(
    start: int,
    codes: bytearray,
    begins: array[float],
    ends: array[float],
    attempts: dict[int, int],
    details: Mapping[int, State],
    values: Any,
    length: int | None,
    flat_length: int | None,
    worker: str | None = None,
    waits: dict[int, Waits] | None = None,
    kept: KeptValues | None = None,
) -> Segment:
    """Make a segment of its fields, as unpickling does."""
    segment = object.__new__(Segment)
    segment.start, segment.codes = start, codes
    segment.begins, segment.ends = begins, ends
    segment.attempts, segment.details, segment.values = attempts, details, values
    segment.length, segment.flat_length = length, flat_length
    segment.worker, segment.waits = worker, waits
    segment.kept = kept
    return segment


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
            code in segment.codes for segment in self._segments for code in _SKIPPED
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


def tally_of(segment: Segment, name: str, mapped: bool) -> Tally:
    """What triggers need to know of a whole segment.

    Parameters
    ----------
    segment : Segment
        One or more children.
    name : str
        Name of the task, for messages.
    mapped : bool
        Whether children are named by their index.

    Examples
    --------
    >>> segment = Segment(start=0)
    >>> segment.open(2)
    >>> segment.put(0, Completed(data=1), 0.0, 0.0)
    >>> segment.put(1, Failed("no"), 0.0, 0.0)
    >>> tally_of(segment, "load", mapped=True).failed_names
    ('load[1]',)
    """
    codes = segment.codes
    total = len(codes)
    completed = codes.count(COMPLETED)
    if completed == total:
        if total == 1:
            return ONE_COMPLETED
        return Tally(total, total, 0, 0, total, ())
    present = set(codes)

    def count(group: frozenset[int]) -> int:
        return sum(codes.count(code) for code in present & group)

    names: list[str] = []
    if present & FAILED:
        for offset, code in enumerate(codes):
            if code in FAILED:
                index = segment.start + offset
                names.append(f"{name}[{index}]" if mapped else name)
                if len(names) == 3:
                    break
    return Tally(
        total,
        count(_SUCCESSFUL),
        count(FAILED),
        count(_SKIPPED),
        count(_FINISHED),
        tuple(names),
    )


def tally_of_state(state: State, name: str) -> Tally:
    """What triggers need to know of one state."""
    failed = counts_as_failure(state)
    return Tally(
        1,
        int(state.is_successful()),
        int(failed),
        int(state.is_skipped()),
        int(state.is_final()),
        (name,) if failed else (),
    )
