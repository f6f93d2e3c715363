"""Runs: a flow run, as people look at it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_dask_core.config import log_dir
from prefect_dask_core.engine.views import Look, NodeView, RunInfo, RunView
from prefect_dask_core.late_imports import import_late
from prefect_dask_core.monitor.displays import run_html
from prefect_dask_core.monitor.summary import RunSummary, lines_of, summarize
from prefect_dask_core.runners.run_log import RunLog
from prefect_dask_core.states import Running

if TYPE_CHECKING:
    from prefect_dask_core.monitor import report
else:
    report = import_late("prefect_dask_core.monitor.report")


class WatchedRun(RunView):
    """A flow run that can be reported and shown; see `RunView`.

    Notes
    -----
    It is what ``state.states.view`` is. It outlives the cluster and can be pickled.
    The values of tasks are not in it.
    """

    def __init__(
        self, info: RunInfo, nodes: Iterable[NodeView] = (), look: Look | None = None
    ) -> None:
        super().__init__(info, nodes, look)
        #: What its tasks log, from its begin to its end.
        self.log = RunLog(info.flow_name, info.run_id, log_dir())
        self.log_lines, self.log_file = self.log.lines, self.log.path

    def _fields(self) -> dict[str, Any]:
        return {key: kept for key, kept in super()._fields().items() if key != "log"}

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write one page of HTML about the run; see `State.report`."""
        return report.write_report(self, path)

    def summary(self) -> RunSummary:
        """What became of the run, or what is known at this moment."""
        end = time.time() if self.end is None else self.end
        return summarize(self, self.state or Running(), end)

    def __str__(self) -> str:
        return "\n".join(lines_of(self.summary()))

    def _repr_html_(self) -> str:
        return run_html(self.summary())
