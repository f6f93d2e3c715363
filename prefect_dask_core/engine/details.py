"""Details: the states of the children that did not simply complete, while nobody looks.

One failure is an exception with its traceback, 3 kB of Python objects. Of a hundred
thousand children that fail all but a few are never looked at, and those of one block
resemble each other: as compressed bytes each takes 50 to 100 bytes.
"""

from __future__ import annotations

import pickle
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Final

import cloudpickle

from prefect_dask_core.states import State

#: Bytes from which compressing pays.
WORTH_COMPRESSING: Final = 1_000
#: The fastest: what failures share is found by any.
_LEVEL: Final = 1


class _Blob:
    """The states of a segment as bytes, shared by its parts.

    Notes
    -----
    A part that travels takes them all along: exceptions that were unpickled once may be
    larger than the bytes of all, and some could not be pickled again.

    Parameters
    ----------
    data : bytes
        A pickled list of the states, compressed where that pays.
    """

    __slots__ = ("_states", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._states: list[State] | None = None

    def load(self, keep: bool) -> list[State]:
        """The states; kept for who asks next, if so many are asked for one by one."""
        if self._states is not None:
            return self._states
        packed = self.data[:1] != _PICKLE
        states: list[State] = pickle.loads(
            zlib.decompress(self.data) if packed else self.data
        )
        if keep:
            self._states = states
        return states


class PackedDetails(Mapping[int, State]):
    """States by offset, unpickled when somebody looks.

    Which offsets there are is known without that. Whoever goes through all of them
    leaves nothing behind; single ones and parts are kept, as who asks for one asks for
    others.

    Parameters
    ----------
    offsets : array of int
        The offsets, in order.
    blob : bytes
        From `packed_details`.
    first : int, optional
        Position of the first of them among the states of the blob, which a part shares
        with others; `None` if they are all.

    Examples
    --------
    >>> from prefect_dask_core.states import Failed
    >>> details = packed_details({3: Failed("no"), 1: Failed("not at all")})
    >>> list(details), details[3], details.get(2)
    ([1, 3], Failed('no'), None)
    >>> details.part(2, 5)[1]
    Failed('no')
    """

    __slots__ = ("_blob", "_first", "_offsets")

    def __init__(
        self, offsets: array[int], blob: bytes | _Blob, first: int | None = None
    ) -> None:
        self._offsets = offsets
        self._blob = _Blob(blob) if isinstance(blob, bytes) else blob
        self._first = first

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[int]:
        return iter(self._offsets)

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and self._position(offset) is not None

    def _position(self, offset: int) -> int | None:
        position = bisect_left(self._offsets, offset)
        if position < len(self._offsets) and self._offsets[position] == offset:
            return position
        return None

    def __getitem__(self, offset: int) -> State:
        position = self._position(offset)
        if position is None:
            raise KeyError(offset)
        return self._blob.load(keep=True)[(self._first or 0) + position]

    def part(self, start: int, stop: int) -> PackedDetails:
        """Those from one offset to another, counted from there; they stay packed.

        Parameters
        ----------
        start, stop : int
            The first offset, and the one after the last.
        """
        first = bisect_left(self._offsets, start)
        last = bisect_left(self._offsets, stop, first)
        offsets = array("I", (offset - start for offset in self._offsets[first:last]))
        blob = self._blob if offsets else b""
        return PackedDetails(offsets, blob, (self._first or 0) + first)

    def items(self) -> Any:
        """The pairs of offset and state, in order."""
        return dict(zip(self._offsets, self.values(), strict=True)).items()

    def values(self) -> Any:
        """The states, in order."""
        if not self._offsets:
            return []
        states = self._blob.load(keep=self._first is not None)
        first = self._first or 0
        return states[first : first + len(self._offsets)]

    def __sizeof__(self) -> int:
        return 100 + len(self._blob.data) + 4 * len(self._offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self._offsets.tobytes(), self._blob.data, self._first)


#: What a pickle begins with, and nothing that is compressed.
_PICKLE: Final = pickle.PROTO


def packed_details(states: Mapping[int, Any]) -> PackedDetails:
    """Pack the states of some children.

    Parameters
    ----------
    states : mapping of int to State
        By offset: states, or what unpickles as one.

    Raises
    ------
    Exception
        Whatever pickling a state raises.
    """
    offsets = array("I", sorted(states))
    found = [states[offset] for offset in offsets]
    try:
        blob = pickle.dumps(found, protocol=5)
    except Exception:  # a class of states that lives in a script
        blob = bytes(cloudpickle.dumps(found, protocol=5))
    if len(blob) >= WORTH_COMPRESSING:
        blob = zlib.compress(blob, _LEVEL)
    return PackedDetails(offsets, blob)


def _unpacked(offsets: bytes, blob: bytes, first: int | None) -> PackedDetails:
    found = array("I")
    found.frombytes(offsets)
    return PackedDetails(found, blob, first)
