"""The private parts of distributed that are used, all of them here.

`tests/runners/test_private.py` fails loudly when one of them moves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from distributed.worker import thread_state  # type: ignore[attr-defined]


def carry_thread_state() -> Callable[[], None]:
    """Let another thread stand in for a worker's thread.

    Returns
    -------
    callable
        To be called in the other thread; `get_worker`, `get_client` and `secede` work
        there afterwards.
    """
    carried = dict(vars(thread_state))

    def prepare() -> None:
        vars(thread_state).update(carried)

    return prepare


def forget_topic(topic: str, dask_scheduler: Any = None) -> None:
    """Remove what the scheduler remembers of a topic; runs on the scheduler."""
    dask_scheduler._broker._topics.pop(topic, None)


def find_blamed(
    keys: Sequence[Hashable], dask_scheduler: Any = None
) -> dict[Hashable, Hashable]:
    """Key that is to blame for each erred key; runs on the scheduler."""
    blamed = {}
    for key in keys:
        task = dask_scheduler.tasks.get(key)
        if task is not None and task.exception_blame is not None:
            blamed[key] = task.exception_blame.key
    return blamed
