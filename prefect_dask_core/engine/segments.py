"""Segments: the states of consecutive children of a node in a few arrays.

A plain node is a segment of one. States are made of the columns only when somebody
looks.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from prefect_dask_core.engine.codes import (
    CACHED,
    CODE_BY_STATE,
    COMPLETED,
    STATE_BY_CODE,
    SUCCESSFUL,
    USUAL_ATTEMPTS,
    code_of,
)
from prefect_dask_core.engine.details import PackedDetails
from prefect_dask_core.engine.elsewhere import Elsewhere, ElsewhereItem
from prefect_dask_core.errors import UnfinishedRun
from prefect_dask_core.moments import Moments, pack_moments, unpack_moments
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.states import (
    NO_DATA,
    Cached,
    Completed,
    Missing,
    Pending,
    RunFacts,
    State,
)

#: Begins and ends of the waits of one run, in seconds since the epoch.
Waits: TypeAlias = tuple[tuple[float, float], ...]
_ONE_COMPLETED: Final = bytes([COMPLETED])

#: Message of a run whose value was in the store.
FROM_STORE: Final = "taken from the store."

#: What stands for the value of a child whose value is elsewhere.
NOT_KEPT = (
    "the value was used on its worker and not kept; to have it afterwards, name the "
    "task in flow.run(return_tasks=[...]), or hold or return its future where the flow "
    "is a function. A run that is resumed by its id has the values that were stored: "
    "those of tasks with persist_result=True."
)


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
        "element_ends",
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
        #: What `flattening.element_ends` has counted; it does not travel.
        self.element_ends: array[int] | None = None

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
        self.element_ends = None
        self.codes = bytearray(bytes([CODE_BY_STATE[Pending]]) * count)
        self.begins = array("d", bytes(8 * count))
        self.ends = array("d", bytes(8 * count))
        self.values = [None] * count

    def has_all_completed(self) -> bool:
        """Whether all children simply completed."""
        return self.codes.count(COMPLETED) == len(self.codes)

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
        self.element_ends = None  # what was counted is not there any more
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
        if code in SUCCESSFUL:
            self.values[offset] = None if state.data is NO_DATA else state.data
            if not plain or state.name != STATE_BY_CODE[code].__name__:
                details[offset] = state.replace(data=NO_DATA)
        else:
            details[offset] = state

    def cut(self, count: int) -> None:
        """Forget all but the first `count` children."""
        self.element_ends = None
        del self.codes[count:], self.begins[count:], self.ends[count:]
        del self.values[count:]

    def part(self, start: int, stop: int) -> Segment:
        """The children from one offset to another, as a segment of their own."""
        part = Segment(self.start + start)
        part.codes = self.codes[start:stop]
        part.begins, part.ends = self.begins[start:stop], self.ends[start:stop]
        inside = range(start, stop)
        part.attempts = {n - start: v for n, v in self.attempts.items() if n in inside}
        details = self.details
        if isinstance(details, PackedDetails):
            part.details = details.part(start, stop)
        else:
            part.details = {n - start: v for n, v in details.items() if n in inside}
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
        >>> from prefect_dask_core.states import Failed
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
        if not attempts and self.codes[offset] != CACHED:
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
        if code not in SUCCESSFUL:
            return STATE_BY_CODE[code]() if detail is None else detail.replace()
        data = self._data(offset)
        if detail is not None:
            return detail.replace(data=data)
        if code == CACHED:
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
                return ElsewhereItem(values, offset)
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
        if self.codes[offset] in SUCCESSFUL:
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
    segment.element_ends = None
    return segment


def is_success(segment: Segment, offset: int = 0) -> bool:
    """Whether a node or child succeeded and was not skipped, so has a value."""
    if segment.codes[offset] == COMPLETED:
        return True
    state = segment.state(offset)
    return state.is_successful() and not state.is_skipped()
