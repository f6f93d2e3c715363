"""What the pages show, as columns: bounded, in order, sent only where they changed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.monitor.bars import LEAST, Bar, Bars, Row
from prefect_dask_core.monitor.columns import (
    ORDER,
    RunRows,
    about_run,
    changes,
    failure_columns,
    headline,
    parts_of,
    task_columns,
)
from prefect_dask_core.monitor.graph import (
    MOST_BOXES,
    MOST_COLUMNS,
    folded,
    layout,
    picture,
)
from prefect_dask_core.monitor.palette import COLORS
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.spans import Spans
from prefect_dask_core.monitor.tallies import TaskTally
from prefect_dask_core.monitor.timeline import FILLED, MOST_ROWS, timeline
from prefect_dask_core.runners.telling import Begin, Death, End, NodeInfo
from prefect_dask_core.states import TriggerFailed

ROW = Row("tcp://10.0.0.1:1", 1, 0, 0, 1)


def bar(begin, end, **more):
    fields = {"blocks": 1, "children": 1, "retries": 0, "failures": 0, "busy": 1.0}
    return Bar(begin, end, **{**fields, **more})


def begun(*nodes):
    run = Run("0123", most_bars=500)
    run.begin(Begin("flow", "run", 100.0, "client", ""))
    run.add_nodes(nodes)
    return run


# -- bars --------------------------------------------------------------------------

spans = st.tuples(st.integers(0, 10_000), st.integers(0, 500))
rows = st.builds(
    Row,
    st.sampled_from(["a", "b", "c"]),
    st.integers(1, 4),
    st.integers(0, 2),
    st.just(0),
    st.just(1),
)


@given(found=st.lists(st.tuples(rows, spans), max_size=80), most=st.integers(-1, 40))
def test_bars_are_bounded_lose_nothing_and_know_no_order(found, most):
    given_bars = [(row, bar(a / 100, (a + b) / 100)) for row, (a, b) in found]
    forth, back = Bars(most), Bars(most)
    for row, one in given_bars:
        forth.add(row, one)
    for row, one in reversed(given_bars):
        back.add(row, one)
    assert len(forth) <= max(LEAST, most)
    assert sum(one.blocks for _, one in forth) == len(given_bars)
    assert {(row, one[:6]) for row, one in forth} == {(r, o[:6]) for r, o in back}
    if given_bars:
        assert min(o.begin for _, o in forth) == min(o.begin for _, o in given_bars)
        assert max(o.end for _, o in forth) == max(o.end for _, o in given_bars)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8)), max_size=40))
def test_a_child_is_told_of_once(ranges):
    seen, known = set(), Spans()
    for start, size in ranges:
        span = range(start, start + size)
        assert known.add(start, start + size) == seen.isdisjoint(span)
        if seen.isdisjoint(span):
            seen.update(span)
    assert {n for start, stop in known.ranges for n in range(start, stop)} == seen


# -- the timeline ------------------------------------------------------------------


def test_threads_that_do_not_overlap_share_a_row():
    run = begun(NodeInfo(0, "load", False, False, ()))
    run.bars.add(ROW, bar(101, 102))
    run.bars.add(ROW._replace(thread=2), bar(103, 104))
    run.bars.add(ROW._replace(thread=3), bar(103.5, 105))
    found = timeline(run, by_task=False)
    assert found.rows == 2
    assert found.labels == {-0.0: "10.0.0.1:1", -1.0: ""}
    assert sorted(found.bars["left"]) == [1, 3, 3.5]
    assert sorted(set(found.bars["bottom"])) == [-1 - FILLED / 2, -FILLED / 2]


def test_tasks_of_a_lane_share_the_height_of_a_row():
    nodes = [NodeInfo(n, f"task {n}", True, False, ()) for n in range(3)]
    run = begun(*nodes)
    for position in range(3):
        row = Row(ROW.worker, 1, position, position, 3)
        run.bars.add(row, bar(101, 102))
    found = timeline(run, by_task=False).bars
    edges = sorted(zip(found["bottom"], found["top"], strict=True))
    for (_, top), (bottom, _) in pairwise(edges):
        assert abs(top - bottom) < 1e-9
    assert len(set(found["color"])) == 3


def test_by_task_there_is_a_row_for_each_task():
    run = begun(*[NodeInfo(n, f"task {n}", False, False, ()) for n in range(3)])
    for task in range(3):
        run.bars.add(ROW._replace(task=task), bar(101, 102))
    found = timeline(run, by_task=True)
    assert list(found.labels.values()) == ["task 0", "task 1", "task 2"]


def test_many_workers_share_the_last_row():
    run = begun(NodeInfo(0, "load", False, False, ()))
    run.bars.most = 10_000
    for number in range(2 * MOST_ROWS):
        run.bars.add(ROW._replace(worker=f"tcp://{number:04}"), bar(101, 102))
    found = timeline(run, by_task=False)
    assert found.rows == MOST_ROWS + 1
    assert found.labels[-float(MOST_ROWS)] == "others"


def test_a_death_is_marked_on_the_row_of_its_worker():
    run = begun(NodeInfo(0, "load", False, False, ()))
    run.bars.add(ROW, bar(101, 102))
    run.bars.add(ROW._replace(worker="tcp://10.0.0.2:1"), bar(101, 102))
    run.lose(Death(103.0, "tcp://10.0.0.2:1", False, "load", "the worker died"))
    found = timeline(run, by_task=False)
    assert (found.deaths["x"], found.deaths["y"]) == ([3.0], [-1])


def test_a_worker_that_died_before_anything_ended_there_is_none_of_those_shown():
    run = begun(NodeInfo(0, "load", False, False, ()))
    run.bars.add(ROW, bar(101, 102))
    run.lose(Death(103.0, "tcp://10.0.0.9:1", False, "load", "the worker died"))
    found = timeline(run, by_task=False)
    assert found.labels == {-0.0: "10.0.0.1:1", -1.0: "other workers"}
    assert (found.deaths["y"], found.rows) == ([-1], 2)


# -- the graph ---------------------------------------------------------------------


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    return {
        n: frozenset(draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else ())
        for n in range(count)
    }


@given(graphs())
def test_a_box_stands_to_the_right_of_what_it_reads_and_alone(above):
    places = layout(above)
    assert len(set(places.values())) == len(above)
    for box, found in above.items():
        assert all(places[other][0] < places[box][0] for other in found)


def test_tasks_that_read_one_another_have_places():
    places = layout({0: frozenset({1}), 1: frozenset({0})})
    assert len(set(places.values())) == 2


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_a_picture_is_of_a_size_that_a_browser_can_draw(heights):
    cells = [(x, y) for x, height in enumerate(heights) for y in range(height)]
    places = folded(dict(enumerate(cells)))
    assert len(set(places.values())) == len(cells)
    assert all(x < MOST_COLUMNS for x, _ in places.values())
    # One box does not reach into another, nor a band into the next.
    rows = sorted({y for _, y in places.values()})
    assert all(b - a >= 0.99 for a, b in pairwise(rows))
    # At 78 pixels a row: below the 16,384 that a canvas may have.
    assert max(rows, default=0) < 200


def test_a_task_that_runs_once_is_a_box_like_a_node():
    nodes = [NodeInfo(n, f"step {n}", False, False, ()) for n in range(80)]
    found = picture(begun(*nodes))
    assert found.by_task
    assert set(found.boxes["count"]) == {"Pending"}


def test_what_did_not_run_because_of_failures_is_not_called_failed():
    run = begun(NodeInfo(0, "load", True, False, ()))
    run.set_lengths([(0, 3)])
    refused = STATE_BY_CODE.index(TriggerFailed)
    run.fan_outs[0].counts.update({0: 1, refused: 2})
    run.tasks[0].counts.update({0: 1, refused: 2})
    assert picture(run).boxes["bad"] == ["2 not run"]
    assert run.tasks[0].failed == 0
    assert run.unsuccessful == 2


def test_a_large_flow_has_a_box_for_each_task():
    nodes = [NodeInfo(0, "first", False, False, ())]
    nodes += [NodeInfo(n, "other", False, False, (n - 1,)) for n in range(1, 100)]
    found = picture(begun(*nodes))
    assert MOST_BOXES < 100
    assert found.by_task
    assert found.boxes["name"] == ["first", "other"]
    assert found.boxes["count"] == ["Pending", "0 / 99"]
    assert len(found.lines["x0"]) == 1


# -- bars of parts, and what is sent -------------------------------------------------


@given(st.dictionaries(st.integers(0, len(STATE_BY_CODE) - 1), st.integers(1, 10**6)))
def test_the_parts_of_a_bar_fill_it_and_show_what_is_rare(counts):
    tally = TaskTally("load", length=sum(counts.values()))
    tally.counts.update(counts)
    parts = [part.split(":") for part in filter(None, parts_of([tally]).split(";"))]
    assert len(parts) == len(counts)
    if counts:
        assert abs(sum(float(width) for width, _, _ in parts) - 100) < 0.2
        assert all(float(width) >= 1.4 for width, _, _ in parts)


def test_all_states_have_a_place_and_a_colour():
    assert sorted(ORDER) == list(range(len(STATE_BY_CODE)))
    wrong = {COLORS[name] for name in ("Failed", "Crashed", "TimedOut", "Cancelled")}
    assert len(wrong) == 4
    assert COLORS["Completed"] not in wrong


columns = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8)


@given(before=columns, after=columns)
def test_what_is_sent_makes_the_new_columns(before, after):
    old = {"a": [a for a, _ in before], "b": [b for _, b in before]}
    new = {"a": [a for a, _ in after], "b": [b for _, b in after]}
    found = changes(old, new)
    if len(after) < len(before):
        assert found is None
        return
    patches, added = found
    for name, values in old.items():
        for row, value in patches.get(name, ()):
            assert values[row] != value
            values[row] = value
        values += added[name]
    assert old == new


def test_the_row_of_a_run_that_has_ended_is_made_once_and_others_each_time():
    ended, running = begun(), begun()
    ended.id, running.id = "aa", "bb"
    ended.end(End("Completed", "", 160.0, b"", ()))
    rows = RunRows()
    rows.columns([ended, running], 150.0)
    ended.begun = None  # would be seen if it were looked at again
    found = rows.columns([ended, running], 170.0)
    assert found["id"] == ["bb", "aa"]
    assert found["duration"] == ["1 min 10 s", "1 min 00 s"]
    ended.lose(Death(155.0, "", True, "load", "told late"))
    assert rows.columns([ended, running], 170.0)["duration"][1] == "-"


def test_a_single_task_run_has_no_rate():
    run = begun(NodeInfo(0, "load", False, False, ()))
    run.take_plain(ROW.worker, 1, 0, 0, 101.0, 101.00001)
    assert about_run(run, 102.0)["rate"] is None


def test_a_run_that_is_not_known_is_told_from_none_at_all():
    assert "No flow has run" in headline(None, 0.0)
    assert "Run 01234567 is not known here" in headline(None, 0.0, "0123456789ab")


def test_without_a_run_the_pages_are_empty():
    assert task_columns(None, 0.0)["task"] == []
    assert failure_columns(None)["run"] == []
    assert timeline(None, by_task=True).rows == 0
    assert picture(None).boxes["x"] == []
