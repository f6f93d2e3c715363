"""Timeline page: when and where blocks of a run ran."""

from __future__ import annotations

from typing import Any, Final

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.models.widgets.groups import RadioButtonGroup
from bokeh.models.widgets.markups import Div
from bokeh.plotting import figure
from distributed import Scheduler

from prefect_dask_core.monitor.pages.page import Page
from prefect_dask_core.monitor.pages.widgets import WIDE, legend, mark, say, show
from prefect_dask_core.monitor.palette import COLORS
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.timeline import timeline

#: What the marks on the timeline mean, drawn as they are there.
_MARKS: Final = " ".join(
    (
        mark(
            '<rect x="0.5" y="0.5" width="15" height="11" fill="#f4f4f4" '
            'stroke="#8a929a"/><path d="M2 11L12 1M7 11L15 3M-1 8L7 0" '
            'stroke="#8a929a"/>',
            "waits for a retry",
        ),
        mark(
            '<path d="M8 1.5L13 10.5H3Z" fill="#fff" stroke="#1a1a1a"/>',
            "more than one attempt",
        ),
        mark(
            f'<path d="M8 0.5L12 6L8 11.5L4 6Z" fill="{COLORS["Failed"]}" '
            'stroke="#1a1a1a"/>',
            "failed",
        ),
        mark(
            '<path d="M3 1L13 11M13 1L3 11" stroke="#000" stroke-width="3"/>',
            "crashed, or its worker died",
        ),
    )
)


class TimelinePage(Page):
    """When and where blocks ran."""

    title = "Timeline"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        self.by = RadioButtonGroup(labels=["by worker", "by task"], active=0, width=190)
        self.by.on_change("active", self._redraw)
        empty = timeline(None, False)
        self.bars = ColumnDataSource(name="bars", data=empty.bars)
        self.waits = ColumnDataSource(name="waits", data=empty.waits)
        self.retries = ColumnDataSource(name="retries", data=empty.retries)
        self.failures = ColumnDataSource(name="failures", data=empty.failures)
        self.deaths = ColumnDataSource(name="deaths", data=empty.deaths)
        self.colors = legend({})
        self.figure = self._figure()

    def _figure(self) -> Any:
        plot = figure(
            height=400,
            x_axis_label="seconds since the run began",
            y_range=Range1d(start=-1, end=1),
            tools="",
            **WIDE,
        )
        plot.ygrid.grid_line_color = None
        plot.yaxis.ticker = FixedTicker(ticks=[])
        plot.yaxis.minor_tick_line_color = None
        edges: dict[str, Any] = {n: n for n in ("left", "right", "bottom", "top")}
        bars = plot.quad(
            source=self.bars,
            **edges,
            fill_color="color",
            fill_alpha=0.75,
            line_color="#333333",
            line_alpha=0.35,
            line_width=0.5,
        )
        waits = plot.quad(
            source=self.waits,
            **edges,
            fill_color="#f4f4f4",
            hatch_pattern="right_diagonal_line",
            hatch_color="#8a929a",
            line_color="#8a929a",
        )
        retries = plot.scatter(
            source=self.retries,
            marker="triangle",
            size=8,
            fill_color="#ffffff",
            line_color="#1a1a1a",
        )
        failures = plot.scatter(
            source=self.failures,
            marker="diamond",
            size=11,
            fill_color=COLORS["Failed"],
            line_color="#1a1a1a",
        )
        deaths = plot.scatter(
            source=self.deaths,
            marker="x",
            size=16,
            line_color=COLORS["Crashed"],
            line_width=4,
        )
        pan, zoom = PanTool(), WheelZoomTool(dimensions="width")
        told = [
            ("task", "@task"),
            ("", "@what"),
            ("took", "@seconds"),
            ("on", "@worker"),
        ]
        plot.add_tools(
            pan,
            BoxZoomTool(),
            zoom,
            ResetTool(),
            HoverTool(renderers=[bars], tooltips=told, point_policy="follow_mouse"),
            HoverTool(
                renderers=[waits],
                tooltips="waits for a retry of @task: @seconds",
                point_policy="follow_mouse",
            ),
            HoverTool(renderers=[retries, failures, deaths], tooltips="@what"),
        )
        plot.toolbar.active_scroll = None
        return plot

    def _redraw(self, attr: str, old: Any, new: Any) -> None:
        self._shown = None
        self.update()

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        found = timeline(run, by_task=self.by.active == 1)
        for name in ("bars", "waits", "retries", "failures", "deaths"):
            show(getattr(self, name), getattr(found, name))
        axis = self.figure.yaxis[0]
        labels = {place: text for place, text in found.labels.items() if text}
        if axis.major_label_overrides != labels:
            axis.ticker.ticks = sorted(labels)
            axis.major_label_overrides = labels
        self.figure.y_range.update(start=-found.rows + 0.4, end=0.6)
        self.figure.height = 70 + max(120, min(2_400, 40 * found.rows))
        shown = dict(list(found.colors.items())[:14])
        told = legend(shown).text
        if len(found.colors) > len(shown):
            told += f" and {len(found.colors) - len(shown):,} more"
        say(self.colors, told)

    def root(self) -> Any:
        """The layout."""
        marks = Div(text=_MARKS, styles={"line-height": "1.7"}, **WIDE)
        return column(
            self.top(),
            row(self.by, self.colors, **WIDE),
            marks,
            self.figure,
            **WIDE,
        )
