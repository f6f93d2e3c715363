"""Flow runs page: all runs, and the tasks of one of them."""

from __future__ import annotations

from typing import Any

from bokeh.document import Document
from bokeh.layouts import column
from bokeh.models import ColumnDataSource
from distributed import Scheduler

from prefect_dask_core.monitor.columns import OPEN_COLOR, RunRows, task_columns
from prefect_dask_core.monitor.pages.page import Page
from prefect_dask_core.monitor.pages.widgets import (
    BAR,
    COUNT,
    STATE,
    STATES,
    TEXT,
    WIDE,
    fit,
    legend,
    show_table,
    table_of,
)
from prefect_dask_core.monitor.runs import Run


class FlowRunsPage(Page):
    """All runs, and the tasks of one of them."""

    title = "Flow runs"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        self._rows = RunRows()
        self.runs = ColumnDataSource(name="runs", data=self._rows.columns([], 0.0))
        self.tasks = ColumnDataSource(name="tasks", data=task_columns(None, 0.0))
        self.runs_table = table_of(
            self.runs,
            {
                "flow": ("Flow", 130, TEXT),
                "run": ("Run", 110, TEXT),
                "state": ("State", 120, STATE),
                "begin": ("Begun", 85, TEXT),
                "duration": ("Duration", 80, TEXT),
                "parts": ("Progress", 160, BAR),
                "progress": ("Task runs", 130, TEXT),
                "failed": ("Failed", 60, COUNT),
                "retries": ("Retries", 60, COUNT),
                "rate": ("Rate", 80, TEXT),
                "left": ("Time left", 80, TEXT),
            },
        )
        self.tasks_table = table_of(
            self.tasks,
            {
                "task": ("Task", 160, TEXT),
                "parts": ("Progress", 300, BAR),
                "progress": ("Task runs", 130, TEXT),
                "rate": ("Rate", 80, TEXT),
                "left": ("Time left", 80, TEXT),
                "typical": ("Typical", 90, TEXT),
                "failed": ("Failed", 60, COUNT),
                "retries": ("Retries", 60, COUNT),
            },
        )
        self.runs.selected.on_change("indices", self._choose)

    def _choose(self, attr: str, old: Any, new: list[int]) -> None:
        ids = self.runs.data["id"]
        shown = self.run()
        # Not what `draw` has chosen itself: that leaves a reader at the newest run.
        if new and new[0] < len(ids) and (shown is None or ids[new[0]] != shown.id):
            self.choice.value = ids[new[0]]

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        assert self.plugin is not None
        runs = self._rows.columns(self.plugin.runs.values(), now)
        tasks = task_columns(run, now)
        show_table(self.runs, runs)
        show_table(self.tasks, tasks)
        # Rows move down when a run begins, and what is chosen moves with them.
        chosen = [] if run is None else [runs["id"].index(run.id)]
        if self.runs.selected.indices != chosen:
            self.runs.selected.indices = chosen
        fit(self.runs_table, len(runs["id"]), 8)
        fit(self.tasks_table, len(tasks["task"]), 40)

    def root(self) -> Any:
        """The layout."""
        return column(
            self.runs_table,
            self.top(),
            legend({**STATES, "not ended": OPEN_COLOR}),
            self.tasks_table,
            **WIDE,
        )
