"""The segments of a mapped node read as its states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.children import Children
from prefect_dask_core.states import Completed, Pending
from tests.engine.made_segments import childless, segment_of


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
