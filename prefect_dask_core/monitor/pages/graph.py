"""Graph page: the nodes of a run as boxes, coloured by state."""

from __future__ import annotations

from typing import Any, Final

from bokeh.document import Document
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, HoverTool, PanTool, Range1d
from bokeh.models.widgets.markups import Div
from bokeh.plotting import figure
from distributed import Scheduler

from prefect_dask_core.monitor.columns import OPEN_COLOR, Columns
from prefect_dask_core.monitor.graph import picture
from prefect_dask_core.monitor.pages.page import Page
from prefect_dask_core.monitor.pages.widgets import STATES, WIDE, legend, say, show
from prefect_dask_core.monitor.palette import COLORS
from prefect_dask_core.monitor.runs import Run

#: Pixels between two columns and rows of boxes, and the size of a box.
_COLUMN: Final = 210
_ROW: Final = 78
_BOX_WIDTH: Final = 164
_BOX_HEIGHT: Final = 58


class GraphPage(Page):
    """The nodes of a run, coloured by state."""

    title = "Graph"

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        super().__init__(scheduler, document)
        empty = picture(None)
        self.boxes = ColumnDataSource(name="boxes", data=self._placed(empty.boxes))
        self.lines = ColumnDataSource(name="lines", data=self._curved(empty.lines))
        self.note = Div(text="", **WIDE)
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
        width, height = _COLUMN * found.columns, round(_ROW * found.rows)
        if (self.figure.width, self.figure.height) != (width, height):
            # Else it would be squeezed into the window, with names across each other.
            self.figure.update(width=width, height=height, min_width=width)
            self.figure.x_range.update(start=0, end=width)
            self.figure.y_range.update(start=-height, end=0)
        show(self.lines, self._curved(found.lines))
        show(self.boxes, self._placed(found.boxes))
        note = "The flow has many nodes: those of one task are one box." * found.by_task
        say(self.note, note)

    def root(self) -> Any:
        """The layout."""
        colors = {**STATES, "Running": COLORS["Running"], "Pending": OPEN_COLOR}
        scrolled = column(
            self.figure, styles={"overflow": "auto", "max-width": "100%"}, **WIDE
        )
        return column(self.top(), legend(colors), self.note, scrolled, **WIDE)
