"""Coroutines: bodies that are awaited side by side, on one event loop per process.

A worker's thread is lent to others while only coroutines are waited for, so one thread
carries as many of them as `prefect-dask-core.async-tasks` allows.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from prefect_dask_core.config import most_async_tasks
from prefect_dask_core.engine.effects import Answer, Call, Raised
from prefect_dask_core.runners.drive import call_async

_lock: Final = threading.Lock()
_made: dict[str, Any] = {}


def shared_loop() -> asyncio.AbstractEventLoop:
    """The event loop of all bodies of this process, in a thread of its own."""
    with _lock:
        loop: asyncio.AbstractEventLoop | None = _made.get("loop")
        if loop is None:
            loop = _made["loop"] = asyncio.new_event_loop()
            _made["room"] = asyncio.Semaphore(most_async_tasks())
            threading.Thread(
                target=loop.run_forever, daemon=True, name="prefect-dask-core-loop"
            ).start()
        return loop


class Coroutines:
    """Coroutines of one block; see `effects.AsyncCalls`.

    Parameters
    ----------
    lend : callable
        Called once, before the block's thread waits for the first time: others may
        use its place from then on.
    prepare : callable
        Called on the event loop before each body.
    """

    def __init__(self, lend: Callable[[], None], prepare: Callable[[], None]) -> None:
        self.most = 2 * most_async_tasks()
        self._lend = lend
        self._prepare = prepare
        self._lent = False
        self._numbers = itertools.count()
        self._answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()

    def begin(self, call: Call) -> int:
        """Begin a call; the number under which its answer will come."""
        number = next(self._numbers)
        future = asyncio.run_coroutine_threadsafe(self._answer(call), shared_loop())

        def put(ended: Any) -> None:
            error = None if ended.cancelled() else ended.exception()
            answer = Raised(error) if error is not None else ended.result()
            self._answers.put((number, answer))

        future.add_done_callback(put)
        return number

    async def _answer(self, call: Call) -> Answer:
        async with _made["room"]:
            self._prepare()
            return await call_async(call)

    def ended(self, until: float | None) -> list[tuple[int, Answer]]:
        """Answers that have come; waits for one, at longest until a time."""
        found = self._drained()
        if found:
            return found
        if not self._lent:
            self._lent = True
            self._lend()
        timeout = None if until is None else max(0.0, until - time.time())
        try:
            return [self._answers.get(timeout=timeout), *self._drained()]
        except queue.Empty:
            return []

    def _drained(self) -> list[tuple[int, Answer]]:
        found = []
        while True:
            try:
                found.append(self._answers.get_nowait())
            except queue.Empty:
                return found
