"""States of children as bytes, until somebody looks."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.columns import Segment
from prefect_dask_core.engine.details import packed_details
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
