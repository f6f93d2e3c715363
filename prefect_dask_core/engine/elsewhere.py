"""Elsewhere: values of children that are fetched, or unpickled, when somebody looks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from prefect_dask_core.states import DataReference


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
        return self._load()[offset]

    def __setitem__(self, offset: int, value: Any) -> None:
        """Put a value that says the same in place of one; it does not travel."""
        self._load()[offset] = value

    def _load(self) -> list[Any]:
        if self._values is None:
            self._values = pickle.loads(self.blob)
        return self._values


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

    def __setitem__(self, offset: int, value: Any) -> None:
        """Put a value that says the same in place of one."""
        fetched = self.load()
        if not isinstance(fetched, list):
            fetched = self._values = list(fetched)
        fetched[offset] = value

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever pickles a state means its value.
        return list, (self.load(),)


class ElsewhereItem(DataReference):
    """Value of one child of an `Elsewhere`."""

    __slots__ = ("offset", "values")

    def __init__(self, values: Elsewhere, offset: int) -> None:
        self.values = values
        self.offset = offset

    def load(self) -> Any:
        """Fetch the value of the child."""
        return self.values.load()[self.offset]
