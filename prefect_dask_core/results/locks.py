"""Locks: one run at a time computes a key, where that is asked for.

A lock is asked for again and again by those who wait, and none of them holds a thread
meanwhile; so a manager never waits inside of `acquire_lock` unless it is told how long.
Threads exclude one another in memory, the processes of one machine by files, and those
of a cluster by locks of its scheduler.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import locket  # type: ignore[import-untyped]

from prefect_dask_core.errors import SelfLockError
from prefect_dask_core.results.places import folder_name

#: Context variable: the locks that runs around hold until what they call has ended, as
#: `Held`.
LOCKED: Final = "_locked"
#: What a lock is of: the URL of a store, and a key in it.
Locked = tuple[str, str]
#: The name of the run that has a lock, by what it is of; `None`: a transaction block
#: has it, and what is submitted in that need not have it.
Held = Mapping[Locked, str | None]
#: Seconds between two looks at a lock that somebody else holds: at first, at most.
FIRST_LOOK, LAST_LOOK = 0.01, 0.25


def check_not_held(held: Held, url: str, key: str, everywhere: bool, run: str) -> None:
    """Refuse to wait for a lock that is not freed before the wait has ended.

    Parameters
    ----------
    held : mapping of (str, str) to str
        Locks of the runs around.
    url, key : str
        Store and key of the lock that somebody else has.
    everywhere : bool
        Whether the lock excludes those who want the key in other stores, too.
    run : str
        Who would wait.

    Raises
    ------
    SelfLockError
        If a run around has it.

    Examples
    --------
    >>> held = {("/store", "0af3"): "total"}
    >>> check_not_held(held, "/other", "0af3", False, "load")
    >>> check_not_held(held, "/store", "0af3", False, "load")
    Traceback (most recent call last):
        ...
    prefect_dask_core.errors.SelfLockError: 'load' would wait for ever for the lock of \
the key '0af3': 'total' has it, which waits for 'load' ...
    """
    for (other, known), name in held.items():
        if name is not None and known == key and (everywhere or other == url):
            raise SelfLockError(
                f"{run!r} would wait for ever for the lock of the key {key!r}: "
                f"{name!r} has it, which waits for {run!r} in its turn. Let them have "
                "different keys, by their arguments or by another cache_policy, or do "
                'without isolation_level="SERIALIZABLE" in one of them.'
            )


def is_shared_with(held: Held, locked: Locked) -> bool:
    """Whether a block around has a lock, for all that is submitted in it.

    It holds the lock to its end, for which it waits for them.

    Examples
    --------
    >>> is_shared_with({("/store", "0af3"): None}, ("/store", "0af3"))
    True
    >>> is_shared_with({("/store", "0af3"): "total"}, ("/store", "0af3"))
    False
    """
    return held.get(locked, "") is None


class LockManager(Protocol):
    """Keeps locks by key; each is held by one holder at a time."""

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; whether the holder has it now.

        Parameters
        ----------
        key, holder : str
            What is locked, and who wants it.
        acquire_timeout : float, optional
            Longest wait in seconds; 0 does not wait, `None` waits until it is free.
        hold_timeout : float, optional
            Seconds after which the lock is free again, if the manager knows of that.
        """

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back; `ValueError` if the holder does not have it."""

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether a holder has the lock of a key."""

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock of a key is free; whether it is."""


class _Waiting:
    """What managers have in common: waiting is looking again."""

    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        raise NotImplementedError

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""
        raise NotImplementedError

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; see `LockManager`."""
        return _look_until(
            lambda: self._try(key, holder, hold_timeout), acquire_timeout
        )

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock of a key is free; whether it is."""
        return _look_until(lambda: not self.is_locked(key), timeout)


def _look_until(happened: Callable[[], bool], timeout: float | None) -> bool:
    end = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_LOOK
    while not happened():
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
        time.sleep(pause)
        pause = min(2 * pause, LAST_LOOK)
    return True


def _refuse(key: str, holder: str) -> ValueError:
    return ValueError(f"{holder!r} does not hold the lock of {key!r}.")


class MemoryLockManager(_Waiting):
    """Locks of the threads of this process; one object for all of them.

    Examples
    --------
    >>> locks = MemoryLockManager()
    >>> locks.acquire_lock("total", "me"), locks.acquire_lock("total", "you", 0)
    (True, False)
    >>> locks.release_lock("total", "me")
    >>> locks.is_locked("total")
    False
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float | None]] = {}
        self._lock = threading.Lock()

    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        end = None if hold_timeout is None else time.monotonic() + hold_timeout
        with self._lock:
            found = self._holder(key)
            if found not in (None, holder):
                return False
            self._held[key] = holder, end
            return True

    def _holder(self, key: str) -> str | None:
        found = self._held.get(key)
        if found is None or (found[1] is not None and time.monotonic() >= found[1]):
            return None
        return found[0]

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back."""
        with self._lock:
            if self._holder(key) != holder:
                raise _refuse(key, holder)
            del self._held[key]

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""
        with self._lock:
            return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether a holder has the lock of a key."""
        with self._lock:
            return self._holder(key) == holder

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process there is another memory.
        return _memory_locks, ()


_IN_MEMORY: Final = MemoryLockManager()


def _memory_locks() -> MemoryLockManager:
    return _IN_MEMORY


class FileSystemLockManager(_Waiting):
    """Locks of the processes of one machine, and of their threads.

    The system frees the locks of a process that dies. The files stay, and are empty:
    to remove one would free it for somebody who does not see those that wait.

    Parameters
    ----------
    lock_files_directory : str or path
        Folder of the files; made with the first of them.
    """

    def __init__(self, lock_files_directory: str | os.PathLike[str]) -> None:
        given = os.path.expanduser(os.fspath(lock_files_directory))
        self.folder = os.path.abspath(given)

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, f"{folder_name(key)}.lock")

    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        path = self._path(key)
        with _files_lock:
            if path in _held_files:
                return _held_files[path][0] == holder
        os.makedirs(self.folder, exist_ok=True)
        lock = locket.lock_file(path, timeout=0, retry_period=0.001)
        try:
            lock.acquire()
        except locket.LockError:
            return False
        with _files_lock:
            _held_files[path] = holder, lock
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back."""
        path = self._path(key)
        with _files_lock:
            if path not in _held_files or _held_files[path][0] != holder:
                raise _refuse(key, holder)
            _, lock = _held_files.pop(path)
        lock.release()

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""
        asking = f"asking-{threading.get_ident()}"
        if self._path(key) in _held_files or not self._try(key, asking, None):
            return True
        self.release_lock(key, asking)
        return False

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether a holder, of this process, has the lock of a key."""
        found = _held_files.get(self._path(key))
        return found is not None and found[0] == holder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileSystemLockManager) and (
            other.folder == self.folder
        )

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        return f"FileSystemLockManager({self.folder!r})"


#: Locks that this process holds, by path: the holder, and what holds the file.
_held_files: Final[dict[str, tuple[str, Any]]] = {}
_files_lock: Final = threading.Lock()
#: Gives the locks of the cluster that the caller belongs to, `None` without one.
_cluster_locks: Final[list[Callable[[], LockManager | None]]] = []


def set_cluster_locks(find: Callable[[], LockManager | None]) -> None:
    """Say what finds the locks of a cluster; the layer that knows clusters does."""
    _cluster_locks[:] = [find]


def locks_of(store: Any) -> LockManager:
    """What excludes all who can reach a store.

    Parameters
    ----------
    store : ResultStore
        One in a folder is reached from this machine only, so files exclude; one that
        others reach needs the locks of the cluster, and without a cluster only the
        threads of this process are excluded.
    """
    if store.lock_manager is not None:
        found: LockManager = store.lock_manager
        return found
    if store.is_local:
        return FileSystemLockManager(os.path.join(store.url, ".locks"))
    for find in _cluster_locks:
        of_cluster = find()
        if of_cluster is not None:
            return of_cluster
    return _IN_MEMORY
