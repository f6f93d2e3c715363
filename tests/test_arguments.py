from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import Flow
from prefect_dask_core.arguments import (
    Dict,
    List,
    Set,
    Tuple,
    collection_task,
    has_task,
    is_mappable,
    replayable,
    require_mappable,
    unwrap,
)
from prefect_dask_core.edges import Annotation, flatten, mapped, unmapped
from prefect_dask_core.errors import GraphError, MappingMissingIterable
from prefect_dask_core.tasks import Task

A = Task("a")
Point = namedtuple("Point", "x y")

plain = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)


def holes(value):
    """Number of places in a nested value."""
    if isinstance(value, dict):
        return sum(map(holes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(holes, value))
    return 1


def filled(value, number, what):
    """The nested value with something else in one place."""
    count = iter(range(holes(value)))

    def fill(part):
        if isinstance(part, dict):
            return {key: fill(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(map(fill, part))
        return what if next(count) == number else part

    return fill(value)


@given(plain)
def test_a_value_without_tasks_has_none(value):
    assert not has_task(value)


@given(st.data(), plain.filter(holes))
def test_a_task_is_found_anywhere_inside(data, value):
    place = data.draw(st.integers(0, holes(value) - 1))
    assert has_task(filled(value, place, A))


def test_tasks_as_keys_of_a_dict_are_not_looked_for():
    assert not has_task({A: 1})


def test_an_annotation_counts_as_a_task():
    assert has_task([unmapped(1)])


@given(st.lists(st.integers(), min_size=1), st.integers(0))
def test_a_list_with_tasks_is_collected_in_order(values, place):
    place %= len(values)
    made, inputs = collection_task([*values[:place], A, *values[place:]])
    assert isinstance(made, List)
    assert made.auto_generated
    expected = [*values[:place], "value of a", *values[place:]]
    assert made.call_body({**inputs, f"arg_{place + 1}": "value of a"}) == expected


@pytest.mark.parametrize(
    ("value", "kind", "collected"),
    [
        ([A, 1], List, [2, 1]),
        ((A, 1), Tuple, (2, 1)),
        ({A, 1}, Set, {2, 1}),
    ],
)
def test_a_collection_becomes_what_it_was(value, kind, collected):
    made, inputs = collection_task(value)
    assert type(made) is kind
    assert made.name == kind.__name__
    given = {key: 2 if item is A else item for key, item in inputs.items()}
    assert made.call_body(given) == collected


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_dict_is_collected_from_keys_and_values(kind):
    made, inputs = collection_task(kind(a=A, b=1))
    assert isinstance(made, Dict)
    assert inputs == {"keys": ["a", "b"], "values": [A, 1]}
    assert made.call_body({"keys": ["a", "b"], "values": [2, 1]}) == {"a": 2, "b": 1}


def test_a_dict_has_one_value_per_key():
    made, _ = collection_task({"a": A})
    with pytest.raises(ValueError, match="zip"):
        made.call_body({"keys": ["a", "b"], "values": [1]})


@pytest.mark.parametrize("value", [Point(A, 1), frozenset([A])])
def test_a_collection_that_cannot_be_made_again_is_refused(value):
    assert has_task(value)
    with pytest.raises(GraphError, match="cannot be put together again"):
        collection_task(value)


def test_collections_of_one_kind_share_body_and_options():
    first, _ = collection_task([A])
    second, _ = collection_task([A, A])
    assert first is not second
    assert first.fn is second.fn
    assert first.options is second.options


@pytest.mark.parametrize(
    ("value", "call_mapped", "expected"),
    [
        (3, True, Annotation(3, True)),
        (3, False, Annotation(3, False)),
        (unmapped(3), True, Annotation(3, False)),
        (mapped(3), False, Annotation(3, True)),
        (flatten(3), True, Annotation(3, True, True)),
        (flatten(unmapped(3)), True, Annotation(3, False, True)),
    ],
)
def test_the_flags_of_an_annotation_win_over_those_of_the_call(
    value, call_mapped, expected
):
    assert unwrap(value, call_mapped) == expected


@pytest.mark.parametrize("value", [[], (), {}, set(), range(3), iter([]), A])
def test_what_can_be_iterated_over_is_mappable(value):
    assert is_mappable(value)


@pytest.mark.parametrize("value", ["abc", b"abc", 3, None, object()])
def test_text_and_single_values_are_not_mappable(value):
    assert not is_mappable(value)


def test_what_is_read_only_once_becomes_a_list():
    assert replayable(x for x in "ab") == ["a", "b"]
    kept = [1]
    assert replayable(kept) is kept
    assert replayable(kept, flattened=True) is kept


def test_what_is_read_only_once_in_a_flattened_argument_becomes_a_list(run):
    assert replayable([iter("ab"), "c"], flattened=True) == [["a", "b"], "c"]
    with Flow("f") as flow:
        same = Task(lambda x: x, name="same").map(flatten(iter([iter([1]), [2, 3]])))
    assert run(flow)[same].result() == run(flow)[same].result() == [1, 2, 3]


def test_a_mapped_call_needs_one_thing_to_map_over():
    require_mappable("t", {"x": Annotation([1], True), "y": Annotation(3, True)})
    with pytest.raises(MappingMissingIterable, match=r"'t' is mapped, but .* \(x, y\)"):
        require_mappable("t", {"x": Annotation([1], False), "y": Annotation(3, True)})
    with pytest.raises(MappingMissingIterable, match=r"\(none\)"):
        require_mappable("t", {})
