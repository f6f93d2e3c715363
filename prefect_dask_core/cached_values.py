"""Cached values: what earlier runs in this process left for later ones (decision C21).

They live in the memory of the client's process, and are handed to the runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Final

from prefect_dask_core.engine.caching import cache_name, cached_among, merge_caches
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.states import Cached, State

_KNOWN: Final[dict[str, list[Cached]]] = {}
_lock = threading.Lock()


def remember(ended: Iterable[tuple[TaskOptions, State]]) -> None:
    """Keep what some runs left.

    Parameters
    ----------
    ended : iterable of (TaskOptions, State)
        Options of a task, and the state of its run or mapped run.
    """
    found = [
        (cache_name(options), cached)
        for options, state in ended
        if options.is_cached_in_memory
        for cached in cached_among(state, State.result)
    ]
    with _lock:
        merge_caches(_KNOWN, found, time.time())


def known_to(tasks: Iterable[TaskOptions]) -> dict[str, list[Cached]]:
    """Cached states that some tasks may use, by cache key."""
    names = {cache_name(options) for options in tasks if options.is_cached_in_memory}
    with _lock:
        return {name: list(_KNOWN[name]) for name in names if name in _KNOWN}
