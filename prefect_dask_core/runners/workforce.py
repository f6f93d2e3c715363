"""Workforce: the workers that a run has, as they come and go."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

from distributed import Client, LocalCluster

from prefect_dask_core.runners.preflight import check_place, check_workers

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds without any worker after which a run says what it waits for.
PATIENCE: Final = 10.0


class Workforce:
    """Workers of the cluster that a run is on.

    Parameters
    ----------
    client : Client
        Client of the cluster.
    patience : float
        Seconds without any worker until a warning is logged, once.
    """

    def __init__(self, client: Client, patience: float = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._seen: set[str] = set()
        # Folders of this machine, and memory of this process, that values are kept in.
        self._places: set[str] = set()
        self._deserted_since: float | None = None
        self._told = False
        #: Whether a worker has left that was there.
        self.lost = False

    def note_place(self, place: str) -> bool:
        """Note a place that values are kept in; whether it is a new one."""
        if place in self._places:
            return False
        self._places.add(place)
        return True

    def threads(self) -> int:
        """Worker threads there are now; new workers are asked what they have.

        Raises
        ------
        ClusterMismatchError
            If a worker cannot run what it will be sent.
        StoreError
            If a worker does not see a place that values are kept in.
        """
        threads: Mapping[str, int] = self._client.nthreads()
        self.lost = self.lost or not self._seen.issubset(threads)
        self._seen.update(threads)
        if self.lost:
            bring_back(self._client.cluster)
        self._tell_if_deserted(not threads, time.monotonic())
        check_workers(self._client, threads)
        for place in self._places:
            check_place(self._client, threads, place)
        return sum(threads.values())

    def _tell_if_deserted(self, deserted: bool, now: float) -> None:
        if not deserted:
            self._deserted_since = None
            return
        if self._deserted_since is None:
            self._deserted_since = now
        if now - self._deserted_since >= self._patience and not self._told:
            self._told = True
            assert self._client.scheduler is not None
            address = self._client.scheduler.address
            _LOGGER.warning(
                "the run waits: the cluster at %s has no workers. It goes on when one "
                "comes; start one, as `dask worker %s`, or scale the cluster.",
                address,
                address,
            )


def bring_back(cluster: object) -> None:
    """Ask a local cluster for the workers that it was made with and has given up.

    Parameters
    ----------
    cluster : object
        Cluster of a client, `None` if it has an address only. Clusters whose workers
        are jobs or machines are left to whoever pays for these.

    Notes
    -----
    A nanny restarts a worker that dies. But 15 s after each death
    (``distributed.deploy.lost-worker-timeout``) `LocalCluster` looks whether the worker
    is there, and if another death has it just being started, closes the nanny for good.
    """
    if isinstance(cluster, LocalCluster):
        specified = len(cluster.worker_spec)
        if len(cluster.workers) < specified:
            cluster.scale(specified)
