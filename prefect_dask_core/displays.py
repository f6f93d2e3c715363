"""Displays: pieces of HTML for what a notebook shows of states and futures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prefect_dask_core.states import State

_CELL: Final = 'style="text-align:left;vertical-align:top;padding:2px 12px 2px 0"'
_COLORS: Final = {found.__name__: found.color for found in State.children(True)}


def chip(state: State) -> str:
    """The name of a state with its colour, as HTML.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed
    >>> "Completed" in chip(Completed()), "#009e73" in chip(Completed())
    (True, True)
    """
    return _chip(state.color, state.name)


def _chip(color: str, told: str) -> str:
    return (
        f'<span style="white-space:nowrap"><span style="background:{color};'
        "display:inline-block;width:0.8em;height:0.8em;border-radius:2px;"
        f'border:1px solid #7d8894;margin-right:0.4em"></span>{text(told)}</span>'
    )


def counts_html(counts: Mapping[str, int]) -> str:
    """Numbers of runs by the name of their state's class, as HTML.

    Examples
    --------
    >>> "1,200 Completed" in counts_html({"Completed": 1200})
    True
    """
    found = [
        _chip(_COLORS.get(name, State.color), f"{count:,} {name}")
        for name, count in counts.items()
        if count
    ]
    return " &nbsp; ".join(found) or "none"


def table_html(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; titles and cells are HTML."""
    head = "".join(f"<th {_CELL}>{title}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def titled_html(title: str, below: str) -> str:
    """A title, and HTML below it."""
    return f"<div><b>{text(title)}</b></div>{below}"


def text(value: Any) -> str:
    """Text as HTML.

    Examples
    --------
    >>> text("a < b")
    'a &lt; b'
    """
    return html.escape(str(value))
