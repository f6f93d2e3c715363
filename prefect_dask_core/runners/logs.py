"""Logs: what bodies log on the workers of another process, on its way to the client.

Records are collected per run and process, and sent on the topic of the run: before the
report of the block they are of, at once from level WARNING on, and no later than a
quarter of a second after they were made. A run that logs nothing sends nothing.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.runners.outbox import call_later
from prefect_dask_core.runners.spool import Spool

if TYPE_CHECKING:
    from distributed import Worker

#: Kind of message on the topic of a run.
LOGS: Final = "logs"
#: Seconds that a record waits for others at most.
LONGEST_WAIT: Final = 0.25
#: Seconds without a record after which the files of a process are taken away.
REST_AFTER: Final = 2.0
#: Records that are sent without waiting for more.
MOST_TOGETHER: Final = 1_000
#: Runs of which a worker keeps the collector.
MOST_RUNS: Final = 64
#: Tells whether a worker is in the process of the client, where nothing has to travel.
THIS_PROCESS: Final = uuid.uuid4().hex[:16]

#: Attributes of a record that are made into text before it travels.
_AS_TEXT: Final = ("args", "exc_info", "msg", "message")
_PLAIN: Final = (str, int, float, bool, type(None))


class Collector(logging.Handler):
    """Takes the records of one run on one worker, and sends them in batches.

    Parameters
    ----------
    name : str
        Name of the logger that records are of at the client.
    level : int
        Records below it interest nobody there.
    send : callable (list of bytes)
        Sends pickled records; called in the thread that `schedule` leads to.
    schedule : callable (delay, function)
        Calls a function after some seconds, one after the other.
    spool : Spool, optional
        Where records are that would be lost if the process were killed now.
    """

    def __init__(
        self,
        name: str,
        level: int,
        send: Callable[[list[bytes]], None],
        schedule: Callable[[float, Callable[[], None]], None],
        spool: Spool | None = None,
    ) -> None:
        super().__init__()
        #: Not known to `logging` by a name: it is of this run only.
        self.logger = logging.Logger(name, level)
        self.logger.addHandler(self)
        self._send = send
        self._schedule = schedule
        self._pending: list[bytes] = []
        self._due = False
        self._adding = threading.Lock()
        self._spool = spool
        self._turned = 0.0
        self._rests = True

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in."""
        try:
            self.add(packed(record))
        except Exception:
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING:
            self.flush()

    def add(self, blob: bytes) -> None:
        """Take in a record that is packed already."""
        if self._spool is not None:
            self._write_down(self._spool, blob)
        with self._adding:
            self._pending.append(blob)
            is_full = len(self._pending) == MOST_TOGETHER
            is_first = not self._due
            self._due = True
        if is_full:
            self._schedule(0.0, self._ship)
        elif is_first:
            self._schedule(LONGEST_WAIT, self._ship_in_time)

    def flush(self) -> None:
        """Send what is there, before anything that the same thread sends later."""
        if self._pending:
            self._schedule(0.0, self._ship)

    def _ship_in_time(self) -> None:
        with self._adding:
            self._due = False
        self._ship()

    def _ship(self) -> None:
        with self._adding:
            blobs, self._pending = self._pending, []
        if blobs:
            self._send(blobs)
            self._turn()

    def _write_down(self, spool: Spool, blob: bytes) -> None:
        try:
            spool.add(blob)
        except OSError:  # no place to write: as good as it was without one
            self._spool = None
            return
        if self._rests:
            self._rests = False
            self._schedule(REST_AFTER, self._rest)

    def _turn(self) -> None:
        """Forget what was sent long enough ago to have left this process."""
        now = time.monotonic()
        if self._spool is not None and now - self._turned >= LONGEST_WAIT:
            self._turned = now
            self._spool.turn()

    def _rest(self) -> None:
        """Leave no file behind where nothing is logged any more."""
        if self._spool is None:
            return
        self._rests = self._spool.rest()
        if not self._rests:
            self._schedule(REST_AFTER, self._rest)


#: What takes the records of the code that runs here, if they travel.
COLLECTOR: Final[ContextVar[Collector | None]] = ContextVar(
    "prefect_dask_core.collector", default=None
)

_collectors: Final[weakref.WeakKeyDictionary[Worker, dict[str, Collector]]] = (
    weakref.WeakKeyDictionary()
)
_making: Final = threading.Lock()


def collector_of(worker: Worker, topic: str, name: str, level: int) -> Collector:
    """The collector of a run on a worker."""
    known = _collectors.get(worker)
    found = None if known is None else known.get(topic)
    if found is not None:
        return found
    with _making:
        known = _collectors.setdefault(worker, {})
        if topic not in known:
            while len(known) >= MOST_RUNS:
                del known[next(iter(known))]
            known[topic] = _made(worker, topic, name, level)
        return known[topic]


def _made(worker: Worker, topic: str, name: str, level: int) -> Collector:
    here = weakref.ref(worker)  # a collector keeps no worker alive

    def send(blobs: list[bytes]) -> None:
        found = here()
        if found is not None:
            found.log_event(topic, (LOGS, found.address, blobs))

    def schedule(delay: float, function: Callable[[], None]) -> None:
        found = here()
        if found is None:
            return
        if delay:
            call_later(found, delay, function)
        else:
            found.loop.add_callback(function)

    return Collector(name, level, send, schedule, Spool(topic))


def packed(record: logging.LogRecord) -> bytes:
    """A record as bytes: its message as text, whatever is unusual as its `repr`.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "%s of %d", "args": ("one", 2)})
    >>> unpacked(packed(record)).getMessage()
    'one of 2'
    """
    found = {
        key: value if type(value) in _PLAIN else repr(value)
        for key, value in record.__dict__.items()
        if key not in _AS_TEXT
    }
    found["msg"] = record.getMessage()
    if record.exc_info and not record.exc_text:
        found["exc_text"] = logging.Formatter().formatException(record.exc_info)
    return pickle.dumps(found)


def unpacked(blob: bytes) -> logging.LogRecord:
    """The record again."""
    attributes: dict[str, Any] = pickle.loads(blob)
    return logging.makeLogRecord(attributes)
