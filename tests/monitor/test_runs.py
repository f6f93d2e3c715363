"""What the scheduler counts: in any order of messages, and with some told twice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.monitor.failures import (
    MOST_FAILURES,
    MOST_KEPT,
    Failure,
    Failures,
)
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.tallies import TaskTally, rate_of, seconds_left
from prefect_dask_core.runners.digests import (
    Digest,
    FailureText,
    PlainDigest,
    ReportDigest,
    digest_of,
)
from prefect_dask_core.runners.telling import OPEN, Begin, Death, End, NodeInfo
from prefect_dask_core.states import Failed

NAMES = [cls.__name__ for cls in STATE_BY_CODE]
WORKERS = ("tcp://10.0.0.1:1", "tcp://10.0.0.2:1")


def segment_of(codes, start=0, begin=100.0):
    segment = Segment(start)
    segment.open(len(codes))
    for offset, code in enumerate(codes):
        state = STATE_BY_CODE[code](f"message {start + offset}")
        at = begin + start + offset
        segment.put(offset, state, at, at + 0.5, attempts=1 + code % 2)
    return segment


@st.composite
def told_runs(draw):
    """Nodes of a run, what is told of it, and its states by node."""
    codes = st.integers(0, len(STATE_BY_CODE) - 1)
    nodes, reports, lengths, truth = [], [], [], {}
    for index in range(draw(st.integers(1, 5))):
        mapped = draw(st.booleans())
        name = draw(st.sampled_from(["load", "clean", "total"]))
        nodes.append(NodeInfo(index, name, mapped, False, ()))
        found = draw(st.lists(codes, min_size=not mapped, max_size=12 if mapped else 1))
        truth[index] = found
        if mapped:
            lengths.append((index, len(found)))
        start = 0
        while start < len(found):
            size = draw(st.integers(1, 5)) if mapped else 1
            part = found[start : start + size]
            digest = digest_of(index, mapped, segment_of(part, start))
            worker = draw(st.sampled_from(WORKERS))
            reports.append((worker, ReportDigest(7, len(reports), (), (digest,))))
            start += size
    return nodes, reports, lengths, truth


def take_all(messages):
    run = Run("0123", most_bars=8)
    for kind, *content in messages:
        getattr(run, kind)(*content)
    return run


def known_of(run):
    """Everything that pages may show, in an order of its own."""
    return {
        "counts": run.counts(),
        "tasks": sorted(
            (t.name, t.nodes, t.length, t.unknown, sorted(t.counts.items()),
             t.retried, t.attempts, t.begin, t.end, sorted(t.durations.items()))
            for t in run.tasks
        ),
        "codes": bytes(run.codes),
        "bars": sorted((row.worker, row.of, *bar[:6]) for row, bar in run.bars),
        "failures": list(run.failures),
    }  # fmt: skip


@given(told=told_runs(), seed=st.integers(0, 2**32))
def test_counts_equal_the_states_in_any_order_of_messages(told, seed):
    nodes, reports, lengths, truth = told
    chance = random.Random(seed)
    in_order = [("begin", Begin("flow", "run", 99.0, "client", ""))]
    in_order += [("add_nodes", [node]) for node in nodes]
    in_order += [("set_lengths", [length]) for length in lengths]
    in_order += [("take", *report) for report in reports]
    shuffled = in_order + chance.sample(in_order, len(in_order) // 2)  # told twice
    chance.shuffle(shuffled)

    run = take_all(shuffled)

    expected = Counter(NAMES[code] for codes in truth.values() for code in codes)
    assert run.counts() == dict(expected)
    assert run.done == run.length == sum(map(len, truth.values()))
    assert run.is_whole
    assert len(run.bars) <= 8
    # Numbers of tasks go by who is told first, so runs are compared by their names.
    straight, other = known_of(take_all(in_order)), known_of(run)
    for key in straight:
        assert straight[key] == other[key], key


@given(told=told_runs(), seed=st.integers(0, 2**32))
def test_the_end_of_a_run_sets_right_what_was_missed(told, seed):
    nodes, reports, _, truth = told
    chance = random.Random(seed)
    heard = chance.sample(reports, len(reports) // 2)
    plain = bytearray([OPEN] * len(nodes))
    mapped = []
    for node in nodes:
        counts = tuple(sorted(Counter(truth[node.number]).items()))
        if node.mapped:
            mapped.append((node.number, len(truth[node.number]), counts))
        else:
            plain[node.number] = truth[node.number][0]

    run = take_all(
        [
            ("begin", Begin("flow", "run", 99.0, "client", "")),
            ("add_nodes", nodes),
            *(("take", *report) for report in heard),
            ("end", End("Failed", "", 130.0, bytes(plain), tuple(mapped))),
            *(("take", *report) for report in reports),  # too late to count
        ]
    )

    expected = Counter(NAMES[code] for codes in truth.values() for code in codes)
    assert run.counts() == dict(expected)
    assert run.done == run.length


def test_memory_does_not_grow_with_the_number_of_children():
    run = Run("0123", most_bars=50)
    run.begin(Begin("flow", "run", 0.0, "client", ""))
    run.add_nodes([NodeInfo(0, "load", True, False, ())])
    run.set_lengths([(0, 1_000_000)])
    for start in range(0, 1_000_000, 1_000):
        failure = FailureText(start, 3, 1, 1.0, "message", "trace", "x=1")
        digest = Digest(
            0, True, start, start + 1_000, ((0, 999), (3, 1)), 0, 0,
            start / 1e3, start / 1e3 + 0.9, ((-10, 1_000),), 0.9, (failure,),
        )  # fmt: skip
        run.take(WORKERS[start // 1_000 % 2], ReportDigest(1, start, (), (digest,)))
    assert run.counts() == {"Completed": 999_000, "Failed": 1_000}
    assert run.fan_outs[0].seen.ranges == [(0, 1_000_000)]
    assert len(run.bars) <= 50
    assert len(list(run.failures)) == MOST_FAILURES
    assert len(run.tasks[0].recent) <= 30


@given(
    places=st.lists(
        st.tuples(st.integers(0, 700), st.integers(0, 40)), max_size=60, unique=True
    ),
    seed=st.integers(0, 2**32),
)
def test_failures_are_bounded_and_the_first_in_any_order(places, seed):
    text = FailureText(0, 3, 1, 1.0, "message", "trace", "x=1")
    told = [
        Failure(node, True, "", text._replace(child=child))
        for node, child in [*places, *((task, 50) for task in range(0, 700, 2))]
        for child in ([child] if child < 50 else range(50, 55))
    ]
    forth, back = Failures(), Failures()
    for failure in told:
        forth.add(failure.node, [failure])
    random.Random(seed).shuffle(told)
    for failure in told:
        back.add(failure.node, [failure])
    assert len(forth) == len(list(forth)) <= MOST_KEPT
    assert list(forth) == list(back)
    first = min(failure.place for failure in told)
    assert next(iter(forth)).place == first


def test_a_mapped_node_that_could_not_be_mapped_counts_as_one_run():
    run = Run("0123")
    run.add_nodes([NodeInfo(0, "load", True, False, ())])
    assert not run.is_whole
    segment = segment_of([3])
    run.take(WORKERS[0], ReportDigest(1, 0, (), (digest_of(0, False, segment),)))
    assert run.is_whole
    assert (run.done, run.length) == (1, 1)


def test_constants_are_no_task_runs():
    run = Run("0123")
    run.add_nodes(
        [
            NodeInfo(0, "factor", False, True, ()),
            NodeInfo(1, "load", False, False, (0,)),
        ]
    )
    assert run.length == 1
    assert run.is_constant(0)
    assert run.name_of(0) == "factor"


def test_deaths_of_workers_are_kept_and_told_once():
    run = Run("0123")
    death = Death(5.0, WORKERS[0], False, "load", "the worker died")
    run.lose(death)
    run.lose(death)
    assert run.deaths == {death}


def tally(done, recent, begin=100.0, length=1_000):
    return TaskTally(
        "load",
        nodes=1,
        length=length,
        counts=Counter({0: done}),
        begin=begin,
        end=begin + 50,
        recent=Counter(recent),
    )


def test_the_rate_is_that_of_the_last_seconds():
    found = tally(500, {148: 20, 149: 20, 141: 20, 120: 400})
    assert rate_of([found], now=150.0) == pytest.approx(60 / 9)


def test_where_hardly_anything_ended_of_late_the_rate_is_that_since_the_begin():
    assert rate_of([tally(100, {110: 100})], now=150.0) == pytest.approx(2.0)


def test_the_time_left_needs_all_lengths():
    found = tally(100, {110: 100})
    assert seconds_left([found], now=150.0) == pytest.approx(450.0)
    found.unknown = 1
    assert seconds_left([found], now=150.0) is None


def test_nothing_is_left_of_what_has_ended():
    assert seconds_left([tally(1_000, {})], now=150.0) == 0.0


def test_a_state_that_is_unsuccessful_is_among_the_failures():
    run = Run("0123")
    run.add_nodes([NodeInfo(0, "load", True, False, ())])
    segment = Segment(0)
    segment.open(2)
    segment.put(1, Failed("no", data=ValueError("no")), 1.0, 2.0)
    run.take(WORKERS[1], ReportDigest(1, 0, (), (digest_of(0, True, segment),)))
    (failure,) = run.failures
    assert (failure.text.child, failure.text.message) == (1, "no")
    assert failure.worker == WORKERS[1]


@given(
    ends=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 900), st.integers(0, 9)),
        max_size=20,
    )
)
def test_the_short_way_for_plain_nodes_counts_as_the_long_one(ends):
    nodes = [NodeInfo(n, f"task {n % 2}", n == 5, False, ()) for n in range(5)]
    short, long = Run("0123", most_bars=8), Run("0123", most_bars=8)
    shared = Run("0123", most_bars=8)
    for number, (node, begin, seconds) in enumerate(ends):
        if number == len(ends) // 2:  # some are told before their nodes are
            short.add_nodes(nodes)
            long.add_nodes(nodes)
            shared.add_nodes(nodes)
        times = 100.0 + begin, 100.0 + begin + seconds
        short.take_plain(WORKERS[0], 7, number, node, *times)
        digest = Digest.of_completed(node, *times)
        long.take(WORKERS[0], ReportDigest(7, number, (), (digest,)))
        plain = PlainDigest(node, *times)
        shared.take(WORKERS[0], ReportDigest(7, number, (), (plain,)))
    assert known_of(short) == known_of(long) == known_of(shared)
    assert [t.recent for t in short.tasks] == [t.recent for t in long.tasks]
