"""Progress: how running flows go, as lines that change on a terminal or as log records.

On a terminal there is one line per task, with its rate and the time left, below
whatever the program prints. Elsewhere it is told rarely, by log records of level INFO.
A run that is over at once shows nothing unless it was asked to.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import dask.config

from prefect_dask_core.engine.views import RunView
from prefect_dask_core.errors import OptionValueError
from prefect_dask_core.monitor.progress_rows import ProgressRow, ProgressRows
from prefect_dask_core.monitor.screen import Screen
from prefect_dask_core.monitor.summary import counts_text, lines_of, summarize
from prefect_dask_core.monitor.texts import duration, rate_text
from prefect_dask_core.monitor.watching import Maker, News, Watcher
from prefect_dask_core.runners.prints import real_stderr
from prefect_dask_core.states import State

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds that a run lasts before anything is shown of it.
PATIENCE: Final = 0.5
#: Seconds between two log records of a run: at first, and at most.
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 60.0


class ScreenProgress:
    """Shows a run on the terminal; see `watching.Watcher`.

    Parameters
    ----------
    screen : Screen
        Where it is shown, beside other runs.
    asked : bool
        Whether the end is told of however short the run was.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        screen: Screen,
        asked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen
        self._asked = asked
        self._clock = clock
        self._rows = ProgressRows()
        self._begin = clock()

    def began(self, view: RunView) -> None:
        """Nothing is shown yet."""
        self._begin = self._clock()

    def advanced(self, view: RunView, news: News) -> None:
        """Draw the rows anew."""
        now = self._clock()
        self._rows.take(view, news, now)
        if now - self._begin >= PATIENCE:
            try:
                self._screen.show(self, view.info, self._rows.rows)
            except Exception:  # the terminal has gone
                self._screen.give_up(self)
                raise

    def ended(self, view: RunView, state: State) -> None:
        """Take the rows away and tell how it ended, unless it is inside another."""
        seconds = self._clock() - self._begin
        worth_it = self._asked or seconds >= PATIENCE
        lines = []
        if worth_it and view.info.parent_run_id is None:
            lines = lines_of(summarize(view, state, view.info.begin + seconds))
        self._screen.take_away(self, lines)

    def close(self) -> None:
        """Do nothing: the screen is everybody's."""


class LoggedProgress:
    """Tells how a run goes rarely, line by line; see `watching.Watcher`.

    Parameters
    ----------
    tell : callable (str)
        Takes a line.
    asked : bool
        Whether the end is told of however short the run was.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        asked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._asked = asked
        self._clock = clock
        self._rows = ProgressRows()
        self._begin = clock()
        self._pause = FIRST_PAUSE
        self._due = self._begin + self._pause

    def began(self, view: RunView) -> None:
        """Nothing is told yet."""
        self._begin = self._clock()
        self._due = self._begin + self._pause

    def advanced(self, view: RunView, news: News) -> None:
        """Tell of the tasks that are under way, if it is time to."""
        now = self._clock()
        self._rows.take(view, news, now)
        if now < self._due:
            return
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._due = now + self._pause
        told = [row_text(row) for row in self._rows.rows if not row.is_over()]
        if told:
            self._tell(f"flow {view.info.flow_name!r}: {'; '.join(told)}")

    def ended(self, view: RunView, state: State) -> None:
        """Tell how it ended."""
        seconds = self._clock() - self._begin
        if self._asked or seconds >= PATIENCE:
            summary = summarize(view, state, view.info.begin + seconds)
            for line in lines_of(summary):
                self._tell(line)

    def close(self) -> None:
        """Do nothing: it has opened nothing."""


def row_text(row: ProgressRow) -> str:
    """How far a task is, as text.

    Examples
    --------
    >>> row = ProgressRow("load", total=1000, done=250)
    >>> row.counts.update(Completed=248, Failed=2)
    >>> row.marks.extend([(0.0, 0), (5.0, 250)])
    >>> row_text(row)
    'load 250/1,000 (2 Failed, 248 Completed), 50/s, 15.0 s left'
    """
    total = "?" if row.unknown else f"{row.total:,}"
    told = f"{row.name} {row.done:,}/{total}"
    if any(name != "Completed" for name in row.counts):
        told += f" ({counts_text(row.counts)})"
    left = row.seconds_left()
    rate = rate_text(row.rate())
    told += f", {rate}" if rate else ""
    return told + (f", {duration(left)} left" if left else "")


def is_terminal(stream: Any) -> bool:
    """Whether lines on a stream can change after they were written."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"
    except (AttributeError, ValueError):  # None, closed, or something of a notebook's
        return False


def configured_progress(asked: bool | None) -> bool | None:
    """Whether a run shows its progress; `None`: as far as somebody is there to see it.

    Raises
    ------
    OptionValueError
        If `dask.config` has something else there; also a `ValueError`.
    """
    found = dask.config.get("prefect-dask-core.progress") if asked is None else asked
    if found is None or isinstance(found, bool):
        return found
    raise OptionValueError(
        f"prefect-dask-core.progress is {found!r} in dask.config, but expected true, "
        "false or null."
    )


_screen: list[Screen] = []
_making: Final = threading.Lock()


def _shared_screen(stream: TextIO) -> Screen:
    """The screen that all runs of the process share."""
    with _making:
        if not _screen or _screen[0].stream is not stream:
            _screen[:] = [Screen(stream)]
        return _screen[0]


def progress_maker(asked: bool | None) -> Maker:
    """What gives a run the watcher that shows its progress.

    Parameters
    ----------
    asked : bool or None
        What the run was told.
    """

    def make(view: RunView) -> Watcher | None:
        wanted = configured_progress(asked)
        if wanted is False:
            return None
        is_nested = view.info.parent_run_id is not None
        stream = real_stderr()
        if stream is not None and is_terminal(stream):
            return ScreenProgress(_shared_screen(stream), bool(wanted))
        if is_nested and not asked:
            return None
        if _LOGGER.isEnabledFor(logging.INFO) and _LOGGER.hasHandlers():
            return LoggedProgress(_log, bool(wanted))
        return LoggedProgress(_write, True) if wanted else None

    return make


def _log(line: str) -> None:
    _LOGGER.info("%s", line)


def _write(line: str) -> None:
    """Write a line where nobody handles log records, though it was asked for."""
    stream = real_stderr()
    if stream is not None:
        print(line, file=stream, flush=True)
