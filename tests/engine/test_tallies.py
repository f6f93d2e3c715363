"""What triggers need to know of the states above a run."""

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.tallies import tally_of, tally_of_state
from prefect_dask_core.triggers import Tally
from tests.engine.made_segments import segment_of
from tests.strategies import states


@given(st.lists(states(), max_size=8), st.integers(0, 3))
def test_the_tally_of_a_segment_is_that_of_its_states(given, start):
    segment = segment_of(given, start)
    named = {f"load[{start + i}]": segment.state(i) for i in range(len(given))}
    assert tally_of(segment, "load", mapped=True) == Tally.of(named)


@given(states())
def test_the_tally_of_a_state_is_that_of_a_segment_of_one(state):
    assert tally_of_state(state, "a") == Tally.of({"a": state})
