"""Failures page: what failed of a run, and where."""

from __future__ import annotations

from typing import Any

from bokeh.document import Document
from bokeh.layouts import column
from bokeh.models import ColumnDataSource
from bokeh.models.widgets.markups import Div, PreText
from distributed import Scheduler

from prefect_dask_core.monitor.columns import (
    failure_columns,
    in_order,
    traceback_text,
)
from prefect_dask_core.monitor.failures import Failure
from prefect_dask_core.monitor.pages.page import Page
from prefect_dask_core.monitor.pages.widgets import (
    LABEL,
    STATE,
    TEXT,
    WIDE,
    fit,
    say,
    show_table,
    table_of,
)
from prefect_dask_core.monitor.runs import Run


class FailuresPage(Page):
    """What failed, and where."""

    title = "Failures"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        self.failures = ColumnDataSource(name="failures", data=failure_columns(None))
        self.table = table_of(
            self.failures,
            {
                "label": ("Task run", 190, LABEL),
                "state": ("State", 110, STATE),
                "message": ("Message", 310, TEXT),
                "arguments": ("Arguments", 200, TEXT),
                "worker": ("Worker", 150, TEXT),
                "attempts": ("Attempts", 60, TEXT),
                "end": ("Ended", 80, TEXT),
            },
        )
        self.note = Div(text="", **WIDE)
        self.traceback = PreText(
            text="",
            styles={
                "background": "#ffffff",
                "border": "1px solid #d0d7de",
                "padding": "8px",
                "overflow": "auto",
                "max-width": "100%",
            },
            **WIDE,
        )
        self.failures.selected.on_change("indices", self._choose)
        self._listed: list[Failure] = []
        # Run and place of the failure that the reader has chosen.
        self._picked: tuple[str, tuple[int, int]] | None = None

    def _choose(self, attr: str, old: Any, new: list[int]) -> None:
        run = self.run()
        # Not what `_tell` has chosen itself: that leaves a reader at the first one.
        if run is not None and new and new != [self._row(run)]:
            if new[0] < len(self._listed):
                self._picked = run.id, self._listed[new[0]].place
            self._tell(run)

    def _row(self, run: Run) -> int:
        """Row of the failure that the reader has picked; the first unless picked."""
        places = [(run.id, failure.place) for failure in self._listed]
        return places.index(self._picked) if self._picked in places else 0

    def _tell(self, run: Run | None) -> None:
        """Show the traceback of the failure that was picked."""
        if run is None or not self._listed:
            say(self.traceback, "Nothing has failed.")
            return
        row = self._row(run)
        # Rows move when more is told, and what was picked moves with them.
        if self.failures.selected.indices != [row]:
            self.failures.selected.indices = [row]
        say(self.traceback, traceback_text(run, self._listed[row]))

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        columns = failure_columns(run)
        self._listed = in_order(run)
        show_table(self.failures, columns)
        shown = len(columns["run"])
        fit(self.table, shown, 12)
        counts = run.unsuccessful if run is not None else 0
        note = ""
        if counts > shown:
            note = (
                f"{counts:,} task runs failed, or did not run because of that; the "
                "first of each task are shown."
            )
        say(self.note, note)
        self._tell(run)

    def root(self) -> Any:
        """The layout."""
        return column(self.top(), self.note, self.table, self.traceback, **WIDE)
