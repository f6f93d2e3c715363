"""Outbox: what a worker tells of a run; reports of plain nodes share messages.

A message costs the scheduler and the client about 0.1 ms, whatever is in it. A report
that the run waits for goes out at once after a rest, else with those that follow in a
short time, which grows as long as there are several; the others are in no hurry.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from distributed import Worker

#: Kinds of messages on the topic of a run.
DONE, PLAIN, ADVANCED = "done", "plain", "advanced"
BEGAN_WAITING, REACHED = "waiting", "reached"
#: Least and most seconds between two messages with reports that the run waits for. A
#: loop that waits for each of its runs meets the least.
GATHER, MOST_GATHER = 0.005, 0.05
#: Seconds that a report waits which changes nothing when it comes.
UNHURRIED = 0.1


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
        self._gap = GATHER
        #: When the next message goes out.
        self._due = float("inf")

    def send(self, topic: str, kind: str, body: Any, *digest: Any) -> None:
        """Send a message."""
        worker = self._worker()
        if worker is not None:
            worker.log_event(topic, (kind, self._address, body, *digest))

    def add(self, topic: str, report: tuple[Any, ...], awaited: bool) -> None:
        """Send the report of a plain node, now or with those that follow.

        Parameters
        ----------
        topic : str
            Topic of the run.
        report : tuple
            The report.
        awaited : bool
            Whether the run waits for it.
        """
        with self._adding:
            self._pending.setdefault(topic, []).append(report)
            now = time.monotonic()
            due = max(now, self._sent + self._gap) if awaited else now + UNHURRIED
            if due >= self._due:
                return
            if due > now:
                self._due = due
                worker = self._worker()
                if worker is not None:
                    call_later(worker, due - now, self._ship)
                return
        self._ship()

    def _ship(self) -> None:
        with self._adding:
            if not self._pending:
                return  # an earlier message has taken all along
            pending, self._pending = self._pending, {}
            self._due = float("inf")
            self._sent = time.monotonic()
            several = sum(map(len, pending.values())) > 1
            self._gap = min(2 * self._gap, MOST_GATHER) if several else GATHER
        for topic, reports in pending.items():
            self.send(topic, PLAIN, reports)


def call_later(worker: Worker, delay: float, function: Callable[[], None]) -> None:
    """Call a function on a worker's event loop; from any thread.

    Parameters
    ----------
    worker : Worker
        The worker.
    delay : float
        Seconds until then.
    function : callable
        Called without arguments.
    """

    def schedule() -> None:
        # It returns nothing: Tornado takes a handle for something to wait for, and
        # finds out that it is not by way of its `repr`.
        worker.loop.call_later(delay, function)

    worker.loop.add_callback(schedule)


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
