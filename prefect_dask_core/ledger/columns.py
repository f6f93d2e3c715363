"""Columns: how the runs of a batch lie in the ledger, some two bytes each.

A batch is one blob: compressed JSON that says which runs it holds, then codes of
states, begins and ends, the short spans together, each long one by itself. Nothing in
it is pickled, so reading one runs no code.
"""

from __future__ import annotations

import io
import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from prefect_dask_core.errors import LedgerError
from prefect_dask_core.moments import (
    WIDTH,
    Moments,
    pack_moments,
    unpack_moments,
)

#: Start of the span of a plain node, which has no children.
PLAIN: Final = -1
#: Higher levels take up to eight times as long for 3 % less.
_LEVEL: Final = 1
#: How a blob begins; the former one began as compressed data do.
_FORMAT: Final = b"\x02"
#: Runs from which a span is a long one; part of the format.
_LONG: Final = 16
#: Bytes of the length of the JSON.
_SIZE: Final = 4
#: What a group says of its codes, begins or ends: all of them follow; only the first
#: begin. Else the code that all have, or the bytes of moments that are not alike.
_ALL, _FIRST = -1, -2


class Kept(NamedTuple):
    """Where the values of the runs of a span are stored.

    Parameters
    ----------
    place : str
        URL of the store.
    prefix : str
        Where the own keys of the runs begin; the index follows.
    keys : sequence of str
        One per run: its key, ``"."`` where that is its own, ``""`` where it is not
        stored.
    """

    place: str
    prefix: str
    keys: Sequence[str]


class Span(NamedTuple):
    """What is known of consecutive children of one node, or of a plain node.

    Parameters
    ----------
    node : int
        Number of the node in its attempt.
    start : int
        Index of the first child; `PLAIN` for a plain node.
    states : sequence of str or bytes
        One per child: the name of its state's class, or while it is written, a code.
    begins, ends : array of float
        Seconds since the epoch, one per child; 0 of what never began.
    attempts : mapping of int to int
        Attempts made, by offset, where they are not those of `usual_attempts`.
    worker : str or None
        Address of the worker that ran them, where it is known.
    kept : Kept or None
        Where their values are stored, if they are.
    waits : mapping of int to sequence of (float, float)
        By offset, when each wait for a further attempt began and ended.
    """

    node: int
    start: int
    states: Sequence[str] | bytes
    begins: array[float]
    ends: array[float]
    attempts: Mapping[int, int]
    worker: str | None = None
    kept: Kept | None = None
    waits: Mapping[int, Sequence[tuple[float, float]]] = {}

    @property
    def is_plain(self) -> bool:
        """Whether it is of a plain node."""
        return self.start == PLAIN


def encode(spans: Sequence[Span], names: Sequence[str]) -> bytes:
    """Blob of a batch.

    Parameters
    ----------
    spans : sequence of Span
        Whose states are codes, as bytes.
    names : sequence of str
        Names of state classes, by code. They are written, so that a ledger outlives
        any order of codes.

    Examples
    --------
    >>> times = array("d", [1.0, 2.0])
    >>> span = Span(3, 0, bytes([0, 1]), times, times, {1: 2}, "tcp://a:1")
    >>> decode(encode([span], ["Completed", "Failed"]))[0].states
    ('Completed', 'Failed')
    """
    workers = {span.worker: None for span in spans}
    position = {worker: number for number, worker in enumerate(workers)}
    header = {
        "names": list(names),
        "workers": list(workers),
        "kept": [
            [number, s.kept.place, s.kept.prefix, "\n".join(s.kept.keys)]
            for number, s in enumerate(spans)
            if s.kept is not None
        ],
        "waits": [
            [number, offset, *(moment for wait in waits for moment in wait)]
            for number, s in enumerate(spans)
            for offset, waits in s.waits.items()
        ],
        "spans": [
            (
                span.node,
                span.start,
                len(span.states),
                position[span.worker],
                *(v for pair in span.attempts.items() for v in pair),
            )
            for span in spans
        ],
    }
    few = [span for span in spans if 0 < len(span.states) < _LONG]
    many = [[span] for span in spans if len(span.states) >= _LONG]
    parts: list[bytes] = []
    header["groups"] = [_write(group, parts) for group in ([few] if few else []) + many]
    text = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), _LEVEL)
    return b"".join((_FORMAT, len(text).to_bytes(_SIZE, "big"), text, *parts))


def decode(blob: bytes) -> list[Span]:
    """Spans of a batch, their states as names.

    Raises
    ------
    LedgerError
        If they were written in another form.
    """
    if not blob.startswith(_FORMAT):
        raise LedgerError(
            "the ledger was written by a draft of prefect_dask_core whose columns this "
            "version cannot read; use another ledger."
        )
    stream = io.BytesIO(blob[len(_FORMAT) :])
    size = int.from_bytes(stream.read(_SIZE), "big")
    header: dict[str, Any] = json.loads(zlib.decompress(stream.read(size)))
    counts = [found[2] for found in header["spans"]]
    few = sum(count for count in counts if count < _LONG)
    sizes = ([few] if few else []) + [n for n in counts if n >= _LONG]
    groups = [
        _read(count, layout, stream)
        for count, layout in zip(sizes, header["groups"], strict=True)
    ]
    together = groups.pop(0) if few else _Group(b"", array("d"), array("d"))
    alone = iter(groups)
    names, workers = header["names"], header["workers"]
    kept = {
        number: Kept(place, prefix, tuple(keys.split("\n")))
        for number, place, prefix, keys in header["kept"]
    }
    waits: dict[int, dict[int, tuple[tuple[float, float], ...]]] = {}
    for number, offset, *moments in header["waits"]:
        pairs = tuple(zip(moments[::2], moments[1::2], strict=True))
        waits.setdefault(number, {})[offset] = pairs
    spans = []
    at = 0
    for number, (node, start, length, worker, *attempts) in enumerate(header["spans"]):
        if length < _LONG:
            found = together.part(at, at + length)
            at += length
        else:
            found = next(alone)
        spans.append(
            Span(
                node,
                start,
                tuple([names[code] for code in found.codes]),
                found.begins,
                found.ends,
                dict(zip(attempts[::2], attempts[1::2], strict=True)),
                workers[worker],
                kept.get(number),
                waits.get(number, {}),
            )
        )
    return spans


class _Group(NamedTuple):
    """Spans whose columns lie together."""

    codes: bytes
    begins: array[float]
    ends: array[float]

    def part(self, start: int, stop: int) -> _Group:
        """One of the spans."""
        part = slice(start, stop)
        return _Group(self.codes[part], self.begins[part], self.ends[part])


def _write(spans: Sequence[Span], parts: list[bytes]) -> list[int]:
    """Add the columns of spans to the parts of a blob; what is to be known of them."""
    codes = b"".join([bytes(s.states) for s in spans])  # type: ignore[arg-type]
    layout = [codes[0] if codes == codes[:1] * len(codes) else _ALL]
    if layout == [_ALL]:
        parts.append(codes)
    begins = b"".join([_little(span.begins) for span in spans])
    ends = b"".join([_little(span.ends) for span in spans])
    for moments in pack_moments(begins, ends):
        if isinstance(moments, bytes):
            layout.append(_ALL if len(moments) == len(begins) else _FIRST)
            parts.append(moments)
        else:
            layout.append(sum(1 << n for n, p in enumerate(moments) if len(p) > 1))
            parts.extend(moments)
    return layout


def _read(count: int, layout: Sequence[int], stream: io.BytesIO) -> _Group:
    """The columns of so many children."""
    code, *both = layout
    codes = stream.read(count) if code == _ALL else bytes([code]) * count
    moments: list[Moments] = []
    for varying in both:
        if varying in (_ALL, _FIRST):
            moments.append(stream.read(WIDTH * (count if varying == _ALL else 1)))
        else:
            sizes = (count if varying >> n & 1 else 1 for n in range(WIDTH))
            moments.append(tuple([stream.read(size) for size in sizes]))
    begins, ends = unpack_moments(count, *moments)
    return _Group(codes, _native(begins), _native(ends))


def ranges_of(indexes: Iterable[int]) -> str:
    """Indexes as text.

    Examples
    --------
    >>> ranges_of([9, 3, 4, 5])
    '3-5,9'
    """
    found: list[list[int]] = []
    for index in sorted(indexes):
        if found and found[-1][1] == index - 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def indexes_in(ranges: str) -> list[int]:
    """Indexes that `ranges_of` wrote.

    Examples
    --------
    >>> indexes_in("3-5,9")
    [3, 4, 5, 9]
    """
    found: list[int] = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _little(times: array[float]) -> bytes:
    if sys.byteorder == "big":
        times = array("d", times)
        times.byteswap()
    return times.tobytes()


def _native(raw: bytes) -> array[float]:
    times = array("d", raw)
    if sys.byteorder == "big":
        times.byteswap()
    return times
