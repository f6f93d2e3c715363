"""What is known of the nodes and blocks of a run."""

from dataclasses import replace

import pytest

from prefect_dask_core import Flow, Task
from prefect_dask_core.engine.book import FINAL, all_ended
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.events import Release
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import Cancelled, Crashed
from tests.engine.books import assign, assign_chain, book_of, completed, inc


def test_a_plain_reader_is_ready_once_all_is_submitted_a_mapped_one_once_it_is_final():
    with Flow("readers") as flow:
        first = Task(lambda: [1, 2], name="first")()
        Task(inc, name="plain")(first)
        Task(inc, name="mapped").map(first)
    book = book_of(flow)
    names = {node.name: node.index for node in book.plan.nodes}
    assert book.ready == [names["first"]]
    book.mark_submitted(names["first"])
    assert names["plain"] in book.ready
    assert names["mapped"] not in book.ready
    book.plain[names["first"]] = completed(0, 1)
    book.make_final(names["first"])
    assert names["mapped"] in book.ready


def test_a_result_is_released_with_the_end_of_its_last_reader():
    with Flow("readers") as flow:
        Task(inc, name="second")(Task(inc, name="first")())
    book = book_of(flow)
    first, second = (node.index for node in book.plan.nodes)
    book.submit([assign(book, 0, first)])
    assert book.held == {0}
    book.told = []
    for node in (first, second):
        assert book.told == []
        book.plain[node] = completed(0, 1)
        book.make_final(node)
    assert book.told == [Release((0,))]
    assert book.held == set()


def test_a_result_of_several_nodes_is_held_as_long_as_one_of_them_is_read():
    with Flow("readers") as flow:
        Task(inc, name="reader")(Task(inc, name="read")())
        Task(inc, name="unread")()
    book = book_of(flow)
    names = {node.name: node.index for node in book.plan.nodes}
    read, unread = names["read"], names["unread"]
    both = assign(book, 0, read)
    steps = (*both.block.steps, *assign(book, 1, unread).block.steps)
    book.submit([replace(both, block=both.block._replace(steps=steps))])
    book.blocks_of = {read: [0], unread: [0]}
    for node in (read, unread):
        book.plain[node] = completed(0, 1)
        book.make_final(node)
    assert book.held == {0}
    book.plain[names["reader"]] = completed(0, 1)
    book.make_final(names["reader"])
    assert book.held == set()


def test_a_result_that_only_the_same_graph_reads_is_not_held():
    with Flow("readers") as flow:
        Task(inc, name="second")(Task(inc, name="first")())
    book = book_of(flow)
    first, second = (node.index for node in book.plan.nodes)
    for node in (first, second):
        book.mark_submitted(node)
    book.submit([assign(book, 0, first), assign(book, 1, second, 0)])
    assert book.held == {1}
    assert not book.assigned[0].block.awaited


def test_a_node_does_not_end_twice():
    book = assign_chain(1)
    book.plain[0] = completed(0, 1)
    book.make_final(0)
    with pytest.raises(InternalError, match="final already"):
        book.make_final(0)


def test_the_number_of_a_block_is_followed_over_all_the_times_it_was_run_anew():
    book = assign_chain(1)
    for old in range(3):
        book.renumber({old: old + 1})
        assign(book, old + 1, 0)
        book.forget(old)
    assert [book.present(number) for number in range(4)] == [3, 3, 3, 3]
    assert book.blocks_of[0] == [3]


def test_what_has_not_ended_ends_in_one_way_and_the_rest_stands():
    with Flow("stopped") as flow:
        Task(inc, name="mapped").map(list(range(10)))
        Task(inc, name="plain")()
    book = book_of(flow)
    names = {node.name: node.index for node in book.plan.nodes}
    known = [completed(2, 4), completed(7, 8)]
    book.children[names["mapped"]] = Children(10, known)
    book.end_all(Cancelled("stopped"))
    segments = book.children[names["mapped"]].segments
    spans = [(segment.start, segment.stop) for segment in segments]
    assert spans == [(0, 2), (2, 4), (4, 7), (7, 8), (8, 10)]
    assert [type(segment.state(0)).__name__ for segment in segments] == [
        *("Cancelled", "Completed", "Cancelled", "Completed", "Cancelled")
    ]
    assert isinstance(book.plain[names["plain"]].state(0), Cancelled)
    assert book.left == 0
    assert set(book.status) == {FINAL}


def test_part_of_a_segment_is_known_by_its_span():
    with Flow("mapped") as flow:
        Task(inc).map(list(range(10)))
    book = book_of(flow)
    (index,) = (node.index for node in book.plan.nodes if node.mapped)
    book.children[index] = Children(10, [completed(2, 8)])
    assert book.part(index, 3, 5).values == [3, 4]
    assert book.part(index, 8, 9) is None


def test_children_that_never_ran_have_no_attempts_and_count_as_one_element_each():
    segment = all_ended(3, 6, Crashed("lost"))
    assert (segment.start, segment.stop, segment.flat_length) == (3, 6, 3)
    assert segment.attempts == {0: 0, 1: 0, 2: 0}
