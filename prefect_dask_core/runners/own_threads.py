"""Own threads: what coroutines call that may wait for other runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and await its end.

    Not by `asyncio.to_thread`, whose few threads are shared by all coroutines of a
    loop: were each of them taken by one that waits for a run, and that run for a thread
    of the same loop, nobody would go on. The thread goes on where the caller is
    cancelled.

    Examples
    --------
    >>> asyncio.run(in_own_thread(lambda: 3))
    3
    """
    around = contextvars.copy_context()
    ended: Future[T] = Future()
    ended.set_running_or_notify_cancel()

    def run() -> None:
        try:
            value = around.run(function)
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(value)

    threading.Thread(target=run, daemon=True, name="prefect-dask-core-wait").start()
    return await asyncio.wrap_future(ended)
