"""Templates: walked, filled and left alone where there is nothing to fill."""

import dataclasses
import pickle
from collections import OrderedDict, defaultdict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.templates import (
    PART,
    Hole,
    Part,
    Template,
    fill,
    has_template,
    nodes_of,
    part_input,
    rebuild,
)

Point = namedtuple("Point", "x y")


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    cells: list


leaves = st.one_of(st.integers(), st.text(max_size=3), st.none())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Row, st.text(max_size=2), st.lists(inner, max_size=2)),
    ),
    max_leaves=12,
)


@given(values)
def test_a_value_without_anything_to_replace_is_the_very_same_object(value):
    assert rebuild(value, lambda leaf: leaf) is value


@given(values)
def test_filling_undoes_what_made_the_template(value):
    taken = []

    def punch(leaf):
        if isinstance(leaf, int):
            taken.append(leaf)
            return Hole(len(taken) - 1)
        return leaf

    # Type by type: the quick check for plain values must not hide a leaf.
    holed = rebuild([Marked(value)], unmark)
    punched = rebuild(mark_ints(holed[0]), lambda x: punch(x.value) if is_int(x) else x)
    template = Template(punched, tuple(Part(n) for n in range(len(taken))))
    assert fill(template, taken) == value


@dataclasses.dataclass(frozen=True)
class Marked:
    value: object


def unmark(leaf):
    return leaf.value if isinstance(leaf, Marked) else leaf


def is_int(leaf):
    return isinstance(leaf, Marked)


def mark_ints(value):
    if isinstance(value, int):
        return Marked(value)
    if isinstance(value, Point):
        return Point(*map(mark_ints, value))
    if isinstance(value, list | tuple):
        return type(value)(map(mark_ints, value))
    if isinstance(value, dict):
        return {key: mark_ints(item) for key, item in value.items()}
    if isinstance(value, Row):
        return Row(value.name, mark_ints(value.cells))
    return value


def test_keys_sets_and_special_dicts_are_filled():
    value = {Hole(0): {Hole(1)}}
    assert fill(Template(value, (Part(1), Part(2))), ["a", "b"]) == {"a": {"b"}}
    ordered = OrderedDict(a=[Hole(0)])
    filled = fill(Template(ordered, (Part(1),)), [1])
    assert filled == OrderedDict(a=[1])
    assert type(filled) is OrderedDict
    counts = defaultdict(list, a=Hole(0))
    filled = fill(Template(counts, (Part(1),)), [5])
    assert (filled["a"], filled["b"]) == (5, [])


def test_a_list_that_holds_itself_is_walked_once():
    value = [Hole(0)]
    value.append(value)
    filled = fill(Template(value, (Part(0),)), ["a"])
    assert filled[0] == "a"


def test_what_cannot_be_filled_raises():
    with pytest.raises(TypeError, match="unhashable"):
        fill(Template({Hole(0)}, (Part(0),)), [[]])


def test_a_template_pickles_and_so_does_its_mark():
    template = Template([Hole(0)], (Part(3, child=1, tolerant=True),))
    assert pickle.loads(pickle.dumps(template)) == template
    assert pickle.loads(pickle.dumps(part_input(3))).value is PART


def test_the_nodes_of_a_list_of_templates_are_those_of_its_items():
    items = [Template(Hole(0), (Part(2),)), 5, Template(Hole(0), (Part(4),))]
    assert has_template(items)
    assert list(nodes_of(items)) == [2, 4]
    assert not has_template([1, 2])
    assert list(nodes_of({"a": 1})) == []
