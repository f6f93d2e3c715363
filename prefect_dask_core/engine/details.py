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


class PackedDetails(Mapping[int, State]):
    """States by offset, unpickled when somebody looks.

    Which offsets there are is known without that. Whoever goes through all of them
    leaves nothing behind; single ones are kept, as who asks for one asks for others.

    Parameters
    ----------
    offsets : array of int
        The offsets, in order.
    blob : bytes
        From `packed_details`.

    Examples
    --------
    >>> from prefect_dask_core.states import Failed
    >>> details = packed_details({3: Failed("no"), 1: Failed("not at all")})
    >>> list(details), details[3], details.get(2)
    ([1, 3], Failed('no'), None)
    """

    __slots__ = ("_blob", "_offsets", "_states")

    def __init__(self, offsets: array[int], blob: bytes) -> None:
        self._offsets = offsets
        self._blob = blob
        self._states: dict[int, State] | None = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[int]:
        return iter(self._offsets)

    def __contains__(self, offset: object) -> bool:
        if not isinstance(offset, int):
            return False
        position = bisect_left(self._offsets, offset)
        return position < len(self._offsets) and self._offsets[position] == offset

    def __getitem__(self, offset: int) -> State:
        if offset not in self:
            raise KeyError(offset)
        if self._states is None:
            self._states = self._load()
        return self._states[offset]

    def items(self) -> Any:
        """The pairs of offset and state, in order."""
        return (self._load() if self._states is None else self._states).items()

    def values(self) -> Any:
        """The states, in order."""
        return (self._load() if self._states is None else self._states).values()

    def _load(self) -> dict[int, State]:
        states = pickle.loads(
            self._blob if self._blob[:1] == _PICKLE else zlib.decompress(self._blob)
        )
        return dict(zip(self._offsets, states, strict=True))

    def __sizeof__(self) -> int:
        return 100 + len(self._blob) + 4 * len(self._offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self._offsets.tobytes(), self._blob)


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


def _unpacked(offsets: bytes, blob: bytes) -> PackedDetails:
    found = array("I")
    found.frombytes(offsets)
    return PackedDetails(found, blob)
