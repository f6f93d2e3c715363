"""Widgets: what the pages are put together of, and how what has changed is sent."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, Final

from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, CustomJS
from bokeh.models.widgets.markups import Div, PreText
from bokeh.models.widgets.tables import (
    DataTable,
    HTMLTemplateFormatter,
    TableColumn,
)

from prefect_dask_core.monitor.columns import OPEN_COLOR, Columns, changes
from prefect_dask_core.monitor.palette import COLORS

#: Let a model be as wide as the page.
WIDE: Final[dict[str, Any]] = {"sizing_mode": "stretch_width"}
#: Colours of states in legends, by what is written beside them.
STATES: Final = {
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


def say(widget: Div | PreText, text: str) -> None:
    """Let a widget have a text."""
    if widget.text != text:
        widget.text = text


# -- tables ------------------------------------------------------------------------

#: Cells are text, whatever a user's names and messages hold; the pointer reads the
#: whole of one that is cut.
TEXT: Final = '<div title="<%- value %>"><%- value %></div>'
#: A short text that stands for the one in the column ``run``.
LABEL: Final = '<div title="<%- run %>"><%- value %></div>'
#: A bar of parts, each as ``percent:color:label``.
BAR: Final = f"""
<div style="display:flex;height:14px;margin-top:4px;background:{OPEN_COLOR};
border-radius:2px;overflow:hidden">
<% (value ? value.split(";") : []).forEach(function (part) {{
  var at = part.split(":"); %>
<div title="<%- at[2] %>" style="width:<%- at[0] %>%;background:<%- at[1] %>"></div>
<% }}) %>
</div>
"""
#: A state with its colour beside it.
STATE: Final = """
<div><span style="display:inline-block;width:10px;height:10px;border-radius:5px;
margin-right:6px;background:<%- color %>"></span><%- value %></div>
"""
#: A count that stands out if it is not 0.
COUNT: Final = """
<span style="<%- value ? 'font-weight:bold;color:#a34700' : 'color:#9aa5b1' %>">
<%- value.toLocaleString("en-US") %></span>
"""


#: Says that a text goes on, and keeps Bokeh's tables below the menu of the dashboard.
_CELLS: Final = """
.bk-data-table { z-index: 0; }
.slick-cell > * { display: block; overflow: hidden; text-overflow: ellipsis; }
"""


def table_of(
    source: ColumnDataSource,
    columns: Mapping[str, tuple[str, int, str]],
) -> DataTable:
    """A table.

    Parameters
    ----------
    source : ColumnDataSource
        Its rows.
    columns : mapping of str to (str, int, str)
        By field: title, share of the width, template of the cells.
    """
    table = DataTable(
        source=source,
        columns=[
            TableColumn(
                field=field,
                title=title,
                width=width,
                sortable=False,
                formatter=HTMLTemplateFormatter(template=template),
            )
            for field, (title, width, template) in columns.items()
        ],
        index_position=None,
        reorderable=False,
        stylesheets=[_CELLS],
        autosize_mode="force_fit",
        **WIDE,
    )
    # Bokeh 3.9 draws a table anew only if the number of its rows has changed.
    redraw = CustomJS(args={"view": table.view}, code="view.change.emit()")
    source.js_on_change("data", redraw)
    return table


def fit(table: DataTable, rows: int, most: int) -> None:
    """Let a table be as high as its rows; it scrolls where there are more than most."""
    height = 32 + 25 * max(1, min(rows, most))
    if table.height != height:
        table.height = height


# -- legends -----------------------------------------------------------------------


def legend(entries: Mapping[str, str]) -> Div:
    """A line that says what colours mean."""
    parts = [
        f'<span style="white-space:nowrap;margin-right:14px"><span style="display:'
        "inline-block;width:11px;height:11px;margin-right:5px;"
        f'border:1px solid #8a929a;background:{color}"></span>'
        f"{html.escape(name)}</span>"
        for name, color in entries.items()
    ]
    return Div(text=" ".join(parts), styles={"line-height": "1.7"}, **WIDE)


def mark(shape: str, name: str) -> str:
    """An entry of a legend, with a picture of 16 x 12 pixels."""
    return (
        '<span style="white-space:nowrap;margin-right:16px">'
        '<svg width="16" height="12" '
        f'style="vertical-align:-1px;margin-right:5px">{shape}</svg>{name}</span>'
    )
