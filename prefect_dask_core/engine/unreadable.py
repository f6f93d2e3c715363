"""Unreadable: what was pickled here, and cannot be unpickled on a worker."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from prefect_dask_core.errors import InputError


class UnreadableItem(InputError):
    """What a child is mapped over cannot be unpickled on its worker."""


class PackedApart:
    """Items of the children of a block as bytes, each by itself.

    All in one take less room and time, so it is the form of those of which one could
    not be unpickled: here it spoils no other.

    Parameters
    ----------
    task : str
        The task that is mapped over them.
    blobs : sequence of bytes
        One pickled item per child.
    """

    __slots__ = ("_blobs", "_task")

    def __init__(self, task: str, blobs: Sequence[bytes]) -> None:
        self._task = task
        self._blobs = blobs

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedApart, (self._task, self._blobs)

    def __getitem__(self, offset: int) -> Any:
        """The item of a child.

        Raises
        ------
        UnreadableItem
            If it cannot be unpickled.
        """
        try:
            return pickle.loads(self._blobs[offset])
        except Exception as error:
            raise UnreadableItem(
                f"what task {self._task!r} is mapped over cannot be unpickled on its "
                f"worker: {type(error).__name__}: {error}. {how_to_mend(error)}"
            ) from error


def how_to_mend(error: Exception) -> str:
    """What lets a worker unpickle what it could not unpickle.

    Examples
    --------
    >>> how_to_mend(ModuleNotFoundError("no module", name="prices"))[:44]
    "It has no module 'prices': install it there,"
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"It has no module {error.name!r}: install it there, put its folder on the "
            "PYTHONPATH of the workers, send it with client.upload_file(...), or let "
            "it travel by value with "
            f"cloudpickle.register_pickle_by_value({error.name})."
        )
    return (
        "The packages and their versions have to be the same on the client, the "
        "scheduler and the workers."
    )
