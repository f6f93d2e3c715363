"""The page of a report: what is on it, and that it needs nothing else."""

import logging
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    flow,
    get_run_logger,
    task,
)
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.codes import CODE_BY_STATE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import NodeView, RunInfo, SegmentLook
from prefect_dask_core.errors import ReportError
from prefect_dask_core.monitor import report
from prefect_dask_core.monitor.report import page_of
from prefect_dask_core.monitor.report_columns import (
    BINS,
    MOST_BARS,
    busy_in,
    durations,
    runs_of,
    timeline,
)
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.states import Completed, Crashed, Failed

DOCS = Path(__file__).parent.parent.parent / "docs"


@task(retries=1, retry_delay_seconds=0.05)
def invert(x):
    get_run_logger().info("inverting <%d>", x)
    return 1 / x


@task
def total(xs):
    return sum(xs)


def inverses():
    with Flow("inverses & more") as made:
        total(invert.map([0, 1, 2]))
    return made


class Links(HTMLParser):
    """What a page would load, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.loaded = []
        self.open = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        address = given.get("src") or (tag == "link" and given.get("href"))
        if address:
            self.loaded.append(address)
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_tells_of_tasks_failures_and_logs(tmp_path, caplog):
    caplog.set_level(logging.INFO)  # what nobody takes in is not kept
    state = inverses().run(task_runner=ThreadPoolTaskRunner(2))
    path = state.report(tmp_path / "report.html")
    page = path.read_text("utf-8")
    for text in (
        *("<title>inverses &amp; more: Failed</title>", "invert[0]"),
        *("ZeroDivisionError: division by zero", "return 1 / x", "2 attempts"),
        *("inverting &lt;2&gt;", "map_index=2 attempt=1", "1 TriggerFailed"),
    ):
        assert text in page, text
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]


@task
def connect(url, password):
    raise OSError(f"cannot open {url} with password={password}")


def test_a_report_gives_no_secret_away(tmp_path):
    with Flow("secrets") as secrets:
        connect(Parameter("url"), Parameter("password"))
    given = {"url": "postgresql://ann:pa55word@db/x", "password": "hidden-one"}
    state = secrets.run(given, task_runner=SequentialTaskRunner())
    page = state.report(tmp_path / "report.html").read_text("utf-8")
    assert "Parameter password" in page
    assert "cannot open postgresql://ann:" in page
    for secret in ("pa55word", "hidden-one"):
        assert secret not in page, page[page.index(secret) - 300 :][:400]


class Endless:
    def __repr__(self):
        raise RuntimeError("called by nobody")


@task
def babble(x):
    get_run_logger().warning("y" * 3_000_000)
    raise ValueError("x" * 3_000_000)


def test_texts_of_any_length_make_no_large_page(tmp_path):
    with Flow("talkative") as talkative:
        babble.map([1, 2, 3, 4])
    talkative.add_task(Parameter("odd"))
    state = talkative.run({"odd": Endless()}, task_runner=SequentialTaskRunner())
    page = state.report(tmp_path / "report.html").read_text("utf-8")
    assert "Endless" in page
    assert len(page) < 3_000_000


def test_the_last_lines_are_those_that_fit(monkeypatch):
    monkeypatch.setattr(report, "LONGEST_LOG", 30)
    told = report._log([f"line number {n}" for n in range(9)])
    assert "The last 3 of 9 lines" in told
    assert "line number 8" in told
    assert "line number 5" not in told


def test_a_report_loads_nothing():
    state = inverses().run(task_runner=SequentialTaskRunner())
    page = page_of(state.states.view)
    links = Links()
    links.feed(page)
    assert links.loaded == []
    assert links.open == []


def test_a_report_of_a_function_flow_has_its_called_and_submitted_runs(tmp_path):
    @flow(task_runner=SequentialTaskRunner())
    def both(n):
        total([n])
        return invert.submit(n)

    state = both(4, return_state=True)
    page = state.report(tmp_path / "report.html").read_text("utf-8")
    for text in ("Parameter n", "total", "invert"):
        assert text in page


def test_a_report_names_the_workers(client, tmp_path):
    state = inverses().run(task_runner=DaskTaskRunner(cluster=client))
    rows = timeline(runs_of(state.states.view), by_worker=True).rows
    assert set(rows) <= set(client.scheduler_info(n_workers=-1)["workers"])


def test_a_state_of_no_flow_run_cannot_be_reported():
    state = inverses().run(task_runner=SequentialTaskRunner())
    for lone in (Completed(data=1), state["invert"], state["invert"][0]):
        with pytest.raises(ReportError, match="not the state of a flow run"):
            lone.report("nowhere.html")


def test_a_hook_can_report_the_run_that_it_is_called_for(tmp_path):
    path = tmp_path / "report.html"

    @flow(
        task_runner=SequentialTaskRunner(),
        on_failure=[lambda flow, run, state: state.report(path)],
    )
    def failing():
        return invert.submit(0)

    failing(return_state=True)
    assert "failing: Failed" in path.read_text("utf-8")


def test_a_run_without_tasks_has_a_report():
    @flow
    def nothing():
        return 1

    page = page_of(nothing(return_state=True).states.view)
    for text in ("had no tasks", "No task has run", "Nothing failed", "Nothing was"):
        assert text in page


# -- columns -------------------------------------------------------------------------


def view_of(begins, seconds, kind=Completed, waits=()):
    """A view of one fan-out."""
    segment = Segment(0)
    segment.open(len(begins))
    for offset, begin in enumerate(begins):
        segment.put(offset, kind(), 100.0 + begin, 100.0 + begin + seconds)
    for offset, since, until in waits:
        segment.waits = {offset: ((100.0 + since, 100.0 + until),)}
    nodes = [NodeView(0, "load", "load-1", True)]
    look = SegmentLook({0: Children(len(begins), [segment])})
    return WatchedRun(RunInfo("0" * 32, "etl", "quick", 100.0), nodes, look)


spans = st.lists(st.tuples(st.floats(0, 90), st.floats(0, 10)), min_size=1, max_size=30)


@given(spans, st.integers(1, 20))
def test_bins_hold_all_the_time_that_runs_took(given_spans, bins):
    begin = np.array([start for start, _ in given_spans])
    end = begin + np.array([length for _, length in given_spans])
    busy = busy_in(begin, end, np.linspace(0.0, 100.0, bins + 1))
    assert busy.min() > -1e-6
    assert busy.sum() == pytest.approx((end - begin).sum(), abs=1e-6)


def test_a_large_run_is_drawn_in_bins_that_count_every_end():
    count = MOST_BARS + 1
    view = view_of([n % 97 for n in range(count)], 1.5)
    found = timeline(runs_of(view), by_worker=False)
    assert found.binned
    assert len(found.bars["left"]) <= BINS
    ends = [
        int(text.split()[0].replace(",", ""))
        for text in found.bars["state"]
        if text != "none ended"
    ]
    assert sum(ends) == count
    assert max(found.bars["top"]) <= 0.0
    assert min(found.bars["bottom"]) >= -1.0


def test_the_worst_state_gives_a_bin_its_colour():
    view = view_of([0.0] * (MOST_BARS + 1), 1.0)
    (segment,) = view.segments(0)
    segment.codes[7] = CODE_BY_STATE[Failed]
    found = timeline(runs_of(view), by_worker=False)
    assert found.bars["color"][-1] == Failed.color
    assert set(found.bars["color"][:-1]) <= {"#56b4e9", Completed.color}


def test_a_wait_lies_on_the_bar_of_its_run():
    view = view_of([0.0, 1.0], 5.0, waits=[(1, 2.0, 4.0)])
    found = timeline(runs_of(view), by_worker=False)
    assert (found.waits["left"], found.waits["right"]) == ([2.0], [4.0])
    assert found.bars["bottom"][1] < found.waits["y"][0] < found.bars["top"][1]
    assert found.waits["name"] == ["load[1]"]


def test_a_run_tells_when_it_waited_for_a_further_attempt(client):
    with Flow("retrying") as made:
        invert.map([0])
    for runner in (SequentialTaskRunner(), DaskTaskRunner(cluster=client)):
        view = made.run(task_runner=runner).states.view
        ((begin, end),) = view.segments(0)[0].waits[0]
        assert end - begin > 0.04
        first, last = view.children(0).times(0)
        assert first <= begin <= end <= last


def test_a_crash_is_marked_with_and_without_a_begin():
    view = view_of([0.0, 1.0], 5.0)
    (segment,) = view.segments(0)
    segment.codes[0] = CODE_BY_STATE[Crashed]
    segment.put(1, Crashed("worker died", timestamp=109.0), 0.0, 0.0, 0)
    runs = runs_of(view)
    found = timeline(runs, by_worker=False)
    assert sorted(zip(found.crashes["x"], found.crashes["name"], strict=True)) == [
        (5.0, "load[0]"),
        (9.0, "load[1]"),
    ]
    assert timeline(runs, by_worker=True).crashes["x"] == [5.0]


def test_tasks_that_are_too_many_share_a_row():
    nodes, plain = [], {}
    for number in range(60):
        segment = plain[number] = Segment(0)
        segment.open(1)
        segment.put(0, Completed(data=None), 100.0 + number, 101.0 + number)
        nodes.append(NodeView(number, f"task{number}", f"task{number}-1", False))
    info = RunInfo("0" * 32, "etl", "quick", 100.0)
    runs = runs_of(WatchedRun(info, nodes, SegmentLook(None, plain)))
    found = timeline(runs, by_worker=False)
    assert len(found.rows) == 40
    assert found.rows[-1] == "21 others"
    assert len(found.bars["left"]) == 60
    assert min(found.bars["bottom"]) >= -40.0


def test_durations_are_those_of_the_runs():
    (found,) = durations(runs_of(view_of([0.0, 0.0, 0.0], 2.0)))
    assert (found.task, found.runs, found.total) == ("load", 3, pytest.approx(6.0))
    assert found.least == found.median == found.most == pytest.approx(2.0)


def test_the_report_of_a_very_large_run_is_small():
    count = 100_000
    view = view_of([n / 1000 for n in range(count)], 0.001)
    page = page_of(view)
    assert len(page.encode()) < 10_000_000
    assert f"{count:,}" in page


# -- in a browser ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="chromium-driver is not installed"
)
def test_a_browser_shows_the_plots_and_has_no_complaint(tmp_path, monkeypatch):
    pytest.importorskip("selenium", reason="selenium is not installed")
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("browser", None)
    from browser import browser

    view = view_of([n / 1000 for n in range(20_000)], 0.01)
    path = view.report(tmp_path / "report.html")
    with browser(1200, 1000) as driver:
        driver.set_script_timeout(60)
        driver.get(path.as_uri())
        drawn = driver.execute_async_script(
            """const done = arguments[0];
            const look = () => {
              const found = [...document.querySelectorAll("[data-root-id]")];
              const whole = found.filter((one) => one.firstElementChild);
              if (found.length === 4 && whole.length === 4) done(whole.length);
              else setTimeout(look, 50);
            };
            look();"""
        )
        logged = driver.get_log("browser")
        wide = driver.execute_script(
            "return document.documentElement.scrollWidth > window.innerWidth"
        )
    assert drawn == 4
    assert [e for e in logged if e["level"] in ("SEVERE", "WARNING")] == []
    assert not wide


@pytest.mark.parametrize(
    "runner", [SequentialTaskRunner(), ThreadPoolTaskRunner()], ids=lambda r: repr(r)
)
def test_the_page_tells_the_frames_of_the_run_however_often_somebody_looked(
    runner, tmp_path
):
    with Flow("inverse") as made:
        inverse = task(lambda x: 1 / x, name="inverse")(0)
    state = made.run(task_runner=runner)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            state[inverse].result()
    page = state.report(tmp_path / "report.html").read_text()
    assert "1 / x" in page
    assert "test_the_page_tells_the_frames" not in page
    assert "states.py" not in page
