"""Stranded: blocks that no worker may run, because of what their annotations ask for.

Dask keeps such a task until a fitting worker comes, which may never be: a run that
waits so looks like one that works.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any, Final

from distributed import Client

from prefect_dask_core.runners._private import find_stranded

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds from the submission of a block until it is looked for, and between looks.
PATIENCE: Final = 5.0


class Strandings:
    """Warns of tasks whose runs no worker may run, once for each task.

    Parameters
    ----------
    patience : float
        Seconds that a block may wait before it is looked for.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        #: Blocks that ask for something, by their keys: task, and what it asks for.
        self._asking: dict[Hashable, tuple[str, Mapping[str, Any]]] = {}
        self._due = 0.0
        self._told: set[str] = set()

    def note(
        self, key: Hashable, task: str, annotations: Mapping[str, Any], now: float
    ) -> None:
        """Take down a block that is submitted, if it asks for certain workers."""
        asks = annotations.get("resources") or annotations.get("workers")
        if not asks or task in self._told:
            return
        if not self._asking:
            self._due = now + self._patience
        self._asking[key] = task, annotations

    def look(self, client: Client, now: float) -> None:
        """Warn of what waits in vain, if it is time to look."""
        if not self._asking or now < self._due:
            return
        self._due = now + self._patience
        workers, keys = client.run_on_scheduler(find_stranded)
        for key in keys if workers else ():
            task, annotations = self._asking.get(key, ("", {}))
            if task and task not in self._told:
                self._told.add(task)
                _LOGGER.warning("%s", stranded_message(task, annotations, workers))
        kept = self._asking.items()
        self._asking = {key: asked for key, asked in kept if asked[0] not in self._told}


def stranded_message(task: str, annotations: Mapping[str, Any], workers: int) -> str:
    """What is told of a task that no worker may run.

    Parameters
    ----------
    task : str
        Name of the task.
    annotations : mapping of str to object
        Its annotations.
    workers : int
        Workers that there are.

    Examples
    --------
    >>> stranded_message("train", {"resources": {"GPU": 1}}, 2).split(". ")[0]
    "task 'train' waits: none of the 2 workers has the resources GPU=1"
    """
    resources = annotations.get("resources") or {}
    listed = " ".join(f"{name}={amount}" for name, amount in resources.items())
    lacks = [f"has the resources {listed}"] if resources else []
    if annotations.get("workers"):
        lacks.append(f"is among {annotations['workers']!r}")
    shown = f" --resources '{listed}'" if resources else ""
    return (
        f"task {task!r} waits: none of the {workers} workers {' and '.join(lacks)}. "
        f"Start one that does, as `dask worker <scheduler>{shown}`, or change the "
        "annotations of the task."
    )
