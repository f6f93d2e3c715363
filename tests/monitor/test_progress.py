"""Progress: rows on a terminal, lines in the log, silence where that is asked for."""

import io
import logging
import re
import sys
import threading
import time
from itertools import pairwise

import dask
import pytest

from prefect_dask_core import (
    Flow,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    flow,
    task,
)
from prefect_dask_core.engine.views import NodeView, RunInfo
from prefect_dask_core.monitor import progress, screen
from prefect_dask_core.monitor.progress import (
    LoggedProgress,
    configured_progress,
    is_terminal,
)
from prefect_dask_core.monitor.progress_rows import ProgressRow, ProgressRows
from prefect_dask_core.monitor.screen import Screen
from prefect_dask_core.monitor.watching import News, Novelties
from prefect_dask_core.states import Completed


class Terminal(io.StringIO):
    """What is written to a terminal; `seen` is what a person sees in the end."""

    def isatty(self):
        return True

    def seen(self):
        lines = [""]
        for part in re.split(r"(\r|\n|\x1b\[1A|\x1b\[2K)", self.getvalue()):
            if part == "\n":
                lines.append("")
            elif part == "\x1b[1A":
                lines.pop()
            elif part == "\x1b[2K":
                lines[-1] = ""
            elif part != "\r":
                lines[-1] += re.sub(r"\x1b\[[0-9;]*m", "", part)
        return "\n".join(line.rstrip() for line in lines)


@pytest.fixture
def terminal(monkeypatch):
    found = Terminal()
    # Not `sys.stderr`, which pytest puts back between a fixture and its test.
    monkeypatch.setattr(progress, "real_stderr", lambda: found)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_screen", [])
    return found


@task
def double(x):
    return 2 * x


@task(log_prints=True)
def shout(x):
    print("captured", x)


def doubling(count=3, name="doubling"):
    with Flow(name) as made:
        double.map(list(range(count)))
    return made


def test_a_terminal_shows_rows_and_in_the_end_only_the_summary(terminal):
    doubling(1200).run(task_runner=ThreadPoolTaskRunner(2))
    assert "1,200/1,200" in terminal.getvalue()
    assert terminal.seen().startswith("flow 'doubling' Completed in ")
    assert "double  1,200 runs  1,200 Completed" in terminal.seen()
    assert "/1,200" not in terminal.seen()


def test_what_is_printed_meanwhile_stays_above_the_rows(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = threading.Event()
    monkeypatch.setattr(
        Screen, "_draw", lambda self, draw=Screen._draw: (draw(self), shown.set())
    )

    @task
    def loud(x):
        assert shown.wait(30)
        print(f"line {x}")
        print("no end", end=" ")
        shown.clear()
        assert shown.wait(30)
        print("of line")

    with Flow("loud") as made:
        loud.map([1])
    made.run(task_runner=ThreadPoolTaskRunner(1))
    seen = terminal.seen().splitlines()
    assert seen[0] == "line 1"
    assert "no end" in seen[1]
    assert "of line" in "".join(seen[1:3])
    assert seen[-2].startswith("flow 'loud' Completed")
    assert sys.stdout is terminal


def test_prints_that_are_captured_stay_captured_while_rows_are_shown(
    terminal, caplog, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", Terminal())
    on = Screen(terminal)
    on.show("other", RunInfo("0", "other", "other", 0.0), [ProgressRow("load", 3)])
    with caplog.at_level(logging.INFO), Flow("shouting") as made:
        shout(1)
    with caplog.at_level(logging.INFO):
        made.run(task_runner=SequentialTaskRunner(), progress=False)
    on.take_away("other", [])
    assert "Task 'shout': captured 1" in caplog.messages
    assert sys.stdout.getvalue() == ""


def test_a_log_handler_writes_above_the_rows_and_gets_its_stream_back(terminal):
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("prefect_dask_core")
    logger.addHandler(handler)
    try:
        on = Screen(terminal)
        on.show("run", RunInfo("0", "etl", "quick", 0.0), [ProgressRow("load", 3)])
        handler.emit(logging.makeLogRecord({"msg": "a record"}))
        on.show("run", RunInfo("0", "etl", "quick", 0.0), [ProgressRow("load", 3)])
        assert terminal.seen().splitlines()[0] == "a record"
        assert "load" in terminal.seen().splitlines()[1]
        on.take_away("run", [])
    finally:
        logger.removeHandler(handler)
    assert handler.stream is terminal


def test_two_runs_share_a_screen(terminal):
    on = Screen(terminal)
    on.show("a", RunInfo("0", "first", "one", 0.0), [ProgressRow("load", 3)])
    inner = RunInfo("1", "second", "two", 0.0, parent_run_id="0")
    on.show("b", inner, [ProgressRow("clean", 4, done=1)])
    lines = terminal.seen().splitlines()
    assert [line.split()[0] for line in lines] == ["first", "load", "second", "clean"]
    on.take_away("a", ["first is over"])
    lines = terminal.seen().splitlines()
    assert [line.split()[0] for line in lines] == ["first", "clean"]
    on.take_away("b", [])
    assert terminal.seen() == "first is over\n"


def test_a_name_of_wide_letters_or_several_lines_takes_one_line_and_its_share():
    from rich.cells import cell_len

    assert screen.fitted("two\nlines", screen.LONGEST_NAME) == "two lines"
    name = screen.fitted("日本語の長い名前" * 9, screen.LONGEST_NAME)
    assert cell_len(name) <= screen.LONGEST_NAME
    assert name.startswith("日本語の長い")


def test_a_small_terminal_shows_what_is_under_way():
    rows = [ProgressRow(f"done{n}", 1, done=1) for n in range(30)]
    rows.append(ProgressRow("under way", 9, done=3))
    kept, hidden = screen.visible([(None, row) for row in rows], 5)
    assert id(rows[-1]) in kept
    assert len(kept) == 4
    assert hidden == 27


def test_a_run_that_is_over_at_once_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 1e9)
    doubling().run(task_runner=SequentialTaskRunner())
    assert terminal.getvalue() == ""


def test_a_run_that_is_asked_to_tells_its_end_however_short_it_was(
    terminal, monkeypatch
):
    monkeypatch.setattr(progress, "PATIENCE", 1e9)
    doubling().run(task_runner=SequentialTaskRunner(), progress=True)
    assert terminal.seen().startswith("flow 'doubling' Completed")


def test_a_flow_inside_another_leaves_no_summary(terminal):
    @flow(task_runner=SequentialTaskRunner())
    def inner():
        return double.submit(1)

    @flow(task_runner=SequentialTaskRunner())
    def outer():
        return inner()

    outer()
    assert "flow 'outer' Completed" in terminal.seen()
    assert "flow 'inner'" not in terminal.seen()


@pytest.mark.parametrize("kind", ["graph", "function"])
def test_progress_false_is_silence(terminal, caplog, kind):
    caplog.set_level(logging.INFO)
    if kind == "graph":
        doubling().run(task_runner=SequentialTaskRunner(), progress=False)
    else:

        @flow(task_runner=SequentialTaskRunner())
        def count():
            return double.submit(1)

        count.with_options(progress=False)()
    assert terminal.getvalue() == ""
    assert [r for r in caplog.records if "progress" in r.name] == []
    assert "prefect-dask-core-watch" not in [t.name for t in threading.enumerate()]


def test_dask_config_says_what_is_shown_unless_a_run_does(terminal):
    with dask.config.set({"prefect-dask-core.progress": False}):
        doubling().run(task_runner=SequentialTaskRunner())
        assert terminal.getvalue() == ""
        doubling().run(task_runner=SequentialTaskRunner(), progress=True)
        assert terminal.getvalue() != ""
    with (
        dask.config.set({"prefect-dask-core.progress": "often"}),
        pytest.raises(ValueError, match="'often'"),
    ):
        configured_progress(None)


def test_elsewhere_the_end_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        doubling().run(task_runner=SequentialTaskRunner())
    told = [r.message for r in caplog.records if r.name == progress.__name__]
    assert told[0].startswith("flow 'doubling' Completed in")
    assert sys.stderr.getvalue() == ""


def test_nobody_watches_where_nobody_would_see_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    make = progress.progress_maker(None)
    assert make(doubling().run(progress=False).states.view) is None


def test_who_asks_for_progress_sees_it_though_nobody_handles_records(monkeypatch):
    found = io.StringIO()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(progress._LOGGER, "disabled", False)
    monkeypatch.setattr(progress._LOGGER, "level", logging.ERROR)
    doubling().run(task_runner=SequentialTaskRunner(), progress=True)
    assert found.getvalue().startswith("flow 'doubling' Completed")


def test_lines_come_rarely_and_ever_more_rarely():
    now = 0.0
    told = []
    watcher = LoggedProgress(lambda line: told.append((now, line)), clock=lambda: now)
    view = doubling().run(progress=False).states.view
    watcher.began(view)
    nodes = [NodeView(7, "load", "load-1", True)]  # it never ends
    for step in range(2000):
        now = step * 0.25
        news = News(nodes if step == 1 else [], [], [])
        watcher.advanced(view, news)
    times = [when for when, _ in told]
    assert times[0] == 5.0
    assert all(later - now >= 10.0 for now, later in pairwise(times))
    assert len(times) < 14
    assert told[0][1] == "flow 'doubling': load 0/?"
    watcher.ended(view, Completed())
    assert told[-2][1].startswith("flow 'doubling' Completed in 8 min 20 s")


@pytest.mark.parametrize(
    ("rows", "rate", "left"),
    [
        ([(0.0, 0), (2.0, 30)], 15.0, 70 / 15),
        ([(0.0, 0)], None, None),
        ([(0.0, 30), (4.0, 30)], 0.0, None),
    ],
)
def test_the_time_left_comes_from_the_present_rate(rows, rate, left):
    row = ProgressRow("load", total=100, done=rows[-1][1])
    row.marks.extend(rows)
    assert (row.rate(), row.seconds_left()) == (rate, left)
    row.unknown = 1
    assert row.seconds_left() is None


def test_the_rate_is_that_of_the_last_seconds():
    row = ProgressRow("load", total=10**6)
    for second in range(100):
        row.done += 1000 if second < 50 else 10
        row.mark(float(second))
    assert row.rate() == pytest.approx(10.0)
    assert len(row.marks) < 15


def test_a_task_that_could_not_be_mapped_is_one_run():
    rows = ProgressRows()
    with Flow("refused") as made:
        double.map(double(3))
    state = made.run(task_runner=ThreadPoolTaskRunner(1), progress=False)

    rows.take(state.states.view, Novelties(state.states.view).take(), 1.0)
    (row,) = rows.rows
    assert (row.total, row.done, row.unknown) == (2, 2, 0)


@pytest.mark.parametrize("stream", [None, io.StringIO(), object()])
def test_what_is_no_terminal(stream):
    assert not is_terminal(stream)


def test_a_dumb_or_closed_terminal_is_none(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(Terminal())
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)


def test_a_terminal_that_goes_away_leaves_prints_and_run_as_they_were(
    terminal, monkeypatch
):
    before = sys.stdout
    real, drawn = Screen._draw, []

    def fails(self):
        real(self)
        drawn.append(1)
        raise OSError("the terminal is gone")

    monkeypatch.setattr(Screen, "_draw", fails)
    state = doubling(3).run(task_runner=ThreadPoolTaskRunner(2))
    assert state.is_successful()
    assert drawn
    assert sys.stdout is before
    assert progress._screen[0]._shown == {}


def test_a_run_goes_on_while_its_rows_are_drawn(terminal, monkeypatch):
    begin = threading.Event()
    real = Screen._draw

    def slow(self):
        begin.set()
        time.sleep(0.3)
        real(self)

    monkeypatch.setattr(Screen, "_draw", slow)
    state = doubling(50).run(task_runner=ThreadPoolTaskRunner(2))
    assert state.is_successful()
    assert begin.is_set()
