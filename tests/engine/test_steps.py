"""What a block runs of each of its nodes."""

import pytest

from prefect_dask_core import Flow, Task
from prefect_dask_core.engine.columns import Children
from prefect_dask_core.engine.feeds import Each, Fixed, Items, Local, Whole
from prefect_dask_core.engine.resume import Earlier
from prefect_dask_core.engine.steps import kept_of, step_of
from prefect_dask_core.errors import InternalError
from prefect_dask_core.planning import make_plan
from tests.engine.books import Book, book_of, completed, inc


def add(x, y):
    return x + y


@pytest.fixture
def chain():
    """A flow of three nodes, each of which reads the one before."""
    with Flow("chain") as flow:
        first = Task(inc, name="first")()
        Task(inc, name="third")(Task(inc, name="second")(first))
    return flow


def test_a_block_keeps_what_somebody_else_reads(chain):
    book = book_of(chain)
    first, second, _ = (node.index for node in book.plan.nodes)
    assert kept_of(book, (first, second)) == {second}
    book.pinned.add(first)
    assert kept_of(book, (first, second)) == {first, second}
    book = book_of(chain, wanted={first})
    assert kept_of(book, (first, second)) == {first, second}


@pytest.fixture
def fan_out():
    """A fan-out of ten children in two blocks, 4 and 5, and a node that reads it."""
    with Flow("fan-out") as flow:
        above = Task(inc, name="above").map(list(range(10)))
        Task(add, name="mapped").map(above, list(range(10)))
        Task(sum, name="whole")(above)
    book = book_of(flow)
    nodes = {node.name: node for node in book.plan.nodes}
    above = nodes["above"].index
    book.children[above] = Children(10, [completed(0, 6), completed(6, 10)])
    book.blocks_of[above] = [4, 5]
    book.spans = {4: (0, 6), 5: (6, 10)}
    return book, nodes


def test_children_read_only_the_blocks_of_their_own_indices(fan_out):
    book, nodes = fan_out
    reads = {}
    step = step_of(book, nodes["mapped"], (), reads, (7, 9))
    each, items = (found.source for found in step.inputs)
    assert reads == {5: 0}
    assert isinstance(each, Each)
    assert (each.positions, each.spans) == ((0,), ((6, 10),))
    assert isinstance(items, Items)
    assert (list(items.values), items.start) == ([7, 8], 7)


def test_a_node_that_is_not_mapped_reads_all_of_a_fan_out(fan_out):
    book, nodes = fan_out
    reads = {}
    step = step_of(book, nodes["whole"], (), reads, None)
    (whole,) = (found.source for found in step.inputs)
    assert reads == {4: 0, 5: 1}
    assert isinstance(whole, Whole)
    assert whole.spans == ((0, 6), (6, 10))


def test_a_node_of_the_same_block_is_read_there(fan_out):
    book, nodes = fan_out
    reads = {}
    members = (nodes["above"].index, nodes["mapped"].index)
    step = step_of(book, nodes["mapped"], members, reads, (7, 9))
    assert step.inputs[0].source == Local(nodes["above"].index, False)
    assert reads == {}


def test_constants_are_given_as_they_are():
    with Flow("constant") as flow:
        Task(inc)(41)
    book = book_of(flow)
    step = step_of(book, book.plan.nodes[0], (0,), {}, None)
    assert [found.source for found in step.inputs] == [Fixed(41)]


def test_a_mapped_node_that_can_be_mapped_is_not_run_as_a_plain_one(fan_out):
    book, nodes = fan_out
    with pytest.raises(InternalError, match="can be mapped"):
        step_of(book, nodes["mapped"], (), {}, None)


def test_a_block_knows_the_pauses_of_its_own_children():
    with Flow("paused") as flow:
        Task(inc).map(list(range(10)))
    plan = make_plan(flow)
    (index,) = (node.index for node in plan.nodes if node.mapped)
    earlier = Earlier(paused={index: {2: "early", 5: "here"}})
    book = Book(plan, frozenset(), earlier)
    step = step_of(book, plan.nodes[index], (index,), {}, (4, 8))
    assert step.paused == {5: "here"}
