"""Books of small flows, for tests of the rules that share one."""

from prefect_dask_core import Flow, Task
from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.columns import Segment
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.planning import make_plan
from prefect_dask_core.states import Completed


def inc(x=0):
    return x + 1


def book_of(flow, wanted=()):
    return Book(make_plan(flow), frozenset(wanted))


def book_of_singles(count):
    """A book of plain nodes that read nothing."""
    with Flow("singles") as flow:
        for number in range(count):
            Task(inc, name=f"inc{number}")()
    return book_of(flow)


def assign(book, number, node, *reads):
    """Note a block of one plain node, as if it had been submitted."""
    found = book.plan.nodes[node]
    step = Step(node, found.task, found.slug, (), mapped=False)
    block = Block(number, (step,), 0, 1, 0.0, frozenset({node}))
    book.assigned[number] = Assignment(block, reads)
    book.blocks_of[node] = [number]
    return book.assigned[number]


def assign_chain(count):
    """A book in which each block reads the one before."""
    book = book_of_singles(count)
    for number in range(count):
        assign(book, number, number, *([number - 1] if number else []))
    return book


def completed(start, stop, flat_length=None):
    """Children that completed, with their indices as values."""
    segment = Segment(start)
    segment.open(stop - start)
    for offset in range(stop - start):
        segment.put(offset, Completed(), 0.0, 0.0, attempts=1)
    segment.values = list(range(start, stop))
    segment.flat_length = flat_length
    return segment
