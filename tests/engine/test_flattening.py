"""Elements of the children of a fan-out: counted, found, the same however cut."""

import pickle
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.elsewhere import Packed
from prefect_dask_core.engine.flattening import (
    Elements,
    count_elements,
    element_ends,
    flat_values,
)
from prefect_dask_core.states import Completed, Crashed, Failed, Skipped
from tests.engine.made_segments import segment_of
from tests.engine.random_flows import seen


def done(value):
    return Completed(data=value)


class Thrice:
    """What is no collection of a known type, and can be iterated."""

    def __iter__(self):
        return iter("xyz")

    def __str__(self):
        return "thrice"


VALUES = st.one_of(
    st.lists(st.integers(), max_size=4),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.dictionaries(st.integers(), st.none(), max_size=3),
    st.sets(st.integers(), max_size=3),
    st.integers(),
    st.text(max_size=3),
    st.none(),
    st.builds(range, st.integers(0, 3)),
    st.builds(deque, st.lists(st.integers(), max_size=2)),
    st.builds(Thrice),
)
STATES = st.one_of(
    VALUES.map(done),
    VALUES.map(done),
    st.builds(Failed, st.just("no")),
    st.builds(Skipped),
)
#: Lists only, single values only, or anything: each is counted in another way.
FAN_OUTS = st.one_of(
    st.lists(st.lists(st.integers(), max_size=3).map(done), max_size=12),
    st.lists(st.integers().map(done), max_size=5),
    st.lists(STATES, max_size=12),
)


def unnested(states):
    """Per element, the child it is of and its value, one after the other."""
    for index, state in enumerate(states):
        value = state.result(raise_on_failure=False)
        if state.is_failed() or state.is_skipped() or isinstance(value, str):
            yield index, value
        elif hasattr(value, "__iter__"):
            yield from ((index, item) for item in value)
        else:
            yield index, value


def cut(states, sizes):
    """Segments of some sizes in turn."""
    segments, at, turn = [], 0, 0
    while at < len(states):
        size = sizes[turn % len(sizes)]
        segments.append(segment_of(states[at : at + size], at))
        at, turn = at + size, turn + 1
    return segments


@given(FAN_OUTS, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_elements_are_those_of_a_plain_loop_however_the_children_are_cut(states, sizes):
    expected = list(unnested(states))
    segments = cut(states, sizes)
    assert sum(map(count_elements, segments)) == len(expected)
    assert seen(flat_values(segments)) == seen([value for _, value in expected])
    elements = Elements(segments)
    for index, (child, value) in enumerate(expected):
        place = elements.find(index)
        assert place.segment.start + place.offset == child
        assert place.start <= index < place.stop
        found = (
            place.segment.value(place.offset)
            if place.items is None
            else place.items[index - place.start]
        )
        assert seen(found) == seen(value)


@given(FAN_OUTS, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_elements_of_some_blocks_are_where_they_were_counted(states, sizes, data):
    segments = cut(states, sizes)
    promised, at = {}, 0
    for made in segments:
        promised[made.start] = at, at = at, at + count_elements(made)
    some = [made for made in segments if data.draw(st.booleans())]
    everywhere, there = Elements(segments), Elements(some, promised)
    for index in range(at):
        place = everywhere.find(index)
        if any(place.segment is made for made in some):
            assert there.find(index) == place
        else:
            with pytest.raises(LookupError, match=f"element {index}"):
                there.find(index)


def test_elements_are_counted_once_and_the_count_does_not_travel():
    made = segment_of([done([1, 2]), done([3])])
    assert element_ends(made) is element_ends(made)
    assert list(element_ends(made)) == [2, 3]
    assert made.part(1, 2).element_ends is None
    assert list(element_ends(made.part(1, 2))) == [1]


def test_what_can_be_iterated_over_once_becomes_a_list_in_its_place():
    made = segment_of([done(iter([1, 2])), done([3])])
    assert count_elements(made) == 3
    assert flat_values([made]) == flat_values([made]) == [1, 2, 3]
    assert made.value(0) == [1, 2]


def test_packed_values_that_can_be_iterated_over_once_become_lists_too():
    made = segment_of([done(iter([1, 2])), done([3])])
    made.values = Packed(pickle.dumps(made.values))
    for segment in (made, pickle.loads(pickle.dumps(made))):
        assert count_elements(segment) == 3
        assert flat_values([segment]) == flat_values([segment]) == [1, 2, 3]
        assert segment.value(0) == [1, 2]


@pytest.mark.parametrize("change", ["put", "cut", "open"])
def test_a_count_does_not_outlive_what_was_counted(change):
    made = segment_of([done([1, 2]), done([3]), done([4, 5])])
    assert list(element_ends(made)) == [2, 3, 5]
    if change == "put":
        made.put(0, Failed("no"), 1.0, 2.0)
        assert list(element_ends(made)) == [1, 2, 4]
    elif change == "cut":
        made.cut(1)
        assert list(element_ends(made)) == [2]
    else:
        made.open(1)
        made.put(0, done([]), 1.0, 2.0)
        assert list(element_ends(made)) == [0]


def test_a_lost_block_moves_no_element_of_the_others():
    lost = segment_of([Crashed("gone"), Crashed("gone")])
    elements = Elements([lost, segment_of([done(["d"])], 2)], {0: (7, 12), 2: (12, 13)})
    places = [elements.find(index) for index in range(7, 13)]
    assert [place.segment.start for place in places] == [0] * 5 + [2]
    assert [place.offset for place in places] == [0, 1, 1, 1, 1, 0]
