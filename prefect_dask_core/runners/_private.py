"""The private parts of distributed that are used, all of them here.

`tests/runners/test_private.py` fails loudly when one of them moves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from distributed import Client, rejoin, secede
from distributed.worker import thread_state  # type: ignore[attr-defined]


def carry_thread_state() -> Callable[[], None]:
    """Let another thread stand in for a worker's thread.

    Returns
    -------
    callable
        To be called in the other thread; `get_worker` and `get_client` work
        there afterwards.
    """
    carried = dict(vars(thread_state))

    def prepare() -> None:
        vars(thread_state).update(carried)

    return prepare


@contextlib.contextmanager
def outside_the_pool() -> Iterator[None]:
    """Give the thread of a task back to its worker while the task waits for others.

    Elsewhere, and in a thread beside the worker's, nothing happens.
    """
    seceded = False
    if getattr(thread_state, "key", None) is not None:
        with contextlib.suppress(Exception):  # not a thread of the pool
            secede()
            seceded = True
    try:
        yield
    finally:
        if seceded:
            rejoin()


def forget_topic(client: Client, topic: str) -> None:
    """Let scheduler and client forget a topic.

    Not by `Client.unsubscribe_topic`: that message may arrive after the topic was
    forgotten, and would bring it back; and it leaves the handler in the client.
    """
    client.run_on_scheduler(_forget, topic)
    # A report may be on its way, and the client wants a handler for it.
    client._event_handlers[topic] = _ignore


async def _forget(topic: str, dask_scheduler: Any = None) -> None:
    topics = dask_scheduler._broker._topics
    for _ in range(100):
        if topic in topics:
            break
        # The subscription, which goes another way, may arrive after this.
        await asyncio.sleep(0.01)
    topics.pop(topic, None)


def _ignore(event: Any) -> None:
    """Handle an event of a run that has ended."""


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
