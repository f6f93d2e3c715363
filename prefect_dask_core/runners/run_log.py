"""Run log: what the bodies of one flow run log, line by line, at the client.

The last lines stay in memory, for the report of the run. With a folder named in
`dask.config` under ``prefect-dask-core.log-dir`` all of them are written into a file.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

_LOGGER: Final = logging.getLogger(__name__)

#: Lines that stay in memory.
KEPT: Final = 5_000
#: Characters of the name of a flow in that of its file: names of files are bounded.
LONGEST_NAME: Final = 80

_known: Final[dict[str, RunLog]] = {}


class RunLog:
    """Lines of one flow run.

    Parameters
    ----------
    flow_name, run_id : str
        The run.
    folder : str or None
        Where its file is made; `None`: there is none.
    """

    def __init__(self, flow_name: str, run_id: str, folder: str | None = None) -> None:
        self.run_id = run_id
        #: The file, if there is one.
        self.path: Path | None = None
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._left = 0
        self._failed = False
        if folder is not None:
            name = re.sub(r"[^\w.-]+", "-", flow_name)[:LONGEST_NAME]
            self.path = Path(folder).expanduser() / f"{name}-{run_id}.log"

    @property
    def level(self) -> int | None:
        """The least level that is kept, whoever else takes records in.

        `None`: what others take in is kept too, and nothing more.
        """
        return None if self.path is None else logging.INFO

    def take(self, record: logging.LogRecord) -> None:
        """Take a record in."""
        line = line_of(record)
        with self._lock:
            if len(self._lines) == KEPT:
                self._left += 1
            self._lines.append(line)
            if self.path is not None and not self._failed:
                try:
                    self._write(self.path, line)
                except OSError as error:  # a full disk is no reason to fail the run
                    self._failed = True
                    _LOGGER.warning(
                        "nothing more is written to %s: %s", self.path, error
                    )

    def _write(self, path: Path, line: str) -> None:
        if self._file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self._file.write(f"{line}\n")
        self._file.flush()

    def lines(self) -> list[str]:
        """The last lines, and before them how many there were."""
        with self._lock:
            found = list(self._lines)
            if self._left:
                where = f": all are in {self.path}" if self.path else ""
                found.insert(0, f"({self._left:,} earlier lines are not here{where})")
            return found

    def open(self) -> None:
        """Take in what the runs of this process log from now on."""
        _known[self.run_id] = self

    def close(self) -> None:
        """Take in nothing more."""
        _known.pop(self.run_id, None)
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
                self._file = None


def run_log_of(run_id: str | None) -> RunLog | None:
    """The log of a run of which this process is the client, while it runs."""
    return None if run_id is None else _known.get(run_id)


def line_of(record: logging.LogRecord) -> str:
    """A record as text: when, how bad, of which run, task, child and attempt.

    Examples
    --------
    >>> record = logging.makeLogRecord({
    ...     "msg": "hello", "levelname": "INFO", "created": 0.0, "map_index": 3,
    ...     "flow_run_id": "0123456789abcdef", "task_name": "load",
    ...     "task_run_count": 2})
    >>> line_of(record).split(" ", 1)[1]
    'INFO run=01234567 task=load map_index=3 attempt=2 | hello'
    """
    when = datetime.fromtimestamp(record.created).isoformat(timespec="milliseconds")
    run_id = getattr(record, "flow_run_id", None)
    tags = [f"run={run_id[:8]}"] if run_id else []
    task = getattr(record, "task_full_name", None) or getattr(record, "task_name", None)
    if task is not None:
        tags.append(f"task={getattr(record, 'task_name', None) or task}")
        index = getattr(record, "map_index", None)
        if index is not None:
            tags.append(f"map_index={index}")
        tags.append(f"attempt={getattr(record, 'task_run_count', 1)}")
    text = " ".join([when, record.levelname, *tags, "|", record.getMessage()])
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    return f"{text}\n{record.exc_text}" if record.exc_text else text


class Tee(logging.Handler):
    """Gives records to the log of a run, and to the logger that would have them else.

    Parameters
    ----------
    log : RunLog
        The log.
    onward : callable
        Gives the logger, at this moment.
    """

    def __init__(self, log: RunLog, onward: Callable[[], logging.Logger]) -> None:
        super().__init__()
        self._log = log
        self._onward = onward

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in."""
        try:
            self._log.take(record)
        except Exception:  # what its `__str__` or its arguments raise
            self.handleError(record)
        logger = self._onward()
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
