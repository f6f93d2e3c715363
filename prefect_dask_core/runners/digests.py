"""Digests: what became of some children in a few numbers, for the pages.

Reports of blocks hold a state per child, and values and errors of the user's, which
the scheduler must not unpickle. So each report goes with a digest of plain numbers and
short texts, of a size that does not depend on the number of children.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.codes import COMPLETED, STATE_BY_CODE
from prefect_dask_core.engine.opening import open_feed
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import Filled, Whole
from prefect_dask_core.runners.redaction import message_of, short_text, traceback_of
from prefect_dask_core.states import Crashed, Failed

#: Failures that are told of one node in one report.
MOST_FAILURES: Final = 20
#: Children whose duration is looked at, of one node in one report.
MOST_SAMPLED: Final = 64
#: Waits that are told of one report.
MOST_WAITS: Final = 20
#: Parameters whose values are told of a failure.
MOST_ARGUMENTS: Final = 8

_ONE_COMPLETED: Final = ((COMPLETED, 1),)
_CODES: Final = range(len(STATE_BY_CODE))
#: Codes of what failed or crashed, or what its trigger refused because of that.
UNSUCCESSFUL: Final = frozenset(
    code for code in _CODES if issubclass(STATE_BY_CODE[code], Failed | Crashed)
)
#: The shortest duration that is told apart, as a power of two in seconds.
SHORTEST: Final = -20


class FailureText(NamedTuple):
    """One failure, as texts.

    Parameters
    ----------
    child : int
        Its index; 0 of a plain node.
    code : int
        Of its state.
    attempts : int
        How often it was tried.
    end : float
        When it ended, in seconds since the epoch.
    message, trace, arguments : str
        Short, without secrets. May be empty.
    """

    child: int
    code: int
    attempts: int
    end: float
    message: str
    trace: str
    arguments: str


class Digest(NamedTuple):
    """What became of consecutive children of one node.

    Parameters
    ----------
    node : int
        Its number in the plan.
    mapped : bool
        Whether it has children.
    start, stop : int
        The children; 0 and 1 of a plain node.
    counts : tuple of (int, int)
        Code of a state, and how many ended in it; none is 0.
    retried : int
        How many took more than one attempt.
    attempts : int
        Attempts beyond the first, of all together.
    begin, end : float
        First begin and last end, in seconds since the epoch.
    durations : tuple of (int, int)
        Power of two in seconds below which a duration stays, and how many children have
        such a one, judged by some of them.
    busy : float
        Seconds of all durations together, judged by the same.
    failures : tuple of FailureText
        The first ones.
    """

    node: int
    mapped: bool
    start: int
    stop: int
    counts: tuple[tuple[int, int], ...]
    retried: int
    attempts: int
    begin: float
    end: float
    durations: tuple[tuple[int, int], ...]
    busy: float
    failures: tuple[FailureText, ...] = ()

    @classmethod
    def of_completed(cls, node: int, begin: float, end: float) -> Digest:
        """Digest of a plain node that completed at its first attempt."""
        power = duration_power(end - begin)
        return cls(
            node,
            False,
            0,
            1,
            _ONE_COMPLETED,
            0,
            0,
            begin,
            end,
            ((power, 1),),
            end - begin,
        )


class PlainDigest(NamedTuple):
    """Digest of a plain node that completed at its first attempt, as most do.

    A tenth of what a `Digest` costs: several thousand of them may come in a second.

    Parameters
    ----------
    node : int
        Its number in the plan.
    begin, end : float
        Seconds since the epoch.
    """

    node: int
    begin: float
    end: float


class ReportDigest(NamedTuple):
    """What a report says, for the pages.

    Parameters
    ----------
    thread : int
        Thread of the worker.
    block : int
        Number of the block.
    waits : tuple of (float, float)
        When the block had nothing to do but wait, in seconds since the epoch.
    digests : tuple of Digest or PlainDigest
        One per node.
    """

    thread: int
    block: int
    waits: tuple[tuple[float, float], ...]
    digests: tuple[Digest | PlainDigest, ...]


def told(report: ReportDigest) -> tuple[Any, ...]:
    """A digest as plain tuples, which travel without pickling."""
    digests = [
        tuple(digest)
        if isinstance(digest, PlainDigest)
        else (*digest[:-1], [tuple(failure) for failure in digest.failures])
        for digest in report.digests
    ]
    return (*report[:-1], digests)


def read(message: Sequence[Any]) -> ReportDigest:
    """A digest that has travelled."""
    thread, block, waits, digests = message
    return ReportDigest(thread, block, waits, tuple(map(_read, digests)))


def _read(fields: Sequence[Any]) -> Digest | PlainDigest:
    if len(fields) == len(PlainDigest._fields):
        return PlainDigest(*fields)
    failures = tuple(FailureText(*one) for one in fields[-1])
    numbers: Any = fields[:-1]
    return Digest._make((*numbers, failures))


# -- making them -------------------------------------------------------------------


def digest_of(
    node: int,
    mapped: bool,
    segment: Segment,
    arguments_of: Callable[[int], str] | None = None,
) -> Digest:
    """Digest of a segment.

    Parameters
    ----------
    node : int
        Number of the node.
    mapped : bool
        Whether it has children.
    segment : Segment
        What became of them.
    arguments_of : callable, optional
        Gives the short text of a child's arguments by its index.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed
    >>> segment = Segment(10)
    >>> segment.open(2)
    >>> segment.put(0, Completed(data=1), 5.0, 5.5)
    >>> segment.put(1, Failed("no"), 5.5, 6.5, attempts=3)
    >>> digest = digest_of(0, True, segment)
    >>> digest.counts, digest.attempts, digest.begin, digest.end, digest.busy
    (((0, 1), (3, 1)), 2, 5.0, 6.5, 1.5)
    """
    counts = counts_of(segment.codes)
    durations, busy = _durations(segment)
    begin, end = _span(segment)
    failed = any(code in UNSUCCESSFUL for code, _ in counts)
    return Digest(
        node,
        mapped,
        segment.start,
        segment.stop,
        counts,
        sum(n > 1 for n in segment.attempts.values()),
        sum(n - 1 for n in segment.attempts.values() if n > 1),
        begin,
        end,
        durations,
        busy,
        tuple(_failures(segment, arguments_of)) if failed else (),
    )


def counts_of(codes: bytearray | bytes) -> tuple[tuple[int, int], ...]:
    """How many children ended in which state.

    Examples
    --------
    >>> counts_of(bytes([0, 0, 3]))
    ((0, 2), (3, 1))
    """
    left = len(codes)
    found = []
    for code in _CODES:
        count = codes.count(code)
        if count:
            found.append((code, count))
            left -= count
            if not left:
                break
    return tuple(found)


def _span(segment: Segment) -> tuple[float, float]:
    """First begin and last end; 0.0 where nothing ran."""
    begins: Iterable[float] = segment.begins
    begin = min(begins, default=0.0)
    if not begin:  # a child that was refused before it began
        begin = min(filter(None, segment.begins), default=0.0)
    return begin, max(segment.ends, default=0.0)


def _durations(segment: Segment) -> tuple[tuple[tuple[int, int], ...], float]:
    count = len(segment)
    stride = max(1, count // MOST_SAMPLED)
    found: dict[int, int] = {}
    busy = 0.0
    begins, ends = segment.begins, segment.ends
    for offset in range(0, count, stride):
        begin = begins[offset]
        if begin:
            weight = min(stride, count - offset)
            seconds = ends[offset] - begin
            power = duration_power(seconds)
            found[power] = found.get(power, 0) + weight
            busy += seconds * weight
    return tuple(sorted(found.items())), busy


def duration_power(seconds: float) -> int:
    """The power of two that a duration stays below.

    Examples
    --------
    >>> duration_power(0.3), duration_power(0.5), duration_power(0.0)
    (-1, 0, -20)
    """
    return max(SHORTEST, math.frexp(seconds)[1]) if seconds > 0 else SHORTEST


def _failures(
    segment: Segment, arguments_of: Callable[[int], str] | None
) -> Iterable[FailureText]:
    found = 0
    for offset in sorted(segment.details):
        code = segment.codes[offset]
        if code not in UNSUCCESSFUL:
            continue
        state = segment.details[offset]
        index = segment.start + offset
        error = state.data
        yield FailureText(
            index,
            code,
            segment.attempts_of(offset),
            segment.ends[offset],
            message_of(state.message),
            traceback_of(error) if isinstance(error, BaseException) else "",
            "" if arguments_of is None else arguments_of(index),
        )
        found += 1
        if found == MOST_FAILURES:
            return


def digests_of(
    block: Block, segments: Mapping[int, Segment], arguments: Sequence[Any]
) -> tuple[Digest | PlainDigest, ...]:
    """Digests of what a block reports, with the arguments of what failed.

    Parameters
    ----------
    block : Block
        What ran.
    segments : mapping of int to Segment
        What it reports, by node, with the data of its states.
    arguments : sequence
        What the block was called with.
    """
    found: list[Digest | PlainDigest] = []
    for step in block.steps:
        segment = segments.get(step.node)
        if segment is None:
            continue
        if _is_plain(step, segment):
            found.append(PlainDigest(step.node, segment.begins[0], segment.ends[0]))
            continue
        found.append(
            digest_of(
                step.node,
                step.mapped,
                segment,
                lambda index, step=step: _arguments(step, index, segments, arguments),  # type: ignore[misc]
            )
        )
    return tuple(found)


def _is_plain(step: Step, segment: Segment) -> bool:
    """Whether a segment is that of a plain node that completed at its first attempt."""
    return (
        not step.mapped
        and not segment.attempts
        and segment.codes[0] == COMPLETED
        and segment.begins[0] > 0.0
    )


def _arguments(
    step: Step, index: int, segments: Mapping[int, Segment], arguments: Sequence[Any]
) -> str:
    """Arguments of a run that failed, in a few words."""
    found: list[str] = []
    for item in step.inputs:
        if item.key is None:
            continue
        if len(found) == MOST_ARGUMENTS:
            found.append("…")
            break
        if isinstance(item.source, Filled) or (
            isinstance(item.source, Whole) and item.source.fanout
        ):
            text = f"<from {item.name}>"  # to put it together may take long
        else:
            try:
                feed = open_feed(item, arguments, segments, step.mapped)
                text = short_text(item.key, feed.value(index))
            except Exception:
                text = f"<from {item.name}>"  # a lane has let go of it, or it is lost
        found.append(f"{item.key}={text}")
    return ", ".join(found)
