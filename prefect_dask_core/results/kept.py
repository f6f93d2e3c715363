"""Kept: where the values of many runs are, in little room.

The key of a run itself is worked out from its index, so nothing is held for it; keys
that a policy gave are held side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefect_dask_core.errors import MissingResult
from prefect_dask_core.results.keeping import staged_key
from prefect_dask_core.results.places import own_name
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.states import DataReference


class KeptValues:
    """Where the values of consecutive runs of a node are.

    Parameters
    ----------
    store : ResultStore
        The store.
    prefix : str
        Where the own keys of the runs begin.
    start : int or None
        Index of the first run; `None` for a plain node.
    staged_in : str, optional
        Transaction whose commit the values wait for.

    Examples
    --------
    >>> kept = KeptValues(ResultStore("/tmp/results"), "runs/07/load/", 5)
    >>> kept.note(0, None)
    >>> kept.note(2, "0123456789abcdef0123456789abcdef")
    >>> kept.key(0), kept.key(1), kept.key(2)
    ('runs/07/load/5', None, '0123456789abcdef0123456789abcdef')
    """

    __slots__ = ("_own", "_packed", "_shared", "prefix", "staged_in", "start", "store")

    def __init__(
        self,
        store: ResultStore,
        prefix: str,
        start: int | None,
        staged_in: str | None = None,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.start = start
        self.staged_in = staged_in
        #: One byte per run: whether it is kept under its own key.
        self._own = bytearray()
        self._shared: dict[int, str] = {}
        #: Offsets and keys as they came, unpacked when somebody looks.
        self._packed: tuple[_Offsets, str] | None = None

    @property
    def _keys(self) -> dict[int, str]:
        """Keys that are not of the runs themselves, by offset."""
        if self._packed is not None:
            offsets, keys = self._packed
            numbers = range(*offsets) if isinstance(offsets, tuple) else offsets
            self._shared = dict(zip(numbers, keys.split("\n"), strict=True))
            self._packed = None
        return self._shared

    def note(self, offset: int, key: str | None) -> None:
        """Note that the value of a run is kept; `None`: under its own key."""
        if key is None or key == self.prefix + self._name(offset):
            if len(self._own) <= offset:
                self._own.extend(bytes(offset + 1 - len(self._own)))
            self._own[offset] = 1
        else:
            self._keys[offset] = key

    def _name(self, offset: int) -> str:
        return own_name(None if self.start is None else self.start + offset)

    def key(self, offset: int) -> str | None:
        """Key of the value of a run; `None` if it is not kept."""
        found = self._keys.get(offset)
        if found is None and offset < len(self._own) and self._own[offset]:
            found = self.prefix + self._name(offset)
        return found

    def load(self, offset: int) -> Any:
        """Read the value of a run from the store.

        Raises
        ------
        MissingResult
            If it is not there any more.
        """
        key = self.key(offset)
        if key is None:
            raise MissingResult(f"run {offset} below {self.prefix} is not kept")
        try:
            return self.store.read(key).value
        except MissingResult:
            if self.staged_in is None:
                raise
            own = self.prefix + self._name(offset)
            return self.store.read(staged_key(self.staged_in, own)).value

    def part(self, start: int, stop: int) -> KeptValues:
        """What is known of the runs from one offset to another."""
        first = None if self.start is None else self.start + start
        part = KeptValues(self.store, self.prefix, first, self.staged_in)
        part._own = self._own[start:stop]
        part._shared = {
            n - start: k for n, k in self._keys.items() if start <= n < stop
        }
        return part

    def offsets(self) -> Iterator[int]:
        """Offsets of the runs that are kept."""
        own = (n for n, flag in enumerate(self._own) if flag)
        yield from sorted({*own, *self._keys})

    def item(self, offset: int) -> KeptItem | None:
        """Reference to the value of a run; `None` if it is not kept."""
        return None if self.key(offset) is None else KeptItem(self, offset)

    def __reduce__(self) -> tuple[Any, ...]:
        packed = self._packed
        if packed is None and self._shared:
            keys = "\n".join(self._shared.values())
            packed = _range_of(list(self._shared)), keys
        return _unpacked, (
            self.store,
            self.prefix,
            self.start,
            self.staged_in,
            bytes(self._own),
            packed,
        )


#: Ascending numbers, as a range if they are one.
_Offsets = tuple[int, int] | list[int]


def _range_of(offsets: list[int]) -> _Offsets:
    if offsets == list(range(offsets[0], offsets[0] + len(offsets))):
        return offsets[0], offsets[0] + len(offsets)
    return offsets


def _unpacked(
    store: ResultStore,
    prefix: str,
    start: int | None,
    staged_in: str | None,
    own: bytes,
    packed: tuple[_Offsets, str] | None,
) -> KeptValues:
    kept = KeptValues(store, prefix, start, staged_in)
    kept._own = bytearray(own)
    kept._packed = packed
    return kept


class StoredValues:
    """Values of consecutive runs that are read from the store when they are wanted.

    Parameters
    ----------
    kept : KeptValues
        Where they are.
    count : int
        Number of runs.
    held : dict of int to object, optional
        Values that are not in the store, by offset.
    """

    __slots__ = ("_count", "_held", "kept")

    def __init__(
        self, kept: KeptValues, count: int, held: dict[int, Any] | None = None
    ) -> None:
        self.kept = kept
        self._count = count
        self._held: dict[int, Any] = {} if held is None else held

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, offset: int) -> Any:
        if offset in self._held:
            return self._held[offset]
        if self.kept.key(offset) is None:
            return None
        return self.kept.load(offset)

    def __setitem__(self, offset: int, value: Any) -> None:
        self._held[offset] = value

    def __delitem__(self, cut: slice) -> None:
        """Forget all from an offset on."""
        self._count = min(self._count, cut.start)
        for offset in [n for n in self._held if n >= cut.start]:
            del self._held[offset]

    def __iter__(self) -> Iterator[Any]:
        for offset in range(self._count):
            yield self[offset]

    def let_go(self, offset: int) -> None:
        """Forget a value that is in the store now."""
        self._held.pop(offset, None)

    def part(self, kept: KeptValues, start: int, stop: int) -> StoredValues:
        """The values from one offset to another."""
        held = {n - start: v for n, v in self._held.items() if start <= n < stop}
        return StoredValues(kept, stop - start, held)

    def held(self) -> list[Any]:
        """Values that are in memory."""
        return list(self._held.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredValues, (self.kept, self._count, self._held)


class KeptItem(DataReference):
    """The value of one run that is kept in a store."""

    __slots__ = ("kept", "offset")

    def __init__(self, kept: KeptValues, offset: int) -> None:
        self.kept = kept
        self.offset = offset

    def load(self) -> Any:
        """Read the value from the store."""
        return self.kept.load(self.offset)

    def as_kept(self) -> KeptValues:
        """The place of this value alone."""
        return self.kept.part(self.offset, self.offset + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeptItem) and (
            self.kept.store == other.kept.store
            and self.kept.key(self.offset) == other.kept.key(other.offset)
        )

    def __hash__(self) -> int:
        return hash(self.kept.key(self.offset))

    def __repr__(self) -> str:
        return f"<{self.kept.key(self.offset)} in {self.kept.store.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptItem, (self.as_kept(), 0)


class StoredValue(DataReference):
    """A value that is kept in a store under a key.

    Parameters
    ----------
    store : ResultStore
        The store.
    key : str
        The key.
    """

    __slots__ = ("key", "store")

    def __init__(self, store: ResultStore, key: str) -> None:
        self.store = store
        self.key = key

    def load(self) -> Any:
        """Read the value from the store."""
        return self.store.read(self.key).value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredValue) and (
            (self.store, self.key) == (other.store, other.key)
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<{self.key} in {self.store.url}>"
