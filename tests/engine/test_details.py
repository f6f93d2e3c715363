"""States of children as bytes, until somebody looks."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.details import packed_details
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.states import Completed, Failed, Skipped
from tests.strategies import final_states

STATES = st.dictionaries(st.integers(0, 2**32 - 1), final_states(), max_size=20)


@given(STATES)
def test_packed_details_read_as_the_states_they_were_made_of(states):
    details = packed_details(states)
    for found in (details, pickle.loads(pickle.dumps(details))):
        assert list(found) == sorted(states)
        assert len(found) == len(states)
        assert bool(found) == bool(states)
        # Before one is looked at, and afterwards.
        for _ in range(2):
            assert {n: repr(s) for n, s in found.items()} == {
                n: repr(s) for n, s in states.items()
            }
            assert sorted(map(repr, found.values())) == sorted(
                map(repr, states.values())
            )
            for offset, state in states.items():
                assert repr(found[offset]) == repr(state)


@given(STATES, st.integers(0, 2**32 - 1))
def test_packed_details_know_what_they_hold(states, offset):
    details = packed_details(states)
    assert (offset in details) == (offset in states)
    assert "x" not in details
    if offset not in states:
        assert details.get(offset) is None
        with pytest.raises(KeyError):
            details[offset]


def test_failures_that_resemble_each_other_take_little_room():
    details = packed_details({n: Failed(f"row {n} is bad") for n in range(10_000)})
    assert len(pickle.dumps(details)) < 50 * 10_000


def test_a_state_can_follow_packed_ones():
    segment = Segment(0)
    segment.open(3)
    segment.put(0, Failed("no"), 1.0, 2.0)
    segment.details = packed_details(segment.details)
    segment.put(1, Skipped("not today"), 2.0, 3.0)
    segment.put(2, Completed(data=5), 3.0, 4.0)
    assert [repr(segment.state(n)) for n in range(3)] == [
        "Failed('no')",
        "Skipped('not today')",
        "Completed()",
    ]


class Counted(Exception):
    """Counts how often it is unpickled."""

    unpickled = 0

    def __setstate__(self, state):
        type(self).unpickled += 1
        self.__dict__.update(state)


def counted(number):
    error = Counted(number)
    error.number = number
    return Failed(f"row {number}", data=error)


@given(STATES, st.integers(0, 2**32), st.integers(0, 2**32), st.booleans())
def test_parts_of_packed_details_read_as_those_of_plain_ones(states, one, other, again):
    start, stop = sorted((one, other))
    part = packed_details(states).part(start, stop)
    expected = {n: s for n, s in states.items() if start <= n < stop}
    if again:  # a part of a part is one, too
        part = part.part(1, stop - start)
        start += 1
        expected = {n: s for n, s in expected.items() if n >= start}
    for found in (part, pickle.loads(pickle.dumps(part))):
        assert list(found) == sorted(n - start for n in expected)
        assert {n: repr(s) for n, s in found.items()} == {
            n - start: repr(s) for n, s in expected.items()
        }
        assert list(map(repr, found.values())) == [
            repr(state) for _, state in sorted(expected.items())
        ]
        for n, state in expected.items():
            assert repr(found[n - start]) == repr(state)


def test_parts_of_a_packed_segment_are_unpickled_once_and_only_when_looked_at():
    segment = Segment(0)
    segment.open(1_000)
    for n in range(1_000):
        state = counted(n) if n % 10 == 0 else Completed(data=n)
        segment.put(n, state, 1.0, 2.0)
    segment.details = packed_details(segment.details)
    Counted.unpickled = 0
    parts = [segment.part(at, at + 100) for at in range(0, 1_000, 100)]
    assert Counted.unpickled == 0
    for number, part in enumerate(parts):
        assert len(part.details) == 10
        assert part.state(10).data.number == 100 * number + 10
        assert [s.data.number for s in part.details.values()] == [
            100 * number + 10 * n for n in range(10)
        ]
    assert Counted.unpickled == 100
    # Nothing is left of one who goes through all of them.
    again = pickle.loads(pickle.dumps(segment))
    for _ in range(2):
        assert len(list(again.details.items())) == 100
    assert Counted.unpickled == 300


def test_a_part_without_details_takes_none_along():
    segment = Segment(0)
    segment.open(1_000)
    for n in range(500):
        segment.put(n, counted(n), 1.0, 2.0)
    segment.details = packed_details(segment.details)
    assert not segment.part(500, 1_000).details
    assert len(pickle.dumps(segment.part(500, 510).details)) < 300
