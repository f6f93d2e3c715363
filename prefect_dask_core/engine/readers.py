"""Readers: which blocks read which, directly or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.events import Assignment


def in_order(book: Book, numbers: Iterable[int]) -> list[int]:
    """Blocks in an order that respects what they read.

    Numbers alone do not tell: one that was run anew has a higher one than its
    readers.
    """
    waiting = set(numbers)
    ordered: list[int] = []

    def put(number: int) -> None:
        stack = [number]
        while stack:
            last = stack[-1]
            if last not in waiting:
                stack.pop()
                continue
            above = map(book.present, book.assigned[last].reads)
            missing = [found for found in above if found in waiting]
            if missing:
                stack += missing
            else:
                waiting.discard(last)
                ordered.append(stack.pop())

    for number in sorted(waiting):
        put(number)
    return ordered


def gone_above(book: Book, numbers: Sequence[int]) -> set[int]:
    """Blocks these read, directly or not, whose results are not held."""
    gone: set[int] = set()
    todo = [n for number in numbers for n in book.assigned[number].reads]
    while todo:
        number = book.present(todo.pop())
        if number not in gone and number not in book.held:
            gone.add(number)
            todo.extend(book.assigned[number].reads)
    return gone


def unheld_above(book: Book, anew: Sequence[Assignment]) -> list[Assignment]:
    """Blocks that these read, directly or not, and that are not held; in order."""
    fresh = {assignment.block.number for assignment in anew}
    found: set[int] = set()
    todo = [n for assignment in anew for n in assignment.reads]
    while todo:
        number = todo.pop()
        if number in fresh or number in found or number in book.held:
            continue
        known = book.assigned.get(number)
        if known is not None:
            found.add(number)
            todo.extend(map(book.present, known.reads))
    return [book.assigned[number] for number in in_order(book, found)]


def unfinished_readers(book: Book, gone: Sequence[int]) -> list[int]:
    """Unfinished blocks that read a lost one, directly or not, in order."""
    return readers_of(book, gone)[0]


def readers_of(book: Book, gone: Sequence[int]) -> tuple[list[int], list[int]]:
    """Blocks that are lost with others because they read them, directly or not.

    Returns
    -------
    list of int
        Those that have not finished, in order.
    list of int
        Those that had, and of which nobody holds the result: it may have been on
        its way once more.
    """
    found = set(gone)
    unfinished, finished = [], []
    for number in sorted(book.assigned):
        assignment = book.assigned[number]
        if number in found or found.isdisjoint(assignment.reads):
            continue
        if not book.is_under_way(number):
            if number not in book.held:
                finished.append(number)
                found.add(number)
            continue
        unfinished.append(number)
        found.add(number)
    return unfinished, finished
