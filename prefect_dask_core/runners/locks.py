"""Locks of a cluster, kept by its scheduler; those of a worker that dies become free.

Notes
-----
`distributed.Lock` refreshes a lease while it is held; without its holder it is free
after ``distributed.scheduler.locks.lease-timeout`` (30 s unless configured).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.late_imports import import_late, is_distributed_loaded
from prefect_dask_core.results.locks import LAST_LOOK, set_cluster_locks
from prefect_dask_core.runners._private import client_here

if TYPE_CHECKING:
    import distributed
    from distributed import Client, Lock, Worker
else:
    distributed = import_late("distributed")

#: Locks that this process holds: holder and lock, by scheduler and key.
_held: Final[dict[tuple[str, str], tuple[str, Any]]] = {}
_lock: Final = threading.Lock()


class ClusterLockManager:
    """Locks that all clients and workers of a scheduler share.

    Parameters
    ----------
    member : Client or Worker
        One of the cluster.
    """

    def __init__(self, member: Client | Worker) -> None:
        self._member = member
        self._address = str(member.scheduler.address)  # type: ignore[union-attr]

    def _lock_of(self, key: str) -> Lock:
        member = self._member
        name = f"prefect-dask-core-{key}"
        return distributed.Lock(name, scheduler_rpc=member.scheduler, loop=member.loop)

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key; see `results.locks.LockManager`."""
        with _lock:
            known = _held.get((self._address, key))
            if known is not None and known[0] == holder:
                return True
        lock = self._lock_of(key)
        taken = bool(lock.acquire(timeout=acquire_timeout))
        if taken:
            with _lock:
                _held[self._address, key] = holder, lock
        return taken

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back."""
        with _lock:
            known = _held.get((self._address, key))
            if known is None or known[0] != holder:
                raise ValueError(f"{holder!r} does not hold the lock of {key!r}.")
            del _held[self._address, key]
        known[1].release()

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock of a key."""
        return bool(self._lock_of(key).locked())

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether a holder, of this process, has the lock of a key."""
        with _lock:
            known = _held.get((self._address, key))
        return known is not None and known[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock of a key is free; whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(LAST_LOOK)
        return True


def cluster_locks() -> ClusterLockManager | None:
    """Locks of the cluster of this worker, or of the current client; else `None`."""
    if not is_distributed_loaded():
        return None
    try:
        return ClusterLockManager(distributed.get_worker())
    except ValueError:
        pass
    try:
        return ClusterLockManager(client_here())
    except ValueError:
        return None


set_cluster_locks(cluster_locks)
