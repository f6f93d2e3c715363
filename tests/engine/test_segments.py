"""The states of consecutive children in a few arrays."""

import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.states import (
    NO_DATA,
    Cached,
    Completed,
    Crashed,
    Failed,
    RunFacts,
    Skipped,
    TimedOut,
    TriggerFailed,
)
from tests.engine.made_segments import childless, segment_of


@given(st.lists(childless, max_size=8), st.integers(0, 5))
def test_a_segment_gives_back_the_states_it_was_given(given, start):
    segment = segment_of(given, start)
    assert (segment.start, segment.stop) == (start, start + len(given))
    for offset, state in enumerate(given):
        found = segment.state(offset)
        assert type(found) is type(state)
        assert (found.name, found.message) == (state.name, state.message)
        if state.is_successful() and state.data is NO_DATA:
            assert found.data is None
        else:
            assert found.data == state.data


@given(st.lists(childless, max_size=8))
def test_pickling_a_segment_changes_nothing(given):
    segment = segment_of(given)
    copy = pickle.loads(pickle.dumps(segment))
    assert [copy.state(i) for i in range(len(given))] == [
        segment.state(i) for i in range(len(given))
    ]
    assert copy.attempts == segment.attempts
    assert copy.ends == segment.ends


def test_a_value_is_what_a_task_below_gets():
    error = ValueError("no")
    segment = segment_of([Completed(data=1), Failed(data=error), Skipped()])
    assert [segment.value(i) for i in range(3)] == [1, error, None]


def test_a_value_that_was_not_kept_says_what_would_have_kept_it():
    segment = segment_of([Completed(data=1)]).without_values()
    with pytest.raises(MissingResult, match="return_tasks"):
        segment.state(0).result()


def test_cutting_a_segment_forgets_the_children_behind():
    segment = segment_of([Completed(data=i) for i in range(5)])
    segment.cut(2)
    assert len(segment) == segment.stop == len(segment.values) == 2


def test_a_segment_without_values_shares_its_columns():
    segment = segment_of([TimedOut("slow"), Completed(data=1)])
    copy = segment.without_values()
    assert copy.values is None
    assert copy.codes is segment.codes
    assert copy.state(0).message == "slow"


def test_a_completed_child_costs_few_bytes():
    segment = Segment(0)
    segment.open(10_000)
    for offset in range(10_000):
        segment.put(offset, Completed(data=None), 1.0, 2.0)
    columns = (segment.codes, segment.begins, segment.ends, segment.values)
    assert sum(map(sys.getsizeof, columns)) < 30 * 10_000
    assert not segment.details
    assert len(pickle.dumps(segment.without_values())) < 20 * 10_000


def test_waits_for_further_attempts_stay_with_their_child():
    segment = Segment(4)
    segment.open(3)
    segment.put(0, Completed(data=1), 0.0, 1.0)
    segment.put(1, Failed("no"), 0.0, 5.0, 3, ((1.0, 2.0), (3.0, 4.0)))
    segment.put(2, Completed(data=1), 0.0, 1.0)
    assert segment.waits == {1: ((1.0, 2.0), (3.0, 4.0))}
    twin = pickle.loads(pickle.dumps(segment))
    assert twin.waits == segment.without_values().waits == segment.waits
    assert segment.part(1, 3).waits == {0: ((1.0, 2.0), (3.0, 4.0))}
    assert segment.part(2, 3).waits is None


def test_what_a_segment_does_not_know_of_a_run_is_none_and_not_zero():
    segment = Segment(0)
    segment.open(2)
    segment.put(0, Crashed("its worker died"), 0.0, 0.0, attempts=0)
    segment.put(1, Crashed("its worker died", timestamp=7.0), 0.0, 0.0, attempts=0)
    first, second = (segment.state(offset).run for offset in range(2))
    assert first == RunFacts(0, None, None, None)
    assert first.seconds is None
    assert second == RunFacts(0, None, 7.0, None)


@pytest.mark.parametrize("kind", [TriggerFailed, Cached])
def test_a_million_runs_without_an_attempt_need_no_note_of_it(kind):
    segment = Segment(0)
    segment.open(3)
    segment.put(0, kind(), 1.0, 1.5)
    segment.put(1, kind(), 1.0, 1.5, attempts=0)
    segment.put(2, kind(), 1.0, 1.5, attempts=2)
    assert segment.attempts == {2: 2}
    assert [segment.attempts_of(offset) for offset in range(3)] == [0, 0, 2]
    segment.put(2, Failed("no"), 1.0, 1.5, attempts=1)
    assert segment.attempts == {}
