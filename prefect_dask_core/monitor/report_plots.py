"""Report plots: what Bokeh draws in a report; it only lays out columns."""

from __future__ import annotations

from typing import Any, Final

from prefect_dask_core.engine.views import RunView
from prefect_dask_core.monitor.palette import COLORS, LINE, WAIT, worst
from prefect_dask_core.monitor.report_columns import (
    MOST_ROWS,
    Durations,
    Runs,
    Timeline,
    durations,
    timeline,
)
from prefect_dask_core.monitor.report_graph import Arrow, Box, graph
from prefect_dask_core.monitor.texts import cut

#: Heights in pixels of a row of a timeline, and of all around the rows.
ROW: Final = 26
MOST_ROW: Final = 90
AROUND: Final = 74
FONT: Final = 'system-ui, "Segoe UI", Roboto, sans-serif'
#: Characters of the longest name on an axis.
LONGEST_NAME: Final = 30

#: What stands at powers of ten of a second, from a microsecond on.
DECADES: Final = (
    *("1 µs", "10 µs", "0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s"),
    *("10 s", "100 s", "17 min", "2.8 h", "28 h", "12 d"),
)

_NOTHING: Final = "<p>No task has run.</p>"
_ONE_BY_ONE: Final = (
    "A bar is a task run; runs at the same time stand below each other. Orange lines "
    "are waits for a further attempt, a cross is a crash. Point at a bar to see more."
)
_BINNED: Final = (
    "There are too many task runs to draw each: a bar is a span of time, as high as "
    "threads were busy in it, in the colour of the worst state in which a run ended "
    "there, and blue where none did. Orange lines are waits for a further attempt, a "
    "cross is a crash."
)


def plots_of(view: RunView, runs: Runs, seconds: float) -> tuple[str, dict[str, str]]:
    """Plots of a run.

    Parameters
    ----------
    view : RunView
        The run.
    runs : Runs
        Its task runs.
    seconds : float
        How long it took.

    Returns
    -------
    str
        Scripts for the end of the page: Bokeh itself, and the plots.
    dict of str to str
        HTML of ``by_task``, ``by_worker``, ``graph`` and ``durations``, and a ``note``
        on how the timelines are to be read.
    """
    from bokeh.embed import components
    from bokeh.resources import Resources

    figures: dict[str, Any] = {}
    note = ""
    if len(runs):
        by_task = timeline(runs, by_worker=False)
        figures["by_task"] = _timeline(by_task, seconds)
        figures["by_worker"] = _timeline(timeline(runs, by_worker=True), seconds)
        figures["durations"] = _durations(durations(runs)[:MOST_ROWS])
        note = _BINNED if by_task.binned else _ONE_BY_ONE
    boxes, arrows = graph(view)
    if boxes:
        figures["graph"] = _graph(boxes, arrows)
    found = dict.fromkeys(("by_task", "by_worker", "graph", "durations"), _NOTHING)
    found["note"] = note
    if not figures:
        return "", found
    script, drawn = components(figures)
    code = Resources(mode="inline", components=["bokeh"]).render_js()
    return f"{code}{script}", {**found, **drawn}


def _figure(height: int, **options: Any) -> Any:
    """An empty figure in the style of the page."""
    from bokeh.plotting import figure

    made: Any = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        toolbar_location="above",
        background_fill_color="#ffffff",
        border_fill_color="#ffffff",
        outline_line_color=LINE,
        min_border_right=24,
        **options,
    )
    made.toolbar.logo = None
    made.grid.grid_line_color = "#e6ebf0"
    made.axis.axis_line_color = LINE
    made.axis.major_tick_line_color = LINE
    made.axis.minor_tick_line_color = None
    made.axis.major_label_text_font = made.axis.axis_label_text_font = FONT
    made.axis.major_label_text_font_size = "13px"
    made.axis.axis_label_text_font_size = "13px"
    made.axis.axis_label_text_font_style = "normal"
    return made


def _span(start: float, end: float) -> Any:
    """A range of an axis."""
    from bokeh.models import Range1d

    return Range1d(start=start, end=end)


def _timeline(found: Timeline, seconds: float) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool

    count = len(found.rows)
    lanes = _most_lanes(found)
    row = min(MOST_ROW, max(ROW, 7 * lanes))
    plot = _figure(
        AROUND + row * count,
        x_range=_span(-0.01 * seconds, 1.01 * seconds),
        y_range=_span(-count, 0),
        x_axis_label="seconds since the begin of the run",
    )
    bars = plot.quad(
        "left",
        "right",
        "top",
        "bottom",
        source=ColumnDataSource(found.bars),
        fill_color="color",
        line_color="color" if found.binned else "#ffffff",
        line_width=0 if found.binned else 0.5,
    )
    plot.segment(
        x0="left",
        x1="right",
        y0="y",
        y1="y",
        source=ColumnDataSource(found.waits),
        line_color="#ffffff",
        line_width=5,
    )
    plot.segment(
        x0="left",
        x1="right",
        y0="y",
        y1="y",
        source=ColumnDataSource(found.waits),
        line_color=WAIT,
        line_width=3,
    )
    plot.scatter(
        "x",
        "y",
        marker="x",
        size=10,
        line_width=3,
        source=ColumnDataSource(found.crashes),
        line_color="#000000",
    )
    _name_rows(plot, found.rows)
    tips = [("", "@name"), ("state", "@state"), ("from", "@left{0.000} s")]
    tips += [("to", "@right{0.000} s"), ("", "@place")]
    if not found.binned:
        tips.append(("attempts", "@attempts"))
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    return plot


def _most_lanes(found: Timeline) -> int:
    """How many bars lie below each other, at most."""
    if found.binned or not found.bars["top"]:
        return 3
    least = min(
        top - bottom
        for top, bottom in zip(found.bars["top"], found.bars["bottom"], strict=True)
    )
    return round(0.84 / max(float(least) / 0.9, 0.01))


def _name_rows(plot: Any, names: tuple[str, ...] | list[str]) -> None:
    from bokeh.models import FixedTicker

    ticks = [-number - 0.5 for number in range(len(names))]
    plot.yaxis.ticker = FixedTicker(ticks=ticks)
    plot.yaxis.major_label_overrides = {
        tick: cut(name, LONGEST_NAME) for tick, name in zip(ticks, names, strict=True)
    }
    plot.ygrid.grid_line_color = None


def _durations(found: list[Durations]) -> Any:
    from bokeh.models import ColumnDataSource, FixedTicker, HoverTool

    least = 1e-6  # a logarithm needs something; shorter than any clock tells
    rows = [-number - 0.5 for number in range(len(found))]
    columns: dict[str, list[Any]] = {
        "y": rows,
        "task": [one.task for one in found],
        "runs": [one.runs for one in found],
        "least": [max(one.least, least) for one in found],
        "low": [max(one.low, least) for one in found],
        "median": [max(one.median, least) for one in found],
        "high": [max(one.high, least) for one in found],
        "most": [max(one.most, least) for one in found],
    }
    low = min(columns["least"]) / 1.6
    decades = [exponent for exponent in range(-6, 7) if 10.0**exponent >= low]
    plot = _figure(
        AROUND + ROW * len(found),
        x_axis_type="log",
        x_range=_span(low, max(columns["most"]) * 1.6),
        y_range=_span(-len(found), 0),
        x_axis_label="time that a run took (logarithmic): least, quartiles, most",
    )
    source = ColumnDataSource(columns)
    plot.xaxis.ticker = FixedTicker(ticks=[10.0**exponent for exponent in decades])
    plot.xaxis.major_label_overrides = {
        10.0**exponent: DECADES[exponent + 6] for exponent in decades
    }
    plot.segment("least", "y", "most", "y", source=source, line_color="#55626f")
    bars = plot.hbar(
        y="y",
        left="low",
        right="high",
        height=0.56,
        source=source,
        fill_color=COLORS["Running"],
        line_color="#1c2630",
    )
    for column in ("least", "most", "median"):
        plot.scatter(
            column,
            "y",
            marker="dash",
            angle=1.5708,
            size=9 if column != "median" else 15,
            line_color="#1c2630",
            line_width=1 if column != "median" else 3,
            source=source,
        )
    _name_rows(plot, columns["task"])
    tips = [("", "@task"), ("runs", "@runs{0,0}")]
    tips += [(name, f"@{name}{{0.000000}} s") for name in ("least", "median", "most")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    return plot


# -- graph -------------------------------------------------------------------------

#: Widths and heights of boxes and their places, in units of the plot.
WIDTH: Final = 0.86
HEIGHT: Final = 0.5
#: How far beside its ends the middle of a long arrow is pulled.
AROUND_BOX: Final = 0.85


def _graph(boxes: list[Box], arrows: list[Arrow]) -> Any:
    columns = 1 + max(box.x for box in boxes)
    layers = 1 + max(-box.y for box in boxes)
    shown = max(columns, 5.0)  # else the few boxes of a chain would be as wide as it
    left = -0.5 - (shown - columns) / 2
    plot = _figure(
        int(40 + 76 * layers),
        x_range=_span(left, left + shown),
        y_range=_span(0.5 - layers, 0.5),
    )
    plot.axis.visible = False
    plot.grid.visible = False
    _draw_arrows(plot, boxes, arrows)
    _draw_boxes(plot, boxes, most=max(4, int(92 / shown)))
    return plot


def _draw_arrows(plot: Any, boxes: list[Box], arrows: list[Arrow]) -> None:
    from bokeh.models import ColumnDataSource

    ends = {name: name for name in ("x0", "y0", "x1", "y1", "cx0", "cy0", "cx1", "cy1")}
    for dashed in (False, True):
        chosen = [arrow for arrow in arrows if arrow.mapped is dashed]
        plot.bezier(
            source=ColumnDataSource(_curves(boxes, chosen)),
            **ends,
            line_color="#7d8894",
            line_width=1.6,
            line_dash="dashed" if dashed else "solid",
        )
    plot.scatter(
        "x",
        "y",
        marker="inverted_triangle",
        size=8,
        color="#7d8894",
        source=ColumnDataSource(_heads(boxes, arrows)),
    )


def _draw_boxes(plot: Any, boxes: list[Box], most: int) -> None:
    """Draw boxes with texts of at most so many characters."""
    from bokeh.core.properties import value
    from bokeh.models import ColumnDataSource, HoverTool

    found: dict[str, list[Any]] = {
        "x": [box.x for box in boxes],
        "y": [box.y for box in boxes],
        "edge": [COLORS[worst(box.counts)] for box in boxes],
        "name": [box.name for box in boxes],
        "label": [cut(box.name, most) for box in boxes],
        "told": [_told(box, most) for box in boxes],
        "states": [
            ", ".join(f"{count:,} {name}" for name, count in box.counts.items())
            for box in boxes
        ],
    }
    source = ColumnDataSource(found)
    drawn = plot.rect(
        "x",
        "y",
        WIDTH,
        HEIGHT,
        source=source,
        fill_color="#ffffff",
        line_color="edge",
        line_width=3,
    )
    for column, offset, style in (("label", -5, "bold"), ("told", 11, "normal")):
        plot.text(
            "x",
            "y",
            text=column,
            y_offset=offset,
            source=source,
            text_align="center",
            text_font=value(FONT),  # else it would name a column
            text_baseline="middle",
            text_font_size="13px" if style == "bold" else "12px",
            text_font_style=style,
            text_color="#1c2630",
        )
    tips = [("", "@name"), ("states", "@states")]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tips))


def _told(box: Box, most: int) -> str:
    """What stands below the name of a box."""
    kind = worst(box.counts)
    if not box.mapped and box.runs == 1:
        return cut(kind, most)
    bad = box.counts.get(kind, 0)
    of = "" if bad == box.runs else f" of {box.runs:,}"
    return cut(f"{bad:,}{of} {kind}", most)


def _curves(boxes: list[Box], arrows: list[Arrow]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {
        key: [] for key in ("x0", "y0", "x1", "y1", "cx0", "cy0", "cx1", "cy1")
    }
    for arrow in arrows:
        start, end = boxes[arrow.start], boxes[arrow.end]
        top, bottom = start.y - HEIGHT / 2, end.y + HEIGHT / 2 + 0.06
        # A long arrow goes around the boxes between, and does not hide behind them.
        is_long = start.y - end.y > 1
        side = WIDTH * 0.3 if is_long else 0.0
        found["x0"].append(start.x + side)
        found["y0"].append(top)
        found["x1"].append(end.x + side)
        found["y1"].append(bottom)
        found["cx0"].append(start.x + (AROUND_BOX if is_long else 0.0))
        found["cx1"].append(end.x + (AROUND_BOX if is_long else 0.0))
        found["cy0"].append(top - 0.3)
        found["cy1"].append(bottom + 0.3)
    return found


def _heads(boxes: list[Box], arrows: list[Arrow]) -> dict[str, list[float]]:
    places = set()
    for arrow in arrows:
        end = boxes[arrow.end]
        side = WIDTH * 0.3 if boxes[arrow.start].y - end.y > 1 else 0.0
        places.add((end.x + side, end.y + HEIGHT / 2 + 0.05))
    return {"x": [x for x, _ in sorted(places)], "y": [y for _, y in sorted(places)]}
