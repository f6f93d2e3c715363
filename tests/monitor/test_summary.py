"""Summaries count what the states say, and name what failed first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import (
    EdgeView,
    NodeView,
    RunInfo,
    RunView,
    SegmentLook,
)
from prefect_dask_core.monitor.progress_rows import ProgressRows
from prefect_dask_core.monitor.report_columns import runs_of, timeline
from prefect_dask_core.monitor.report_graph import graph
from prefect_dask_core.monitor.summary import lines_of, summaries_of, summarize
from prefect_dask_core.monitor.watching import Novelties
from prefect_dask_core.states import Completed, Failed, TriggerFailed

INFO = RunInfo("0" * 32, "etl", "quick", begin=100.0)


@st.composite
def views(draw):
    """A view, and what its runs are: (task, state, begin, end, attempts) of each."""
    runs, nodes, children, plain = [], [], {}, {}
    for number in range(draw(st.integers(0, 4))):
        task = draw(st.sampled_from(["load", "clean", "store"]))
        mapped = draw(st.booleans())
        nodes.append(NodeView(number, task, f"{task}-{number}", mapped))
        sizes = draw(st.lists(st.integers(1, 4), max_size=3)) if mapped else [1]
        segments, start = [], 0
        for size in sizes:
            segment = Segment(start)
            segment.open(size)
            for offset in range(size):
                kind = draw(st.sampled_from(STATE_BY_CODE))
                begin = 100.0 + draw(st.integers(0, 50))
                end = begin + draw(st.integers(0, 9))
                attempts = draw(st.integers(1, 3))
                segment.put(offset, kind(), begin, end, attempts)
                runs.append((task, kind.__name__, begin, end, attempts))
            segments.append(segment)
            start += size
        if mapped:
            missing = draw(st.integers(0, 2))
            children[number] = Children(start + missing, segments)
            runs += [(task, "Pending", None, None, 1)] * missing
        else:
            plain[number] = segments[0]
    return RunView(INFO, nodes, SegmentLook(children, plain)), runs


@given(views())
def test_a_summary_counts_every_run_once(given):
    view, runs = given
    summaries = {summary.name: summary for summary in summaries_of(view)}
    for task in {task for task, *_ in runs}:
        mine = [run for run in runs if run[0] == task]
        summary = summaries[task]
        assert summary.runs == len(mine)
        assert summary.counts == Counter(state for _, state, *_ in mine)
        assert summary.retries == sum(attempts - 1 for *_, attempts in mine)
        ended = [end - begin for _, _, begin, end, _ in mine if begin is not None]
        assert summary.ended == len(ended)
        assert summary.longest == max(ended, default=0.0)


@given(views())
def test_progress_ends_where_the_summary_does(given):
    view, _ = given
    rows = ProgressRows()
    novelties = Novelties(view)
    rows.take(view, novelties.take(), 1.0)
    rows.take(view, novelties.take(), 2.0)  # nothing is told twice
    summaries = {summary.name: summary for summary in summaries_of(view)}
    assert {row.name for row in rows.rows} == set(summaries)
    for row in rows.rows:
        summary = summaries[row.name]
        assert row.total == summary.runs
        assert row.done == summary.ended
        told = row.counts + Counter(Pending=row.total - row.done)
        assert told == summary.counts


@given(views())
def test_a_timeline_has_each_run_that_began_in_the_row_of_its_task(given):
    view, runs = given
    columns = runs_of(view)
    assert len(columns) == sum(begin is not None for _, _, begin, _, _ in runs)
    if not len(columns):
        return
    found = timeline(columns, by_worker=False)
    assert not found.binned
    rows = [found.rows[int(-top)] for top in found.bars["top"]]
    told = Counter(zip(rows, found.bars["state"], found.bars["left"], strict=True))
    assert told == Counter(
        (task, state, begin - 100.0)
        for task, state, begin, _, _ in runs
        if begin is not None
    )
    for number, one in enumerate(rows):
        for other in range(number):
            if rows[other] != one:
                continue
            apart = (
                found.bars["right"][other] <= found.bars["left"][number]
                or found.bars["right"][number] <= found.bars["left"][other]
                or found.bars["top"][other] <= found.bars["bottom"][number]
                or found.bars["top"][number] <= found.bars["bottom"][other]
            )
            assert apart, "two bars overlap"


@given(views())
def test_the_graph_counts_every_run_once(given):
    view, runs = given
    boxes, _ = graph(view)
    counts = sum((Counter(box.counts) for box in boxes), Counter())
    assert counts == Counter(state for _, state, *_ in runs)
    places = [(box.x, box.y) for box in boxes]
    assert len(set(places)) == len(places)


def one_failure(state):
    segment = Segment(4)
    segment.open(2)
    segment.put(0, Completed(data=1), 100.0, 101.0)
    segment.put(1, state, 100.0, 107.5, attempts=3)
    refused = Segment(0)
    refused.open(1)
    refused.put(0, TriggerFailed("trigger refused: load[5] failed"), 108.0, 108.0)
    nodes = [
        NodeView(0, "load", "load-1", True),
        NodeView(1, "store", "store-1", False),
    ]
    look = SegmentLook({0: Children(6, [segment])}, {1: refused})
    return RunView(INFO, nodes, look)


def test_the_lines_of_a_summary_tell_what_needs_a_look():
    view = one_failure(Failed("ValueError: no luck\nat all"))
    end = Failed("reference tasks failed: store.")
    assert lines_of(summarize(view, end, 110.0)) == [
        "flow 'etl' Failed in 10.0 s: reference tasks failed: store.",
        "  load   6 runs  1 Failed, 4 Pending, 1 Completed   "
        "longest 7.50 s: load[5], 2 retries",
        "  store   1 run  1 TriggerFailed",
        "  load[5]: ValueError: no luck",
        "  1 did not run because of that",
    ]


def test_failures_that_are_not_named_are_counted():
    segment = Segment(0)
    segment.open(20)
    for offset in range(20):
        segment.put(offset, Failed(f"no {offset}"), 100.0, 101.0)
    look = SegmentLook({0: Children(20, [segment])})
    view = RunView(INFO, [NodeView(0, "load", "load-1", True)], look)
    summary = summarize(view, Failed(), 101.0, most=7)
    assert [failure.name for failure in summary.failures] == [
        f"load[{n}]" for n in range(7)
    ]
    assert lines_of(summary)[-1] == "  15 more failed"


def test_nodes_of_one_task_are_told_apart_by_their_slugs():
    segments = {}
    for number in range(2):
        segment = segments[number] = Segment(0)
        segment.open(1)
        segment.put(0, Failed("no"), 100.0, 101.0 + number)
    nodes = [NodeView(n, "load", f"load-{n}", False) for n in range(2)]
    view = RunView(INFO, nodes, SegmentLook(None, segments))
    (summary,) = summaries_of(view)
    assert summary.longest_name == "load-1"
    found = summarize(view, Failed(), 102.0).failures
    assert [failure.name for failure in found] == ["load-0", "load-1"]


def test_what_the_package_made_itself_is_not_counted():
    nodes = [NodeView(0, "List", "List-1", False, helper=True)]
    view = RunView(INFO, nodes, SegmentLook())
    assert summaries_of(view) == []
    assert graph(view) == ([], [])


def test_an_arrow_leads_through_a_helper():
    nodes = [
        NodeView(0, "a", "a-1", False),
        NodeView(1, "List", "List-1", False, (EdgeView(0, "0", False),), True),
        NodeView(2, "b", "b-1", True, (EdgeView(1, "x", True),)),
    ]
    boxes, arrows = graph(RunView(INFO, nodes, SegmentLook()))
    assert [(boxes[a.start].name, boxes[a.end].name, a.mapped) for a in arrows] == [
        ("a", "b", True)
    ]
    assert boxes[1].y == -1.0
