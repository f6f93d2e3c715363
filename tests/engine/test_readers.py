"""Which blocks read which."""

from prefect_dask_core.engine.book import FINAL
from prefect_dask_core.engine.readers import (
    gone_above,
    in_order,
    readers_of,
    unfinished_readers,
    unheld_above,
)
from tests.engine.books import assign, assign_chain


def test_a_block_that_was_run_anew_comes_before_its_readers():
    book = assign_chain(2)
    book.renumber({0: 2})
    assign(book, 2, 0)
    book.forget(0)
    assert in_order(book, {1, 2}) == [2, 1]


def test_a_long_chain_is_put_in_order_without_recursion():
    book = assign_chain(3_000)
    assert in_order(book, range(2_999, -1, -1)) == list(range(3_000))


def test_what_is_gone_above_ends_at_what_is_held():
    book = assign_chain(5)
    book.held = {1}
    assert gone_above(book, [4]) == {2, 3}
    assert gone_above(book, [2]) == set()


def test_blocks_above_that_nobody_holds_come_in_order():
    book = assign_chain(5)
    book.held = {0}
    found = unheld_above(book, [book.assigned[4], book.assigned[3]])
    assert [assignment.block.number for assignment in found] == [1, 2]


def test_readers_that_have_not_ended_are_lost_with_what_they_read():
    book = assign_chain(4)
    assert unfinished_readers(book, [1]) == [2, 3]


def test_a_reader_that_has_ended_is_lost_only_if_nobody_holds_its_result():
    book = assign_chain(4)
    book.status[1] = FINAL
    assert readers_of(book, [0]) == ([2, 3], [1])
    book.held = {1}
    assert readers_of(book, [0]) == ([], [])
