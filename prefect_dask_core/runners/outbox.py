"""Outbox: what a worker tells of a run; reports of plain nodes share messages.

A message costs the scheduler and the client about 0.1 ms, whatever is in it. The first
report goes out at once, and those that follow within `GATHER` seconds go together.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any, Final

from distributed import Worker

#: Kinds of messages on the topic of a run.
DONE, PLAIN, ADVANCED = "done", "plain", "advanced"
BEGAN_WAITING, REACHED = "waiting", "reached"
#: Seconds between two messages with reports of plain nodes.
GATHER: Final = 0.005


class Outbox:
    """Messages of one worker.

    Parameters
    ----------
    worker : Worker
        Who tells; not kept alive.

    Notes
    -----
    A message is a tuple of its kind, the worker's address and a body; where pages watch
    and the body is pickled, a digest of it comes fourth (`digests`). The body of a
    `PLAIN` one is a list of reports, each followed by the thread it comes from. Such a
    report may come a moment after Dask's own message that the task has finished, so it
    can be lost with its worker; the driver asks for blocks that have ended without a
    word (`events.ReportLost`). All other messages go out at once.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = weakref.ref(worker)
        self._address = worker.address
        self._pending: dict[str, list[Any]] = {}
        self._adding = threading.Lock()
        self._sent = 0.0
        self._due = False

    def send(self, topic: str, kind: str, body: Any, *digest: Any) -> None:
        """Send a message."""
        worker = self._worker()
        if worker is not None:
            worker.log_event(topic, (kind, self._address, body, *digest))

    def add(self, topic: str, report: tuple[Any, ...]) -> None:
        """Send the report of a plain node, now or with those that follow."""
        with self._adding:
            self._pending.setdefault(topic, []).append(report)
            if self._due:
                return
            rest = self._sent + GATHER - time.monotonic()
            if rest > 0:
                self._due = True
                worker = self._worker()
                if worker is not None:
                    worker.loop.add_callback(worker.loop.call_later, rest, self._ship)
                return
        self._ship()

    def _ship(self) -> None:
        with self._adding:
            pending, self._pending = self._pending, {}
            self._due = False
            self._sent = time.monotonic()
        for topic, reports in pending.items():
            self.send(topic, PLAIN, reports)


_outboxes: Final[weakref.WeakKeyDictionary[Worker, Outbox]] = (
    weakref.WeakKeyDictionary()
)
_making: Final = threading.Lock()


def outbox_of(worker: Worker) -> Outbox:
    """The outbox of a worker."""
    found = _outboxes.get(worker)
    if found is None:
        with _making:
            found = _outboxes.setdefault(worker, Outbox(worker))
    return found
