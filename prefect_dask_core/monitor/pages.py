"""Pages: the four pages of flow runs, for the dashboard of the scheduler.

A page lays out and sends what has changed; what it shows is worked out in `columns`,
`timeline` and `graph`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from bokeh.core.properties import without_property_validation
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJS,
    FixedTicker,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.models.widgets.groups import RadioButtonGroup
from bokeh.models.widgets.inputs import Select
from bokeh.models.widgets.markups import Div, PreText
from bokeh.models.widgets.tables import (
    CellFormatter,
    DataTable,
    HTMLTemplateFormatter,
    StringFormatter,
    TableColumn,
)
from bokeh.plotting import figure
from distributed import Scheduler

from prefect_dask_core.monitor import _private
from prefect_dask_core.monitor.columns import (
    COLORS,
    OPEN_COLOR,
    Columns,
    changes,
    clock_text,
    failure_columns,
    headline,
    run_columns,
    task_columns,
    traceback_text,
)
from prefect_dask_core.monitor.graph import picture
from prefect_dask_core.monitor.plugin import MonitorPlugin, flow_of, plugin_of
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.timeline import timeline

#: Milliseconds between two updates of a page.
UPDATE_EVERY: Final = 500
#: The choice of a run that follows the newest one.
NEWEST: Final = "newest"

_WIDE: Final[dict[str, Any]] = {"sizing_mode": "stretch_width"}
#: Cells are text, whatever a user's names and messages hold.
_TEXT: Final = StringFormatter


# -- sending what has changed ------------------------------------------------------


@without_property_validation  # type: ignore[untyped-decorator]
def show(source: ColumnDataSource, columns: Columns) -> None:
    """Let the source of a plot have these columns; sends what has changed only."""
    known: Any = source.data
    found = changes(known, columns)
    if found is None:
        source.data = columns
        return
    patches: Any = found[0]
    added: Any = found[1]
    count = len(next(iter(columns.values()), ()))
    if sum(map(len, patches.values())) > count * len(columns) / 2:
        source.data = columns
        return
    if patches:
        source.patch(patches)
    if any(map(len, added.values())):
        source.stream(added)


@without_property_validation  # type: ignore[untyped-decorator]
def show_table(source: ColumnDataSource, columns: Columns) -> None:
    """Let the source of a table have these columns; sends those that have changed."""
    known: Any = source.data
    changed: Any = {n: found for n, found in columns.items() if known.get(n) != found}
    if changed:
        rows = {len(found) for found in (*known.values(), *columns.values())}
        # Columns of another length cannot come one after the other.
        source.data.update(changed if len(rows) == 1 else columns)


def _say(widget: Div | PreText, text: str) -> None:
    if widget.text != text:
        widget.text = text


# -- what the pages share ----------------------------------------------------------


class Page:
    """One page for one reader.

    Parameters
    ----------
    scheduler : Scheduler
        Whose dashboard it is in.
    document : Document
        Of the reader; its request may name a run, ``?run=<id>``.
    """

    title: ClassVar[str]

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        self._scheduler = scheduler
        asked = _asked_run(document)
        self.choice: Any = Select(value=asked or NEWEST, options=[], width=340)
        self.choice.js_on_change("value", _remember())
        self.choice.on_change("value", self._chosen)
        self.headline = Div(
            text="", styles={"font-size": "15px", "padding-top": "6px"}, **_WIDE
        )
        self._shown: Any = None
        self._time: Callable[[], float] = time.time

    def _chosen(self, attr: str, old: Any, new: Any) -> None:
        self.update()

    @property
    def plugin(self) -> MonitorPlugin | None:
        """What knows the runs."""
        return plugin_of(self._scheduler)

    def run(self) -> Run | None:
        """The run that the reader has chosen, or the newest one."""
        plugin = self.plugin
        if plugin is None:
            return None
        if self.choice.value == NEWEST:
            return plugin.newest()
        return plugin.runs.get(str(self.choice.value))

    def top(self) -> Any:
        """The line above: which run, and how it is."""
        return row(self.choice, self.headline, **_WIDE)

    def update(self) -> None:
        """Show what is known now, if it is new."""
        plugin, now = self.plugin, self._time()
        if plugin is None:
            return
        run = self.run()
        goes_on = run is not None and run.ended is None
        # What goes on changes with time alone: its duration, its rate.
        state = (
            plugin.version,
            self.choice.value,
            int(2 * now) if goes_on else 0,
        )
        if state == self._shown:
            return
        self._shown = state
        options = [
            (NEWEST, "newest run"),
            *map(_option, reversed(plugin.runs.values())),
        ]
        if self.choice.options != options:
            self.choice.options = options
        _say(self.headline, _escaped(headline(run, now)))
        self.draw(run, now)

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        raise NotImplementedError

    def root(self) -> Any:
        """The layout."""
        raise NotImplementedError


def _option(run: Run) -> tuple[str, str]:
    when = "" if run.begun is None else f" · {clock_text(run.begun.begin)}"
    return run.id, f"{flow_of(run)} · {run.id[:8]}{when}"


def _asked_run(document: Document) -> str:
    # What Bokeh's server puts there has a request, which its base class does not know.
    request = getattr(document.session_context, "request", None)
    found = request.arguments.get("run", [b""]) if request is not None else [b""]
    return bytes(found[0]).decode("ascii", "ignore")[:64]


def _escaped(text: str) -> str:
    for character, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, code)
    return text


def _remember() -> CustomJS:
    """Lets the address tell the run that was chosen, and the links to other pages."""
    return CustomJS(
        code="""
        const url = new URL(window.location);
        const chosen = cb_obj.value;
        if (chosen === "newest") url.searchParams.delete("run");
        else url.searchParams.set("run", chosen);
        window.history.replaceState(null, "", url);
        window.dispatchEvent(new Event("flow-run-chosen"));
        """
    )


#: A bar of parts, each as ``percent:color:label``.
_BAR_TEMPLATE: Final = f"""
<div style="display:flex;height:14px;margin-top:4px;background:{OPEN_COLOR};
border-radius:2px;overflow:hidden">
<% (value ? value.split(";") : []).forEach(function (part) {{
  var at = part.split(":"); %>
<div title="<%- at[2] %>" style="width:<%- at[0] %>%;background:<%- at[1] %>"></div>
<% }}) %>
</div>
"""
#: A state with its colour beside it.
_STATE_TEMPLATE: Final = """
<div><span style="display:inline-block;width:10px;height:10px;border-radius:5px;
margin-right:6px;background:<%- color %>"></span><%- value %></div>
"""
#: A count that stands out if it is not 0.
_COUNT_TEMPLATE: Final = """
<span style="<%- value ? 'font-weight:bold;color:#a34700' : 'color:#9aa5b1' %>">
<%- value.toLocaleString("en-US") %></span>
"""


#: Says that a text goes on, and keeps Bokeh's tables below the menu of the dashboard.
_CELLS: Final = """
.bk-data-table { z-index: 0; }
.slick-cell > * { display: block; overflow: hidden; text-overflow: ellipsis; }
"""


def _html(template: str) -> HTMLTemplateFormatter:
    return HTMLTemplateFormatter(template=template)


def _table(
    source: ColumnDataSource,
    columns: Mapping[str, tuple[str, int, CellFormatter]],
    **options: Any,
) -> DataTable:
    """A table; per column its field, its title, its share of the width, its format."""
    table = DataTable(
        source=source,
        columns=[
            TableColumn(
                field=field,
                title=title,
                width=width,
                sortable=False,
                formatter=formatter,
            )
            for field, (title, width, formatter) in columns.items()
        ],
        index_position=None,
        reorderable=False,
        stylesheets=[_CELLS],
        autosize_mode="force_fit",
        **{**_WIDE, **options},
    )
    # Bokeh 3.9 draws a table anew only if the number of its rows has changed.
    redraw = CustomJS(args={"view": table.view}, code="view.change.emit()")
    source.js_on_change("data", redraw)
    return table


def _fit(table: DataTable, rows: int, most: int) -> None:
    """Let a table be as high as its rows; it scrolls where there are more than most."""
    height = 32 + 25 * max(1, min(rows, most))
    if table.height != height:
        table.height = height


def _legend(entries: Mapping[str, str]) -> Div:
    """A line that says what colours mean."""
    parts = [
        f'<span style="white-space:nowrap;margin-right:14px"><span style="display:'
        "inline-block;width:11px;height:11px;margin-right:5px;"
        f'border:1px solid #8a929a;background:{color}"></span>{_escaped(name)}</span>'
        for name, color in entries.items()
    ]
    return Div(text=" ".join(parts), styles={"line-height": "1.7"}, **_WIDE)


_STATES: Final = {
    "Completed": COLORS["Completed"],
    "Cached": COLORS["Cached"],
    "Skipped": COLORS["Skipped"],
    "Paused": COLORS["Paused"],
    "Cancelled": COLORS["Cancelled"],
    "Trigger failed": COLORS["TriggerFailed"],
    "Failed": COLORS["Failed"],
    "Timed out": COLORS["TimedOut"],
    "Crashed": COLORS["Crashed"],
}


# -- the pages ---------------------------------------------------------------------


class FlowRunsPage(Page):
    """All runs, and the tasks of one of them."""

    title = "Flow runs"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        self.runs = ColumnDataSource(name="runs", data=run_columns([], 0.0))
        self.tasks = ColumnDataSource(name="tasks", data=task_columns(None, 0.0))
        self.runs_table = _table(
            self.runs,
            {
                "flow": ("Flow", 130, _TEXT()),
                "run": ("Run", 110, _TEXT()),
                "state": ("State", 120, _html(_STATE_TEMPLATE)),
                "begin": ("Begun", 85, _TEXT()),
                "duration": ("Duration", 80, _TEXT()),
                "parts": ("Progress", 160, _html(_BAR_TEMPLATE)),
                "progress": ("Task runs", 130, _TEXT()),
                "failed": ("Failed", 60, _html(_COUNT_TEMPLATE)),
                "retries": ("Retries", 60, _html(_COUNT_TEMPLATE)),
                "rate": ("Rate", 80, _TEXT()),
                "left": ("Time left", 80, _TEXT()),
            },
        )
        self.tasks_table = _table(
            self.tasks,
            {
                "task": ("Task", 160, _TEXT()),
                "parts": ("Progress", 300, _html(_BAR_TEMPLATE)),
                "progress": ("Task runs", 130, _TEXT()),
                "rate": ("Rate", 80, _TEXT()),
                "left": ("Time left", 80, _TEXT()),
                "typical": ("Typical", 90, _TEXT()),
                "failed": ("Failed", 60, _html(_COUNT_TEMPLATE)),
                "retries": ("Retries", 60, _html(_COUNT_TEMPLATE)),
            },
        )
        self.runs.selected.on_change("indices", self._choose)

    def _choose(self, attr: str, old: Any, new: list[int]) -> None:
        if new and new[0] < len(self.runs.data["id"]):
            self.choice.value = self.runs.data["id"][new[0]]

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        assert self.plugin is not None
        runs, tasks = (
            run_columns(self.plugin.runs.values(), now),
            task_columns(run, now),
        )
        show_table(self.runs, runs)
        show_table(self.tasks, tasks)
        _fit(self.runs_table, len(runs["id"]), 8)
        _fit(self.tasks_table, len(tasks["task"]), 40)

    def root(self) -> Any:
        """The layout."""
        return column(
            self.runs_table,
            self.top(),
            _legend({**_STATES, "not ended": OPEN_COLOR}),
            self.tasks_table,
            **_WIDE,
        )


def _mark(shape: str, name: str) -> str:
    """An entry of a legend, with a picture of 16 x 12 pixels."""
    return (
        '<span style="white-space:nowrap;margin-right:16px">'
        '<svg width="16" height="12" '
        f'style="vertical-align:-1px;margin-right:5px">{shape}</svg>{name}</span>'
    )


#: What the marks on the timeline mean, drawn as they are there.
_MARKS: Final = " ".join(
    (
        _mark(
            '<rect x="0.5" y="0.5" width="15" height="11" fill="#f4f4f4" '
            'stroke="#8a929a"/><path d="M2 11L12 1M7 11L15 3M-1 8L7 0" '
            'stroke="#8a929a"/>',
            "waits for a retry",
        ),
        _mark(
            '<path d="M8 1.5L13 10.5H3Z" fill="#fff" stroke="#1a1a1a"/>',
            "more than one attempt",
        ),
        _mark(
            f'<path d="M8 0.5L12 6L8 11.5L4 6Z" fill="{COLORS["Failed"]}" '
            'stroke="#1a1a1a"/>',
            "failed",
        ),
        _mark(
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
        self.colors = _legend({})
        self.figure = self._figure()

    def _figure(self) -> Any:
        plot = figure(
            height=400,
            x_axis_label="seconds since the run began",
            y_range=Range1d(start=-1, end=1),
            tools="",
            **_WIDE,
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
        legend = _legend(shown).text
        if len(found.colors) > len(shown):
            legend += f" and {len(found.colors) - len(shown):,} more"
        _say(self.colors, legend)

    def root(self) -> Any:
        """The layout."""
        marks = Div(text=_MARKS, styles={"line-height": "1.7"}, **_WIDE)
        return column(
            self.top(),
            row(self.by, self.colors, **_WIDE),
            marks,
            self.figure,
            **_WIDE,
        )


#: Pixels between two columns and rows of boxes, and the size of a box.
_COLUMN, _ROW, _BOX_WIDTH, _BOX_HEIGHT = 210, 78, 164, 58


class GraphPage(Page):
    """The nodes of a run, coloured by state."""

    title = "Graph"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        empty = picture(None)
        self.boxes = ColumnDataSource(name="boxes", data=self._placed(empty.boxes))
        self.lines = ColumnDataSource(name="lines", data=self._curved(empty.lines))
        self.note = Div(text="", **_WIDE)
        self.figure = self._figure()

    def _figure(self) -> Any:
        plot = figure(
            width=_COLUMN,
            height=_ROW,
            x_range=Range1d(start=0, end=_COLUMN),
            y_range=Range1d(start=-_ROW, end=0),
            tools="",
            outline_line_color=None,
            min_border=0,
        )
        plot.axis.visible = False
        plot.grid.visible = False
        plot.bezier(
            source=self.lines,
            x0="x0",
            y0="y0",
            x1="x1",
            y1="y1",
            cx0="cx0",
            cy0="y0",
            cx1="cx1",
            cy1="y1",
            line_color="#8a929a",
            line_width=1.5,
        )
        boxes = plot.rect(
            source=self.boxes,
            x="x",
            y="y",
            width=_BOX_WIDTH,
            height=_BOX_HEIGHT,
            fill_color="color",
            line_color="#333333",
            line_width="line",
        )
        texts: dict[str, Any] = {
            "source": self.boxes,
            "x": "x",
            "text_align": "center",
            "text_baseline": "alphabetic",
            "text_color": "ink",
        }
        for name, size in (("name", 13), ("count", 12), ("bad", 12)):
            place: dict[str, Any] = {
                "text": name,
                "y": f"y_{name}",
                "text_font_size": f"{size}px",
            }
            plot.text(**place, **texts)
        plot.add_tools(HoverTool(renderers=[boxes], tooltips="@what"), PanTool())
        plot.toolbar_location = None
        return plot

    @staticmethod
    def _placed(boxes: Columns) -> Columns:
        """Boxes in pixels."""
        x = [_COLUMN * (at + 0.5) for at in boxes["x"]]
        y = [-_ROW * (at + 0.5) for at in boxes["y"]]
        # Base lines of two or three lines of text, in the middle of the box.
        top = [at + (16 if bad else 9) for at, bad in zip(y, boxes["bad"], strict=True)]
        lines = {"name": top, "count": [at - 16 for at in top]}
        lines["bad"] = [at - 32 for at in top]
        return {**boxes, "x": x, "y": y, **{f"y_{n}": at for n, at in lines.items()}}

    @staticmethod
    def _curved(lines: Columns) -> Columns:
        """Lines in pixels, from the right of a box to the left of another."""
        x0 = [_COLUMN * (at + 0.5) + _BOX_WIDTH / 2 for at in lines["x0"]]
        x1 = [_COLUMN * (at + 0.5) - _BOX_WIDTH / 2 for at in lines["x1"]]
        reach = [max(20.0, (b - a) / 2) for a, b in zip(x0, x1, strict=True)]
        return {
            "x0": x0,
            "y0": [-_ROW * (at + 0.5) for at in lines["y0"]],
            "x1": x1,
            "y1": [-_ROW * (at + 0.5) for at in lines["y1"]],
            "cx0": [a + r for a, r in zip(x0, reach, strict=True)],
            "cx1": [b - r for b, r in zip(x1, reach, strict=True)],
        }

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        found = picture(run)
        width, height = _COLUMN * found.columns, _ROW * found.rows
        if (self.figure.width, self.figure.height) != (width, height):
            self.figure.update(width=width, height=height)
            self.figure.x_range.update(start=0, end=width)
            self.figure.y_range.update(start=-height, end=0)
        show(self.lines, self._curved(found.lines))
        show(self.boxes, self._placed(found.boxes))
        note = "The flow has many nodes: those of one task are one box." * found.by_task
        _say(self.note, note)

    def root(self) -> Any:
        """The layout."""
        legend = {**_STATES, "Running": COLORS["Running"], "Pending": OPEN_COLOR}
        scrolled = column(
            self.figure, styles={"overflow": "auto", "max-width": "100%"}, **_WIDE
        )
        return column(self.top(), _legend(legend), self.note, scrolled, **_WIDE)


class FailuresPage(Page):
    """What failed, and where."""

    title = "Failures"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        self.failures = ColumnDataSource(name="failures", data=failure_columns(None))
        self.table = _table(
            self.failures,
            {
                "run": ("Task run", 140, _TEXT()),
                "state": ("State", 110, _html(_STATE_TEMPLATE)),
                "message": ("Message", 330, _TEXT()),
                "arguments": ("Arguments", 230, _TEXT()),
                "worker": ("Worker", 150, _TEXT()),
                "attempts": ("Attempts", 60, _TEXT()),
                "end": ("Ended", 80, _TEXT()),
            },
        )
        self.note = Div(text="", **_WIDE)
        self.traceback = PreText(
            text="",
            styles={
                "background": "#ffffff",
                "border": "1px solid #d0d7de",
                "padding": "8px",
                "overflow": "auto",
                "max-width": "100%",
            },
            **_WIDE,
        )
        self.failures.selected.on_change("indices", self._choose)

    def _choose(self, attr: str, old: Any, new: list[int]) -> None:
        self._tell(self.run())

    def _tell(self, run: Run | None) -> None:
        """Show the traceback of the chosen failure; that of the first unless chosen."""
        labels = self.failures.data["run"]
        chosen = [n for n in self.failures.selected.indices if n < len(labels)] or [0]
        text = ""
        if labels:
            state = self.failures.data["state"][chosen[0]]
            text = traceback_text(run, labels[chosen[0]], state)
        _say(self.traceback, text or "Nothing has failed.")

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        columns = failure_columns(run)
        show_table(self.failures, columns)
        shown = len(columns["run"])
        _fit(self.table, shown, 12)
        count = sum(tally.failed for tally in run.tasks) if run is not None else 0
        note = ""
        if count > shown:
            note = f"{count:,} task runs failed; the first of each task are shown."
        _say(self.note, note)
        self._tell(run)

    def root(self) -> Any:
        """The layout."""
        return column(self.top(), self.note, self.table, self.traceback, **_WIDE)


#: Pages by path, in the order of the navigation.
PAGES: Final[dict[str, type[Page]]] = {
    "/flow-runs": FlowRunsPage,
    "/flow-timeline": TimelinePage,
    "/flow-graph": GraphPage,
    "/flow-failures": FailuresPage,
}


def document_of(path: str, page_class: type[Page]) -> Callable[..., None]:
    """What makes the document of a page, as Dask's own pages are made."""

    def document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
        page = page_class(scheduler, doc)
        page.update()
        doc.title = f"Dask: {page.title}"
        doc.add_root(page.root())
        doc.template = _private.template("flows.html")
        doc.template_variables.update(extra)
        doc.template_variables["flow_page"] = path.strip("/")
        doc.template_variables["flow_pages"] = [
            {"url": other.strip("/"), "name": PAGES[other].title} for other in PAGES
        ]
        doc.theme = _private.theme()
        doc.add_periodic_callback(page.update, UPDATE_EVERY)

    return document
