"""Screen: rows at the bottom of a terminal that change, while others print above."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Hashable, Sequence
from typing import Any, Final, TextIO

from prefect_dask_core.engine.views import RunInfo
from prefect_dask_core.monitor.palette import COLORS, ORDER
from prefect_dask_core.monitor.progress_rows import ProgressRow
from prefect_dask_core.monitor.texts import duration, rate_text
from prefect_dask_core.runners.prints import are_captured, redirect

#: Rows of the terminal that stay free.
MARGIN: Final = 3
#: Widths of names and bars, in characters.
LONGEST_NAME: Final = 28
BAR: Final = 24
_UP_AND_CLEAR: Final = "\x1b[1A\x1b[2K"


class Screen:
    """Rows of all running flows of a process, at the bottom of its terminal.

    Parameters
    ----------
    stream : file
        The terminal.

    Notes
    -----
    While rows are shown, `sys.stdout`, `sys.stderr` and the log handlers that write to
    them write above the rows: the rows are wiped, and drawn again at the next look.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lock = threading.RLock()
        self._shown: dict[Hashable, tuple[RunInfo, Sequence[ProgressRow]]] = {}
        self._lines = 0
        self._is_mid_line = False
        self._console: Any = None
        self._undo: list[Any] = []

    def show(self, key: Hashable, info: RunInfo, rows: Sequence[ProgressRow]) -> None:
        """Show the rows of a run, below those of runs that came before.

        Parameters
        ----------
        key : hashable
            The run, as `take_away` will be told.
        info : RunInfo
            Names of the run.
        rows : sequence of ProgressRow
            Its rows; may change.
        """
        with self._lock:
            if not self._shown:
                self._stand_between()
            self._shown[key] = info, rows
            self._draw()

    def take_away(self, key: Hashable, lines: Sequence[str]) -> None:
        """Take the rows of a run away, and write lines in their place."""
        with self._lock:
            self._shown.pop(key, None)
            self._wipe()
            for line in lines:
                self.stream.write(f"{line}\n")
            if self._shown:
                self._draw()
            else:
                self._step_aside()
            self.stream.flush()

    def give_up(self, key: Hashable) -> None:
        """Forget a run whose rows could not be drawn; nothing is written."""
        with self._lock:
            self._shown.pop(key, None)
            self._lines = 0
            if not self._shown:
                self._step_aside()

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write what the program prints where the rows stood."""
        with self._lock:
            self._wipe()
            written = stream.write(text)
            if text:
                self._is_mid_line = not text.endswith("\n")
            if stream is not self.stream:
                stream.flush()
            return written

    # -- drawing -----------------------------------------------------------------------

    def _wipe(self) -> None:
        if self._lines:
            self.stream.write("\r" + _UP_AND_CLEAR * self._lines)
            self.stream.flush()
            self._lines = 0

    def _draw(self) -> None:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.stream)
        console = self._console
        with console.capture() as captured:
            most = max(1, console.size.height - MARGIN)
            console.print(table_of(list(self._shown.values()), most))
        text = captured.get()
        self._wipe()
        self.stream.write(("\n" if self._is_mid_line else "") + text)
        self.stream.flush()
        self._is_mid_line = False
        self._lines = text.count("\n")

    # -- what others write -------------------------------------------------------------

    def _stand_between(self) -> None:
        """Let what the program prints pass through here."""
        for name in ("stdout", "stderr"):
            self._undo.append(redirect(name, lambda stream: Above(stream, self)))
        known = {sys.__stdout__, sys.__stderr__, self.stream}
        for logger in (logging.root, logging.getLogger("prefect_dask_core")):
            for handler in logger.handlers:
                old: Any = getattr(handler, "stream", None)
                if isinstance(handler, logging.StreamHandler) and old in known:
                    handler.setStream(Above(old, self))
                    self._undo.append(_back(handler, old))

    def _step_aside(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()


def _back(handler: Any, stream: Any) -> Any:
    def undo() -> None:
        if isinstance(handler.stream, Above):
            handler.setStream(stream)

    return undo


class Above:
    """A stream whose lines come above the rows of a screen."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    def write(self, text: str) -> int:
        """Write text, unless it is captured for a logger on its way."""
        if are_captured():
            return self._stream.write(text)
        return self._screen.write_above(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def table_of(shown: Sequence[tuple[RunInfo, Sequence[ProgressRow]]], most: int) -> Any:
    """Rows of runs as a table of rich, at most so many.

    Parameters
    ----------
    shown : sequence of (RunInfo, sequence of ProgressRow)
        The runs.
    most : int
        Most rows; those that are over are left out first.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    rows = [(info, row) for info, found in shown for row in found]
    kept, hidden = visible(rows, most - (len(shown) > 1) * len(shown))
    for info, found in shown:
        if len(shown) > 1:
            depth = "  " if info.parent_run_id else ""
            name = f"{depth}{info.flow_name} {info.run_name}"
            table.add_row(Text(fitted(name, LONGEST_NAME + BAR), style="bold"))
        for row in found:
            if id(row) in kept:
                table.add_row(*_cells(row))
    if hidden:
        table.add_row(Text(f"… and {hidden:,} more tasks", style="dim"))
    return table


def fitted(text: str, most: int) -> str:
    """A text on one line of so many columns of a terminal, where some letters take two.

    Examples
    --------
    >>> fitted("extract everything", 8), fitted("日本語フロー", 8)
    ('extract…', '日本語…')
    """
    from rich.cells import cell_len, set_cell_size

    text = " ".join(text.split())
    if cell_len(text) <= most:
        return text
    return set_cell_size(text, most - 1).rstrip() + "…"


def visible(
    rows: Sequence[tuple[RunInfo, ProgressRow]], most: int
) -> tuple[set[int], int]:
    """Ids of the rows that are shown, and how many are not: those that are over first.

    Examples
    --------
    >>> rows = [(None, ProgressRow("a", 1, done=1)), (None, ProgressRow("b", 1))]
    >>> kept, hidden = visible(rows, 1)
    >>> id(rows[1][1]) in kept, hidden
    (True, 1)
    """
    found = [row for _, row in rows]
    if len(found) > most:
        under_way = [row for row in found if not row.is_over() and row.done]
        waiting = [row for row in found if not row.is_over() and not row.done]
        over = [row for row in found if row.is_over()]
        found = [*under_way, *waiting, *reversed(over)][: max(most - 1, 1)]
    return {id(row) for row in found}, len(rows) - len(found)


def _cells(row: ProgressRow) -> list[Any]:
    from rich.text import Text

    total = "?" if row.unknown else f"{row.total:,}"
    left = None if row.is_over() else row.seconds_left()
    return [
        fitted(row.name, LONGEST_NAME),
        _bar(row),
        f"{row.done:,}/{total}",
        Text.assemble(*_troubles(row)),
        rate_text(None if row.is_over() else row.rate()),
        "" if left is None else f"{duration(left)} left",
    ]


def _troubles(row: ProgressRow) -> list[tuple[str, str]]:
    """Counts of what did not simply complete; black would be lost on a terminal."""
    return [
        (
            f"{row.counts[name]:,} {name} ",
            "bold reverse" if name == "Crashed" else COLORS[name],
        )
        for name in ORDER
        if row.counts[name] and name != "Completed"
    ]


def _bar(row: ProgressRow) -> Any:
    """A bar in the colours of the states, in the order of the palette."""
    from rich.text import Text

    text = Text()
    used = 0
    total = max(row.total, 1)
    done = 0
    for name in reversed(ORDER):
        if not row.counts[name]:
            continue
        done += row.counts[name]
        upto = round(BAR * done / total)
        style = "bold" if name == "Crashed" else COLORS[name]
        text.append(("x" if name == "Crashed" else "━") * (upto - used), style=style)
        used = max(used, upto)
    text.append("─" * (BAR - used), style="dim")
    return text
