import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.fanout import (
    AIM,
    BLOCK_COST,
    BLOCKS_PER_THREAD,
    LEAST_BUSY,
    LEAST_WORK,
    MOST_CHILDREN,
    MOST_IN_FLIGHT,
    Pace,
    block_size,
    common_length,
    most_in_flight,
    nothing_to_map,
)
from prefect_dask_core.errors import MappingLengthMismatch, MappingMissingIterable
from prefect_dask_core.states import Failed

paces = st.builds(Pace, st.none() | st.floats(1e-7, 100))


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers(0, 3), max_size=4))
def test_a_common_length_is_that_of_every_input_that_has_one(lengths):
    known = {length for length in lengths.values() if length is not None}
    if not known:
        with pytest.raises(MappingMissingIterable):
            common_length("load", lengths)
    elif len(known) > 1:
        with pytest.raises(MappingLengthMismatch):
            common_length("load", lengths)
    else:
        assert {common_length("load", lengths)} == known


def test_a_mismatch_names_each_input_and_its_length():
    with pytest.raises(MappingLengthMismatch, match="a has 3, c has 0"):
        common_length("load", {"a": 3, "b": None, "c": 0})


def test_without_an_iterable_the_inputs_are_named():
    with pytest.raises(MappingMissingIterable, match=r"task 'load' .* \(a, b\) can"):
        common_length("load", {"a": None, "b": None})
    with pytest.raises(MappingMissingIterable, match=r"\(none\)"):
        common_length("load", {})


def test_nothing_to_map_over_names_both_tasks_and_the_state():
    error = nothing_to_map("load", "find", Failed("no"))
    assert str(error) == (
        "task 'load' has nothing to map over: 'find' ended as Failed('no')."
    )


@given(st.integers(1, 10**7), st.integers(0, 1_000), paces)
def test_a_block_holds_one_child_at_least_and_never_too_many(remaining, threads, pace):
    size = block_size(remaining, threads, pace)
    assert 1 <= size <= min(remaining, MOST_CHILDREN)
    if pace.seconds is None:
        assert size == 1
    elif size > 1:
        assert size * pace.seconds <= AIM * 1.001
        # While work remains that is worth a message, there is some for every thread.
        fair = -(-remaining // (BLOCKS_PER_THREAD * max(threads, 1)))
        assert size <= fair or size * pace.seconds <= LEAST_WORK * 1.001


@given(st.integers(0, 10**6), st.integers(1, 100), paces)
def test_cutting_comes_to_an_end(remaining, threads, pace):
    blocks = 0
    while remaining and blocks < 10_000:
        remaining -= block_size(remaining, threads, pace)
        blocks += 1
    assert remaining == 0 or blocks == 10_000


@given(st.integers(1, 10**4), st.integers(0, 10**4))
def test_more_threads_and_more_ended_blocks_allow_more(threads, finished):
    allowed = most_in_flight(threads, finished)
    assert 1 <= allowed <= MOST_IN_FLIGHT
    assert allowed <= most_in_flight(threads + 1, finished)
    assert allowed <= most_in_flight(threads, finished + 1)
    assert allowed <= most_in_flight(threads, finished, are_long=True)


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100)), min_size=1))
def test_a_pace_stays_between_what_was_measured(measured):
    pace = Pace()
    for children, busy in measured:
        pace.observe(children, busy)
    rates = [max(busy - BLOCK_COST, LEAST_BUSY) / n for n, busy in measured if n > 0]
    if rates:
        assert min(rates) * 0.999 <= pace.seconds <= max(rates) * 1.001
    else:
        assert pace.seconds is None


def test_later_measurements_weigh_more():
    pace = Pace()
    for busy in (1.0, 1.0, 9.0):
        pace.observe(1, busy)
    assert pace.seconds == pytest.approx(5.0 - BLOCK_COST)


def test_tiny_children_alone_in_their_blocks_do_not_look_slow():
    pace = Pace()
    pace.observe(1, busy=25e-6)
    assert block_size(996, 2, pace) == 996
