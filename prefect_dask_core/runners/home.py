"""Homecoming: which values travel to the client, and how they are found later."""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final, NamedTuple

import cloudpickle
from dask.sizeof import sizeof

from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.block_results import BlockResult, PlainValue
from prefect_dask_core.engine.details import packed_details
from prefect_dask_core.engine.elsewhere import Packed
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.results.kept import StoredValues
from prefect_dask_core.runners.travelling import portable
from prefect_dask_core.states import Failed, State


@sizeof.register(BlockResult)
def sizeof_block_result(result: BlockResult) -> int:
    """Bytes of a block's result, as Dask's memory management has to see them."""
    size = 200
    for segment in result.segments.values():
        size += 200 + 17 * len(segment)
        if segment.values is not None:
            size += sizeof(segment.values)
        if isinstance(segment.details, dict):
            size += sizeof(list(segment.details.values()))
        else:
            size += sys.getsizeof(segment.details)
    for items in result.items.values():
        size += sizeof(items)
    return size + _sizeof_flat(result)


@sizeof.register(PlainValue)
def sizeof_plain_value(result: PlainValue) -> int:
    """Bytes of a plain node's value."""
    return int(sizeof(result.value)) + _sizeof_flat(result)


def _sizeof_flat(result: BlockResult | PlainValue) -> int:
    """Bytes of the lists that were made of values for those who read them flattened."""
    return sum(int(sizeof(items)) for items in (result.flat_items or {}).values())


@sizeof.register(StoredValues)
def sizeof_stored_values(values: StoredValues) -> int:
    """Bytes of those values that are in memory, and not only in a store."""
    return int(100 + sizeof(values.held()))


@sizeof.register(State)
def sizeof_state(state: State) -> int:
    """Bytes of a state, with its data."""
    return int(200 + sizeof(state.data) + sizeof(state.message))


#: Bytes of a child's value that come home however many are in its block. How many
#: these are depends on how long they take, and whether a number can be read must not.
OF_A_CHILD: Final = 100


def room_for(children: int, limit: int) -> int:
    """Bytes of values that the report of some children may bring home.

    Parameters
    ----------
    children : int
        How many they are.
    limit : int
        Bytes that come home in any case.

    Examples
    --------
    >>> room_for(1, 65_536), room_for(20_000, 65_536), room_for(20_000, 0)
    (65536, 2000000, 0)
    """
    return max(limit, children * min(limit, OF_A_CHILD))


def small_enough(values: Any, limit: int) -> bool:
    """Whether values may come home unasked."""
    return bool(sizeof(values) <= limit)


def make_portable(segment: Segment) -> None:
    """Pack what is known of unsuccessful runs: so it travels, and stays here."""
    if isinstance(segment.details, dict) and segment.details:
        found = {n: portable(state) for n, state in segment.details.items()}
        segment.details = packed_details(found)


def refuse_unpicklable(segment: Segment, name: str, limit: int) -> bool:
    """Fail the children whose small values cannot be pickled, so cannot be read.

    Dask would try to send such a value again and again. Large values are taken on
    trust: to pickle each of them once more would cost what it is meant to spare.

    Returns
    -------
    bool
        Whether a child has failed: what was counted of the segment then has to be
        counted anew.
    """
    if isinstance(segment.values, StoredValues):
        return False  # what is stored was made bytes of
    if not small_enough(segment.values, room_for(len(segment), limit)):
        return False
    for dumps in (pickle.dumps, cloudpickle.dumps):  # the fast one first
        try:
            dumps(segment.values)
            return False
        except Exception:
            continue  # one of the values is to blame; which one is found below
    refused = False
    for offset, value in enumerate(segment.values):
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            message = (
                f"the value of {name} cannot be pickled ({type(error).__name__}: "
                f"{error}), so no other worker can read it; return something that can "
                "travel, and open connections, files and locks where they are used."
            )
            segment.values[offset] = None
            failed = Failed(message, data=TypeError(message))
            begin, end = segment.begins[offset], segment.ends[offset]
            attempts = segment.attempts_of(offset)
            waits = (segment.waits or {}).get(offset, ())
            ended = failed.replace(timestamp=end)
            segment.put(offset, ended, begin, end, attempts, waits)
            refused = True
    return refused


class PlainReport(NamedTuple):
    """Report of a plain node that completed, as small as it can be.

    Parameters
    ----------
    number, node : int
        The block, and its node.
    begin, end : float
        Seconds since the epoch.
    length, flat_length : int or None
        As of a `Segment`.
    blob : bytes or None
        A pickled list of the value; `None` if it stays where it is.
    """

    number: int
    node: int
    begin: float
    end: float
    length: int | None
    flat_length: int | None
    blob: bytes | None

    def full(self, worker: str | None = None) -> BlockReport:
        """The report, as every other block's is."""
        segment = Segment.of_value(None, self.begin, self.end)
        segment.worker = worker
        segment.length, segment.flat_length = self.length, self.flat_length
        segment.values = None if self.blob is None else Packed(self.blob)
        return BlockReport(self.number, {self.node: segment}, 1, self.end - self.begin)


def plain_report(report: BlockReport, limit: int) -> PlainReport | None:
    """Report of a block of one plain node; `None` if it has to be told in full."""
    (node, segment), *others = report.segments.items()
    if others or segment.details or segment.attempts or segment.values is None:
        return None
    if segment.kept is not None:
        return None
    blob = None
    if small_enough(segment.values[0], limit):
        try:
            blob = pickle.dumps(segment.values, protocol=5)
        except Exception:
            return None
        if b"__main__" in blob:
            return None
        if len(blob) > limit:
            blob = None
    return PlainReport(
        report.number,
        node,
        segment.begins[0],
        segment.ends[0],
        segment.length,
        segment.flat_length,
        blob,
    )


def pack_report(report: BlockReport, limit: int) -> bytes:
    """A report as bytes, with the values that are small enough to come along."""
    segments = {
        node: _packed(segment, limit) for node, segment in report.segments.items()
    }
    packed = report._replace(segments=segments)
    try:
        return pickle.dumps(packed, protocol=5)
    except Exception:  # an exception of a class that lives in a script
        return bytes(cloudpickle.dumps(packed))


def _packed(segment: Segment, limit: int) -> Segment:
    copy = segment.without_values()
    make_portable(copy)
    limit = room_for(len(segment), limit)
    if segment.values is None or not small_enough(segment.values, limit):
        return copy
    if isinstance(segment.values, StoredValues):
        copy.values = segment.values
        return copy
    try:
        blob = pickle.dumps(segment.values, protocol=5)
        if b"__main__" in blob:
            blob = bytes(cloudpickle.dumps(segment.values))
    except Exception:
        try:
            blob = bytes(cloudpickle.dumps(segment.values))
        except Exception:
            return copy  # it stays where it is; whoever asks for it is told why
    if len(blob) <= limit:
        copy.values = Packed(blob)
    return copy


def trim(report: BlockReport, wanted: frozenset[int], limit: int) -> BlockReport:
    """A report whose large values nobody wants are left out.

    For runners that share memory with the caller: nothing is pickled.
    """
    segments = {
        node: segment
        if node in wanted or small_enough(segment.values, room_for(len(segment), limit))
        else segment.without_values()
        for node, segment in report.segments.items()
    }
    return report._replace(segments=segments)
