"""Run logger: what a body logs carries which run it is of, and reaches somebody."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.runners.logs import (
    COLLECTOR,
    THIS_PROCESS,
    Collector,
    collector_of,
    unpacked,
)
from prefect_dask_core.runners.prints import real_stderr
from prefect_dask_core.runners.run_log import RunLog, Tee, run_log_of

#: The logger of all task runs, for whoever configures logging.
_LOGGER: Final = logging.getLogger("prefect_dask_core.task_runs")
#: Context variables that a record of a run carries.
_RECORDED: Final = ("flow_run_id", "task_name", "task_full_name", "map_index")

if TYPE_CHECKING:
    from distributed import Worker

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it


class RunLogger(_Adapter):
    """Puts the name of the run before each message.

    Parameters
    ----------
    variables : mapping of str to object
        Context variables of the run.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        super().__init__(None, variables)  # type: ignore[arg-type]
        # What may differ where a message is logged is looked up here, the rest there.
        self._collector = COLLECTOR.get()
        self._run_log = run_log_of(variables.get("flow_run_id"))
        del self.logger

    def __getattr__(self, name: str) -> Any:
        if name != "logger":
            raise AttributeError(name)
        # Few bodies log, and each of a million would pay.
        self.logger = self._find_logger()
        return self.logger

    def _find_logger(self) -> logging.Logger:
        if self._collector is not None:
            return self._collector.logger
        if self._run_log is None:
            return _logger_here()
        logger = logging.Logger(_LOGGER.name, _level(self._run_log))
        logger.addHandler(Tee(self._run_log, _logger_here))
        return logger

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Message and keywords of a record."""
        # Looked up here: few bodies log, and each of a million would pay.
        variables = self.extra or {}
        extra = {name: variables.get(name) for name in _RECORDED}
        extra["task_run_count"] = variables.get("task_run_count", 1)
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        if extra["task_full_name"] is None:
            name = variables.get("flow_run_name") or variables.get("flow_name")
            return f"Flow run '{name}': {msg}", kwargs
        return f"Task '{extra['task_full_name']}': {msg}", kwargs


def run_logger(variables: Mapping[str, Any]) -> RunLogger:
    """Logger of a run, given its context variables.

    Notes
    -----
    Python drops what nobody handles, but for warnings, so that `print` with
    ``log_prints=True`` would vanish. What nobody configured goes to stderr, as
    `logging.lastResort` does it: without a handler on any logger of the program's.
    What is logged on a worker of another process goes to the client instead, where
    these rules hold.
    """
    return RunLogger(variables)


def _logger_here() -> logging.Logger:
    return _LOGGER if _LOGGER.hasHandlers() else _LAST_RESORT


class Outlet:
    """Where the logs of one run go, at the client of the run.

    Notes
    -----
    The client of a flow that runs inside of a task is on a worker itself: it hands them
    on to the client of that task's run.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self._collector = COLLECTOR.get()
        self._run_log = run_log_of(run_id)
        # Of the last records, more than a dead process can have left behind.
        self._seen: deque[int] = deque(maxlen=20_000)

    def take_late(self, blobs: Sequence[bytes]) -> None:
        """Take in records of processes that have died, unless they have come before."""
        seen = set(self._seen)
        fresh = {blob: unpacked(blob).created for blob in blobs}
        late = [blob for blob in fresh if hash(blob) not in seen]
        self.take(sorted(late, key=fresh.__getitem__))

    @property
    def has_taken(self) -> bool:
        """Whether records of another process have come."""
        return bool(self._seen)

    @property
    def process(self) -> str:
        """The process where records need not be collected; empty if there is none."""
        return THIS_PROCESS if self._collector is None else ""

    @property
    def level(self) -> int:
        """The least level that somebody takes in, at this moment."""
        if self._collector is not None:
            return self._collector.logger.level
        return _level(self._run_log)

    def take(self, blobs: Sequence[bytes]) -> None:
        """Take in records of a worker."""
        if self._collector is not None:
            for blob in blobs:
                self._collector.add(blob)
            return
        logger = _logger_here()
        for blob in blobs:
            self._seen.append(hash(blob))
            record = unpacked(blob)
            if self._run_log is not None:
                self._run_log.take(record)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


def collector_here(
    worker: Worker, topic: str, process: str, level: int
) -> Collector | None:
    """What collects the records of a run on a worker; `None` in the client's process.

    Parameters
    ----------
    worker : Worker
        The worker.
    topic : str
        Topic of the run.
    process : str
        Process of the client.
    level : int
        The least level that the client takes in.
    """
    if process == THIS_PROCESS:
        return None
    return collector_of(worker, topic, _LOGGER.name, level)


def _level(log: RunLog | None) -> int:
    """The least level that somebody takes in who is here."""
    level = _level_of_stderr()
    if _LOGGER.hasHandlers():
        level = _LOGGER.getEffectiveLevel()
    level = max(level, logging.root.manager.disable + 1)
    kept = None if log is None else log.level
    return level if kept is None else min(level, kept)


def _level_of_stderr() -> int:
    package = logging.getLogger("prefect_dask_core")
    return _LOGGER.level or package.level or logging.INFO


class _ToStderr(logging.Handler):
    """Writes to the stderr of the process, past what captures prints."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of level INFO and up, or of whichever level was set."""
        stream = real_stderr()
        is_off = record.levelno <= logging.root.manager.disable
        if stream is None or record.levelno < _level_of_stderr() or is_off:
            return
        try:
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except Exception:
            self.handleError(record)


# Not known to `logging` by a name, so that nothing of the user's is touched.
_LAST_RESORT: Final = logging.Logger(_LOGGER.name)
_LAST_RESORT.addHandler(_ToStderr())
_LAST_RESORT.handlers[0].setFormatter(logging.Formatter("%(levelname)s %(message)s"))
