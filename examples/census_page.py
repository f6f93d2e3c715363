"""The page of the census: one HTML text that loads nothing from elsewhere.

Figures become columns in small functions first; the others only lay these out.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    DataTable,
    Div,
    InlineStyleSheet,
    NumberFormatter,
    NumeralTickFormatter,
    Range1d,
    TableColumn,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE

if TYPE_CHECKING:
    from stdlib_census import Package, Totals

WIDTH = 1280
# One border for the labels of a column, so that its plots stand below one another.
LEFT = {"width": 660, "height": 520, "min_border_left": 270}
RIGHT = {"width": 620, "height": 520, "min_border_left": 110}
# Okabe and Ito's palette: told apart by colour-blind readers as well.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
HEADINGS = ".slick-header-column { font-weight: bold; }"
NUMBER_HEADINGS = (
    ".slick-header-column:not(:first-child):not(:last-child) .slick-column-name"
    " { float: right; }"
)


def largest(
    packages: Iterable[Package], count: int = 20
) -> tuple[list[Package], list[Package]]:
    """Choose the packages to draw, by lines, and those too large to share an axis.

    `test` alone is half of a standard library; beside it all others are slivers.
    """
    ranked = sorted(packages, key=lambda package: -package.lines)
    aside = int(len(ranked) > 1 and ranked[0].lines > 4 * ranked[1].lines)
    return ranked[aside : aside + count], ranked[:aside]


def histogram(
    functions_by_length: dict[int, int], width: int, upto: int
) -> dict[str, list[int]]:
    """Count functions in bins of `width` lines, the last one ending at `upto`.

    Examples
    --------
    >>> histogram({1: 5, 2: 1, 3: 2, 90: 7}, width=2, upto=4)
    {'left': [1, 3], 'right': [3, 5], 'functions': [6, 2]}
    """
    lefts = list(range(1, upto + 1, width))
    return {
        "left": lefts,
        "right": [left + width for left in lefts],
        "functions": [
            sum(functions_by_length.get(left + i, 0) for i in range(width))
            for left in lefts
        ],
    }


def quantile(functions_by_length: dict[int, int], share: float) -> int:
    """Give the least length which at least this share of the functions keeps within."""
    wanted = share * sum(functions_by_length.values())
    below = 0
    for length, functions in sorted(functions_by_length.items()):
        below += functions
        if below >= wanted:
            return length
    return 0


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a long text."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def bar_figure(title: str, labels: list[str], **options: Any) -> Any:
    """Make an empty figure for horizontal bars at 0, 1, ..., the first on top."""
    plot = figure(
        title=title,
        toolbar_location=None,
        tools="hover",
        y_range=Range1d(len(labels) - 0.5, -0.5),
        **options,
    )
    # Positions with labels, not factors: two shortened labels may be equal.
    plot.yaxis.ticker = list(range(len(labels)))
    plot.yaxis.major_label_overrides = dict(enumerate(labels))
    plot.x_range.start = 0
    plot.ygrid.visible = False
    return styled(plot)


def styled(plot: Any) -> Any:
    """Give a figure the look which all of them share."""
    plot.outline_line_color = None
    plot.title.text_font_size = "15px"
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.axis.axis_line_color = "#888888"
    plot.axis.major_tick_line_color = None
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_font_size = "12px"
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def lines_figure(shown: list[Package], aside: list[Package]) -> Any:
    """Draw the lines of each package."""
    left_out = "".join(f", without {p.package} ({p.lines:,})" for p in aside)
    names = [package.package for package in shown]
    plot = bar_figure(f"Lines per package{left_out}", names, **LEFT)
    source = ColumnDataSource(
        {
            "y": list(range(len(shown))),
            "package": names,
            "lines": [package.lines for package in shown],
            "files": [package.files for package in shown],
        }
    )
    plot.hbar(y="y", right="lines", height=0.75, color=BLUE, source=source)
    plot.hover.tooltips = "@package: @lines{0,0} lines in @files{0,0} files"
    plot.xaxis.axis_label = "lines"
    return plot


def parts_figure(shown: list[Package]) -> Any:
    """Draw the functions, classes and import statements of each package."""
    names = [package.package for package in shown]
    title = "Functions, classes and import statements"
    plot = bar_figure(title, names, **RIGHT)
    parts = {"functions": BLUE, "classes": ORANGE, "imports": GREEN}
    for place, (part, color) in enumerate(parts.items()):
        source = ColumnDataSource(
            {
                "y": [i + 0.27 * (place - 1) for i in range(len(shown))],
                "package": names,
                "count": [getattr(package, part) for package in shown],
                "part": [part] * len(shown),
            }
        )
        plot.hbar(
            y="y",
            right="count",
            height=0.25,
            color=color,
            source=source,
            legend_label=part,
        )
    plot.hover.tooltips = "@package: @count{0,0} @part"
    plot.legend.location = "bottom_right"
    plot.xaxis.axis_label = "count"
    return plot


def longest_figure(packages: Iterable[Package], count: int = 20) -> Any:
    """Draw the longest function of each package, for the longest of these."""
    ranked = sorted(packages, key=lambda package: -package.longest_lines)
    shown = [package for package in ranked[:count] if package.longest]
    functions = [package.longest.split(": ")[1] for package in shown]
    labels = [
        shortened(f"{package.package}: {function}", 44)
        for package, function in zip(shown, functions, strict=True)
    ]
    title = "Longest function of a package"
    plot = bar_figure(title, labels, **LEFT)
    source = ColumnDataSource(
        {
            "y": list(range(len(shown))),
            "function": [package.longest for package in shown],
            "lines": [package.longest_lines for package in shown],
        }
    )
    plot.hbar(y="y", right="lines", height=0.75, color=VERMILION, source=source)
    plot.hover.tooltips = "@function, @lines{0,0} lines"
    plot.xaxis.axis_label = "lines"
    return plot


def lengths_figure(functions_by_length: dict[int, int]) -> Any:
    """Draw how long functions are, with the median and the 90th percentile."""
    upto = 100
    beyond = sum(n for length, n in functions_by_length.items() if length > upto)
    plot = styled(
        figure(
            title=f"Length of functions ({beyond:,} above {upto} lines not drawn)",
            toolbar_location=None,
            tools="hover",
            x_range=Range1d(0, upto + 1),
            **RIGHT,
        )
    )
    source = ColumnDataSource(histogram(functions_by_length, width=2, upto=upto))
    plot.quad(
        left="left",
        right="right",
        bottom=0,
        top="functions",
        color=BLUE,
        line_color="white",
        source=source,
    )
    for share, name, dash in ((0.5, "median", "solid"), (0.9, "90 %", "dashed")):
        length = quantile(functions_by_length, share)
        plot.line(
            [length, length],
            [0, max(source.data["functions"], default=0)],
            color=VERMILION,
            line_width=2,
            line_dash=dash,
            legend_label=f"{name}: {length} lines",
        )
    plot.hover.tooltips = "@left to @right lines: @functions{0,0} functions"
    plot.y_range.start = 0
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.xaxis.axis_label = "lines of a function"
    plot.yaxis.axis_label = "functions"
    return plot


def package_table(packages: Iterable[Package]) -> DataTable:
    """List all packages; a click on a heading sorts."""
    ranked = sorted(packages, key=lambda package: -package.lines)
    titles = {
        "package": ("package", 170),
        "files": ("files", 70),
        "unparsed": ("not parsed", 95),
        "lines": ("lines", 90),
        "functions": ("functions", 85),
        "classes": ("classes", 85),
        "imports": ("imports", 85),
        "longest_lines": ("longest function, lines", 155),
        "longest": ("longest function", 425),
    }
    number = NumberFormatter(format="0,0", text_align="right")
    columns = [
        TableColumn(field=field, title=title, width=width)
        if field in ("package", "longest")
        else TableColumn(field=field, title=title, width=width, formatter=number)
        for field, (title, width) in titles.items()
    ]
    rows = [asdict(package) for package in ranked]
    source = ColumnDataSource({field: [r[field] for r in rows] for field in titles})
    return DataTable(
        source=source,
        columns=columns,
        width=WIDTH,
        height=420,
        index_position=None,
        stylesheets=[InlineStyleSheet(css=HEADINGS + NUMBER_HEADINGS)],
    )


def unparsed_table(unparsed: tuple[tuple[str, str], ...]) -> DataTable:
    """List the files which could not be parsed, and why."""
    source = ColumnDataSource(
        {
            "file": [name for name, _ in unparsed],
            "error": [error for _, error in unparsed],
        }
    )
    columns = [
        TableColumn(field="file", title="could not be parsed", width=430),
        TableColumn(field="error", title="error", width=830),
    ]
    height = min(420, 25 * (len(unparsed) + 2))
    return DataTable(
        source=source,
        columns=columns,
        width=WIDTH,
        height=height,
        index_position=None,
        stylesheets=[InlineStyleSheet(css=HEADINGS)],
    )


def heading(totals: Totals, title: str) -> Div:
    """Write the title and the sums over all packages."""
    sums = {
        field: sum(getattr(package, field) for package in totals.packages)
        for field in ("files", "lines", "functions", "classes", "imports", "unparsed")
    }
    sums["could not be parsed"] = sums.pop("unparsed")
    tiles = "".join(
        f'<div><b style="font-size: 24px">{count:,}</b><br>{name}</div>'
        for name, count in sums.items()
    )
    return Div(
        text=f'<h1 style="margin: 0 0 12px">{html.escape(title)}</h1>'
        f'<div style="display: flex; gap: 48px">{tiles}</div>',
        width=WIDTH,
        styles={"font-size": "14px"},
    )


def page_of(totals: Totals, title: str) -> str:
    """Draw the whole page: one HTML text which loads nothing else."""
    shown, aside = largest(totals.packages)
    layout = column(
        heading(totals, title),
        row(lines_figure(shown, aside), parts_figure(shown)),
        row(
            longest_figure(totals.packages), lengths_figure(totals.functions_by_length)
        ),
        package_table(totals.packages),
        unparsed_table(totals.unparsed),
        spacing=24,
    )
    style = "body { margin: 32px auto; width: 1280px; font-family: sans-serif; }"
    template = "{% block postamble %}<style>" + style + "</style>{% endblock %}"
    return file_html(layout, INLINE, title=title, template=template)
