import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.columns import (
    STATE_BY_CODE,
    Children,
    Elsewhere,
    Packed,
    Segment,
    code_of,
    tally_of,
    tally_of_state,
)
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.states import (
    NO_DATA,
    Cached,
    Completed,
    Crashed,
    Failed,
    Mapped,
    Pending,
    RunFacts,
    Skipped,
    State,
    TimedOut,
    TriggerFailed,
    ValidationFailed,
)
from prefect_dask_core.triggers import Tally
from tests.strategies import final_states, states


def segment_of(given, start=0):
    """A segment with one child per state."""
    segment = Segment(start)
    segment.open(len(given))
    for offset, state in enumerate(given):
        segment.put(offset, state, float(offset), offset + 1.0, attempts=offset + 1)
    return segment


# Of a state with states below it only the node itself knows.
childless = final_states().filter(lambda state: not isinstance(state, Mapped))


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


@given(st.lists(states(), max_size=8), st.integers(0, 3))
def test_the_tally_of_a_segment_is_that_of_its_states(given, start):
    segment = segment_of(given, start)
    named = {f"load[{start + i}]": segment.state(i) for i in range(len(given))}
    assert tally_of(segment, "load", mapped=True) == Tally.of(named)


@given(states())
def test_the_tally_of_a_state_is_that_of_a_segment_of_one(state):
    assert tally_of_state(state, "a") == Tally.of({"a": state})


@given(st.lists(st.lists(childless, max_size=4), max_size=5), st.randoms())
def test_segments_may_come_in_any_order(parts, random):
    whole = [state for part in parts for state in part]
    segments, at = [], 0
    for part in parts:
        segments.append(segment_of(part, at))
        at += len(part)
    random.shuffle(segments)
    children = Children(len(whole), segments)
    assert [type(child) for child in children] == [type(state) for state in whole]
    assert sum(children.counts().values()) == len(whole)
    starts = [segment.start for segment in children.segments]
    assert starts == sorted(starts)


def test_a_state_without_a_code_has_that_of_its_nearest_parent():
    class Refused(Failed):
        __slots__ = ()

    assert STATE_BY_CODE[code_of(Refused())] is Failed
    assert STATE_BY_CODE[code_of(ValidationFailed())] is Failed
    segment = segment_of([Refused("no"), ValidationFailed("bad")])
    assert [type(segment.state(i)) for i in (0, 1)] == [Refused, ValidationFailed]


def test_every_code_stands_for_one_class():
    assert len(set(STATE_BY_CODE)) == len(STATE_BY_CODE) < 256
    assert all(issubclass(cls, State) for cls in STATE_BY_CODE)


def test_a_value_is_what_a_task_below_gets():
    error = ValueError("no")
    segment = segment_of([Completed(data=1), Failed(data=error), Skipped()])
    assert [segment.value(i) for i in range(3)] == [1, error, None]


def test_children_without_a_segment_are_pending():
    children = Children(4, [segment_of([Completed(data=1)], start=2)])
    assert [type(child) for child in children] == [Pending, Pending, Completed, Pending]
    assert children.counts() == {"Completed": 1, "Pending": 3}
    assert children.attempts(0) == 0
    assert children.attempts(2) == 1
    assert children.times(0) is None
    assert children.times(2) == (0.0, 1.0)


def test_children_are_a_sequence():
    given = [Completed(data=i) for i in range(5)]
    children = Children(5, [segment_of(given[:2]), segment_of(given[2:], start=2)])
    assert children[-1].result() == 4
    assert [child.result() for child in children[1:4]] == [1, 2, 3]
    assert len(children) == 5
    assert Completed(data=3) in children
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"child {index} of a mapped task that"):
            children[index]


def test_a_value_elsewhere_is_fetched_once_when_asked_for():
    fetched = []

    def fetch():
        fetched.append(1)
        return ["a", "b"]

    segment = segment_of([Completed(data=None), Completed("said", data=None)])
    segment.values = Elsewhere(fetch)
    states = [segment.state(0), segment.state(1)]
    assert not fetched
    assert [state.result() for state in states] == ["a", "b"]
    assert len(fetched) == 1


def test_a_value_that_was_not_kept_says_what_would_have_kept_it():
    segment = segment_of([Completed(data=1)]).without_values()
    with pytest.raises(MissingResult, match="return_tasks"):
        segment.state(0).result()


def test_packed_values_are_unpickled_when_asked_for():
    packed = Packed(pickle.dumps([1, "two"]))
    assert packed[1] == "two"
    assert pickle.loads(pickle.dumps(packed))[0] == 1


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
