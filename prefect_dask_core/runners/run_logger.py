"""Run logger: what a body logs carries which run it is of, and reaches somebody."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from distributed import Worker

from prefect_dask_core.runners.logs import (
    COLLECTOR,
    THIS_PROCESS,
    Collector,
    collector_of,
    unpacked,
)
from prefect_dask_core.runners.prints import real_stderr

#: The logger of all task runs, for whoever configures logging.
_LOGGER: Final = logging.getLogger("prefect_dask_core.task_runs")
#: Context variables that a record of a run carries.
_RECORDED: Final = ("flow_run_id", "task_name", "task_full_name", "map_index")

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it


class RunLogger(_Adapter):
    """Puts the name of the run before each message."""

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
    collector = COLLECTOR.get()
    if collector is not None:
        return RunLogger(collector.logger, variables)
    return RunLogger(_logger_here(), variables)


def _logger_here() -> logging.Logger:
    return _LOGGER if _LOGGER.hasHandlers() else _LAST_RESORT


class Outlet:
    """Where the logs of one run go, at the client of the run.

    Notes
    -----
    The client of a flow that runs inside of a task is on a worker itself: it hands them
    on to the client of that task's run.
    """

    def __init__(self) -> None:
        self._collector = COLLECTOR.get()

    @property
    def process(self) -> str:
        """The process where records need not be collected; empty if there is none."""
        return THIS_PROCESS if self._collector is None else ""

    @property
    def level(self) -> int:
        """The least level that somebody takes in, at this moment."""
        if self._collector is not None:
            return self._collector.logger.level
        level = _level_of_stderr()
        if _LOGGER.hasHandlers():
            level = _LOGGER.getEffectiveLevel()
        return max(level, logging.root.manager.disable + 1)

    def take(self, blobs: Sequence[bytes]) -> None:
        """Take in records of a worker."""
        if self._collector is not None:
            for blob in blobs:
                self._collector.add(blob)
            return
        logger = _logger_here()
        for blob in blobs:
            record = unpacked(blob)
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
