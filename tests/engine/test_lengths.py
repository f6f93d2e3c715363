"""How many children a mapped node has, by what is known above it."""

import pytest

from prefect_dask_core import Flow, Task, flatten
from prefect_dask_core.engine.book import all_ended
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.lengths import length_of
from prefect_dask_core.errors import MappingLengthMismatch, MappingMissingIterable
from prefect_dask_core.states import Failed, Skipped
from tests.engine.books import book_of, completed, inc


def mapped_over(how):
    """The book of a flow with a node that is mapped over another, and both nodes."""
    with Flow("lengths") as flow:
        above = Task(lambda: [], name="above")()
        Task(inc, name="mapped").map(how(above))
    return named(book_of(flow))


def named(book):
    nodes = {node.name: node for node in book.plan.nodes}
    return book, nodes["above"].index, nodes["mapped"]


def test_a_value_has_as_many_children_as_items():
    book, above, mapped = mapped_over(lambda value: value)
    book.plain[above] = completed(0, 1)
    book.plain[above].length = 7
    assert length_of(book, mapped, {}) == 7


def test_a_flattened_fan_out_has_as_many_as_its_children_have_elements():
    with Flow("lengths") as flow:
        above = Task(inc, name="above").map([1, 2, 3, 4])
        Task(inc, name="mapped").map(flatten(above))
    book, above, mapped = named(book_of(flow))
    segments = [completed(0, 3, flat_length=5), completed(3, 4, flat_length=2)]
    book.children[above] = Children(4, segments)
    assert length_of(book, mapped, {}) == 7


def test_a_node_of_the_same_lane_to_be_counts_with_its_length():
    book, above, mapped = mapped_over(lambda value: value)
    assert length_of(book, mapped, {above: 3}) == 3


@pytest.mark.parametrize("state", [Failed("no"), Skipped("not today")])
def test_above_what_gave_no_value_there_is_nothing_to_map_over(state):
    book, above, mapped = mapped_over(lambda value: value)
    book.plain[above] = all_ended(0, 1, state)
    refusal = length_of(book, mapped, {})
    assert isinstance(refusal, MappingMissingIterable)
    assert "above" in str(refusal)


def test_inputs_of_different_lengths_are_refused():
    with Flow("lengths") as flow:
        above = Task(lambda: [], name="above")()
        Task(lambda x, y: x, name="mapped").map(above, [1, 2])
    book, above, mapped = named(book_of(flow))
    book.plain[above] = completed(0, 1)
    book.plain[above].length = 3
    assert isinstance(length_of(book, mapped, {}), MappingLengthMismatch)
