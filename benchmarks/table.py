"""Table: measurements as text for a terminal and as Markdown for a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.comparison import Measurement

HEADINGS: Final = ("what", "unit", "ours", "peer", "ratio", "bar", "")
WIDTHS: Final = (62, 14, 8, 8, 6, 22, 6)
BEGIN: Final = "<!-- benchmarks: begin -->"
END: Final = "<!-- benchmarks: end -->"


def number(value: float | None) -> str:
    """A number with about three digits that count; empty for `None`.

    Examples
    --------
    >>> number(0.1234), number(4.567), number(45.67), number(45678.9), number(None)
    ('0.123', '4.57', '45.7', '45,679', '')
    """
    if value is None:
        return ""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def cells(line: Measurement) -> tuple[str, ...]:
    """One line of the table, as `HEADINGS` has it."""
    return (
        line.what,
        line.unit,
        number(line.ours),
        number(line.peer),
        number(line.ratio),
        "" if line.bar is None else str(line.bar),
        line.verdict,
    )


def text_row(row: Sequence[str]) -> str:
    """A row for a terminal, numbers to the right.

    Examples
    --------
    """
    parts = [
        cell.rjust(width) if 2 <= place <= 4 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, WIDTHS, strict=True))
    ]
    return "  ".join(parts).rstrip()


def markdown(lines: Iterable[Measurement], caption: str) -> str:
    """A table for a page, with a caption below."""
    rows = [
        "| what | unit | ours | peer | ratio | bar |",
        "|---|---|---:|---:|---:|---|",
    ]
    for line in lines:
        bar = "" if line.bar is None else f"{line.bar}: {line.verdict}"
        what, unit, ours, peer, ratio = cells(line)[:5]
        if what.startswith("  "):  # belongs to the line above; Markdown drops spaces
            what = f"↳ {what.strip()}"
        rows.append(f"| {what} | {unit} | {ours} | {peer} | {ratio} | {bar} |")
    return "\n".join([*rows, "", caption])


def inserted(page: str, table: str) -> str:
    """A page with a table in the place of what stood between the two markers.

    Raises
    ------
    ValueError
        If the page has not exactly one pair of markers.

    Examples
    --------
    >>> print(inserted(f"Costs:\\n{BEGIN}\\nold\\n{END}\\n", "new"))
    Costs:
    <!-- benchmarks: begin -->
    <BLANKLINE>
    new
    <BLANKLINE>
    <!-- benchmarks: end -->
    <BLANKLINE>
    """
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(between.findall(page)) != 1:
        raise ValueError(
            f"the page needs one line {BEGIN!r} and, further down, one line {END!r}; "
            "the table goes between them."
        )
    # As a function: a backslash in the table is no group of the pattern.
    return between.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", page)
