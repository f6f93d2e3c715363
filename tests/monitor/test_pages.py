"""The pages as a person sees them: in a real browser, while flows run."""

from __future__ import annotations

import threading
import time
import urllib.request

import pytest

from prefect_dask_core import DaskTaskRunner, Flow, task, unmapped
from prefect_dask_core.monitor.columns import OPEN_COLOR
from prefect_dask_core.monitor.pages import PAGES
from prefect_dask_core.monitor.plugin import plugin_of
from prefect_dask_core.runners._private import TOPIC_PREFIX
from prefect_dask_core.runners.digests import Digest, FailureText, ReportDigest, told

GATES: dict[str, threading.Event] = {}


@task
def load(x):
    if x % 10 == 7:
        raise ValueError(f"cannot load {x} <b>bold</b>")
    return x


@task
def wait_at(x, gate):
    if x == 20:
        GATES[gate].wait(60)
    return x


@task
def count(xs):
    return len(xs)


@task
def follow(x):
    return x


@task(retries=1, retry_delay_seconds=0.3)
def never(x):
    raise OSError(f"no answer for {x}")


@pytest.fixture
def runner(watched_client):
    return DaskTaskRunner(cluster=watched_client)


@pytest.fixture
def sums(runner, watched):
    """A flow that has ended, its state and its run as the scheduler knows it."""
    with Flow("sums") as flow:
        loaded = load.map(list(range(40)))
        count(loaded)
        never(1)
    state = flow.run(task_runner=runner)
    return state, plugin_of(watched.scheduler).newest()


@pytest.fixture
def gated(runner):
    """Begin a flow that stands still half-way, until it is let go."""
    threads = []

    def begin(name):
        GATES[name] = threading.Event()
        with Flow(name) as flow:
            count(wait_at.map(list(range(40)), gate=unmapped(name)))
        thread = threading.Thread(target=flow.run, kwargs={"task_runner": runner})
        thread.start()
        threads.append(thread)

    yield begin
    for gate in GATES.values():
        gate.set()
    for thread in threads:
        thread.join(60)


def no_mistakes(reader):
    """Nothing on the console, and nothing asked for elsewhere."""
    assert reader.errors() == []
    assert reader.requested() == []


@pytest.mark.parametrize("page", [path.strip("/") for path in PAGES])
def test_a_page_loads_without_errors_and_without_the_network(see, sums, page):
    reader = see(page)
    reader.has("Flow runs", "Timeline", "Graph", "Failures")
    reader.has("Failed · 42 / 42 task runs")
    no_mistakes(reader)


@pytest.mark.parametrize("page", ["status", "flow-runs"])
def test_the_navigation_of_all_pages_leads_to_ours(see, sums, page):
    reader = see(page)
    ActionChains = pytest.importorskip("selenium.webdriver").ActionChains
    menu = reader.driver.find_element("css selector", ".navbar .flows")
    ActionChains(reader.driver).move_to_element(menu).perform()
    assert menu.text.split("\n") == [
        "Flows",
        "Flow runs",
        "Timeline",
        "Graph",
        "Failures",
    ]
    links = reader.driver.execute_script(
        "return Array.from(document.querySelectorAll('.navbar a')).map(a => a.href)"
    )
    for path in PAGES:
        assert reader.base + path in links
        with urllib.request.urlopen(reader.base + path) as answer:
            assert answer.status == 200


def test_the_table_of_runs_has_the_counts_of_the_states(see, sums):
    state, run = sums
    counts = state.states.counts()
    assert counts == {"Completed": 36, "Failed": 5, "TriggerFailed": 1}
    reader = see("flow-runs")
    reader.has("Failed · 42 / 42 task runs", "5 Failed · 1 TriggerFailed")
    first = reader.until(lambda: reader.rows(0))[0]
    assert first[:3] == ["sums", run.id[:8], "Failed"]
    # What did not run because of failures has not failed itself; the bar has it.
    assert first[6:9] == ["42 / 42", "5", "1"]
    tasks = {row[0]: row for row in reader.until(lambda: reader.rows(1))}
    assert (tasks["load"][2], tasks["load"][6]) == ("40 / 40", "4")
    assert (tasks["never"][2], tasks["never"][6:8]) == ("1 / 1", ["1", "1"])
    parts = dict(
        part.split(":")[2].split(" ")[::-1]
        for part in reader.column("runs", "parts")[0].split(";")
    )
    assert {name: int(number) for name, number in parts.items()} == counts
    no_mistakes(reader)


def test_the_page_goes_on_with_the_run_without_a_reload(see, gated):
    gated("gated")
    reader = see("flow-runs")
    reader.driver.execute_script("window.stays = 'here'")
    reader.has("Running · ")
    reader.until(lambda: 0 < _done(reader.rows(1), "wait_at", of=40) < 40)
    GATES["gated"].set()
    reader.has("Completed · 41 / 41 task runs")
    reader.until(lambda: reader.rows(1)[0][2] == "40 / 40")
    assert reader.driver.execute_script("return window.stays") == "here"
    no_mistakes(reader)


def _done(rows, task, of):
    """How many of so many runs have ended, as a table tells it; 0 before it does."""
    told = next((row[2] for row in rows if row[0] == task), "")
    done, _, length = told.partition(" / ")
    return int(done) if length == str(of) else 0


def test_two_runs_at_once_are_shown_each_with_its_own_numbers(see, gated):
    gated("one")
    gated("other")
    reader = see("flow-runs")

    def both():
        rows = {row[0]: row for row in reader.rows(0)}
        names = {"one", "other"}
        running = names <= rows.keys() and all(
            rows[name][2] == "Running" for name in names
        )
        return rows if running else None

    reader.until(both)
    GATES["one"].set()
    rows = reader.until(
        lambda: (
            (rows := {row[0]: row for row in reader.rows(0)})
            and rows["one"][2] == "Completed"
            and rows
        )
    )
    assert rows["one"][6] == "41 / 41"
    assert rows["other"][2] == "Running"
    assert rows["other"][6] != "41 / 41"
    no_mistakes(reader)


def test_a_run_is_chosen_by_its_row_and_by_the_address(see, sums, gated):
    _, run = sums
    gated("later")
    reader = see(f"flow-runs?run={run.id}")
    reader.has("Failed · 42 / 42 task runs")
    reader = see("flow-runs")
    reader.has("Running · ")
    index = reader.until(
        lambda: next((n for n, r in enumerate(reader.rows(0)) if r[0] == "sums"), None)
    )
    reader.driver.execute_script(_CHOOSE, index)
    reader.has("Failed · 42 / 42 task runs")
    reader.until(lambda: f"run={run.id}" in reader.driver.current_url)
    links = reader.driver.execute_script(
        "return Array.from(document.querySelectorAll('.flow-pages a')).map(a => a.href)"
    )
    assert all(link.endswith(f"?run={run.id}") for link in links)
    no_mistakes(reader)


_CHOOSE = """
for (const model of Bokeh.documents[0]._all_models.values())
  if (model.name === "runs") model.selected.indices = [arguments[0]];
"""


def test_the_chosen_run_stays_marked_when_others_begin(see, sums, gated):
    _, run = sums
    reader = see("flow-runs")
    reader.until(lambda: _marked(reader) == [run.id])
    gated("above")
    reader.until(lambda: reader.rows(0)[0][0] == "above")
    reader.until(lambda: _marked(reader) == reader.column("runs", "id")[:1])
    row = reader.column("runs", "id").index(run.id)
    reader.driver.execute_script(_CHOOSE, row)
    reader.has("Failed · 42 / 42 task runs")
    gated("above it")
    reader.until(lambda: reader.rows(0)[0][0] == "above it")
    reader.until(lambda: _marked(reader) == [run.id])
    reader.has("Failed · 42 / 42 task runs")
    no_mistakes(reader)


def _marked(reader):
    """Ids of the runs whose rows are marked."""
    return reader.driver.execute_script(
        """
        if (!window.Bokeh || !Bokeh.documents.length) return null;
        for (const model of Bokeh.documents[0]._all_models.values())
          if (model.name === "runs") {
            const ids = model.data.get ? model.data.get("id") : model.data["id"];
            return model.selected.indices.map(n => ids[n]);
          }
        """
    )


def test_a_run_that_was_forgotten_is_said_to_be_so(see, sums):
    reader = see("flow-failures?run=0123456789abcdef")
    reader.has("Run 01234567 is not known here", "01234567 (not known here)")
    assert "Nothing has failed" in reader.texts()
    no_mistakes(reader)


def test_the_graph_of_a_long_chain_is_as_wide_as_its_boxes(see, runner):
    with Flow("long") as flow:
        last = None
        for number in range(10):
            last = follow.copy(name=f"step {number}")(last)
    flow.run(task_runner=runner)
    reader = see("flow-graph")
    reader.until(lambda: len(reader.column("boxes", "name") or ()) > 9)
    reader.until(
        lambda: reader.driver.execute_script(
            """
            for (const model of Bokeh.documents[0]._all_models.values())
              if (model.type === "Figure") {
                const view = Bokeh.index.find_one(model);
                return view !== null && view.el.offsetWidth === model.width;
              }
            """
        )
    )
    no_mistakes(reader)


def test_failures_of_one_name_have_each_their_own_traceback(see, runner):
    with Flow("twins") as flow:
        never(1)
        never(2)
    flow.run(task_runner=runner)
    reader = see("flow-failures")
    reader.has("OSError: no answer for 1")
    reader.driver.execute_script(
        """
        for (const model of Bokeh.documents[0]._all_models.values())
          if (model.name === "failures") model.selected.indices = [1];
        """
    )
    reader.has("arguments: x=2")
    no_mistakes(reader)


def test_the_timeline_has_bars_waits_and_marks(see, sums):
    reader = see("flow-timeline")
    tasks = reader.until(lambda: reader.column("bars", "task"))
    assert set(tasks) == {"load", "count", "never"}
    assert reader.column("waits", "task") == ["never"]
    assert len(reader.column("retries", "x")) == 1
    # Not `count`, which did not run.
    whats = {what.split(" of ")[1] for what in reader.column("failures", "what")}
    assert whats == {"load", "never"}
    reader.has("by worker", "by task", "waits for a retry")
    reader.driver.execute_script(
        """
        for (const model of Bokeh.documents[0]._all_models.values())
          if (model.type === "RadioButtonGroup") model.active = 1;
        """
    )
    reader.until(lambda: reader.labels() == ["load", "count", "never"])
    assert set(reader.column("bars", "top")) == {0.4, -0.6, -1.6}
    no_mistakes(reader)


def test_the_graph_shows_nodes_with_states_and_counts(see, sums):
    reader = see("flow-graph")
    names = reader.until(lambda: reader.column("boxes", "name"))
    told = dict(zip(names, reader.column("boxes", "count"), strict=True))
    assert told == {"load": "40 / 40", "count": "TriggerFailed", "never": "Failed"}
    states = dict(zip(names, reader.column("boxes", "state"), strict=True))
    assert states == {"load": "Failed", "count": "TriggerFailed", "never": "Failed"}
    assert len(reader.column("lines", "x0")) == 1
    no_mistakes(reader)


def test_the_graph_changes_its_colours_while_a_flow_runs(see, gated):
    gated("coloured")
    reader = see("flow-graph")
    reader.until(lambda: reader.column("boxes", "state") == ["Running", "Pending"])
    assert reader.column("boxes", "color")[1] == OPEN_COLOR
    GATES["coloured"].set()
    reader.until(lambda: reader.column("boxes", "state") == ["Completed"] * 2)
    no_mistakes(reader)


def test_failures_are_shown_as_text_with_a_traceback_of_the_chosen_one(see, sums):
    reader = see("flow-failures")
    rows = reader.until(lambda: reader.rows(0))
    assert [row[0] for row in rows[:4]] == [f"load[{n}]" for n in (7, 17, 27, 37)]
    assert rows[0][1:4] == ["Failed", "ValueError: cannot load 7 <b>bold</b>", "x=7"]
    reader.has("load[7] · Failed · 1 attempt", "ValueError: cannot load 7 <b>bold</b>")
    reader.driver.execute_script(
        """
        for (const model of Bokeh.documents[0]._all_models.values())
          if (model.name === "failures") model.selected.indices = [4];
        """
    )
    reader.has("never · Failed · 2 attempts", "OSError: no answer for 1")
    no_mistakes(reader)


def test_a_million_children_are_shown(see, sums, watched, watched_client):
    def tell(dask_scheduler):
        plugin = plugin_of(dask_scheduler)
        topic = f"{TOPIC_PREFIX}00000000"
        begin = ("million", "", time.time() - 20, watched_client.id, "")
        nodes = [(0, "load", True, False, ()), (1, "double", True, False, (0,))]
        first = {"begin": begin, "nodes": nodes, "lengths": [(0, 10**6), (1, 10**6)]}
        plugin.log_event(topic, ("told", "", first))
        for block in range(1_000):
            start = 1_000 * block
            at = begin[2] + block / 50
            failure = FailureText(start, 3, 1, at, "odd", "Traceback ...", "x=1")
            digests = tuple(
                Digest(
                    node, True, start, start + 1_000, ((0, 999), (3, 1)), 0, 0,
                    at, at + 0.04, ((-10, 1_000),), 0.04, (failure,),
                )
                for node in (0, 1)
            )  # fmt: skip
            report = ReportDigest(block % 4, block, (), digests)
            plugin.log_event(topic, ("done", "tcp://10.0.0.1:1", b"", told(report)))

    tell(watched.scheduler)
    try:
        reader = see("flow-runs")
        reader.has("2,000,000 / 2,000,000 task runs", "2,000 Failed")
        no_mistakes(reader)
        reader = see("flow-timeline")
        bars = reader.until(lambda: reader.column("bars", "left"))
        assert len(bars) <= 2_000
        no_mistakes(reader)
        reader = see("flow-graph")
        reader.until(lambda: reader.column("boxes", "count") == _BOTH)
        no_mistakes(reader)
    finally:
        plugin_of(watched.scheduler).runs.pop("00000000")


_BOTH = ["1,000,000 / 1,000,000"] * 2
