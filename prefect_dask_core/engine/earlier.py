"""Earlier: puts what stands of an earlier run where something that runs reads it."""

from __future__ import annotations

from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.engine.segments import Segment


def take_earlier(book: Book) -> None:
    """Put stand-ins where something that runs reads what does not.

    Parameters
    ----------
    book : Book
        What is known of a run that begins.
    """
    kept = book.earlier.kept
    stand_ins = []
    for index, found in sorted(kept.items()):
        if found.length is None:
            book.plain[index] = found.segments[0]
            book.fans_out[index] = 0
        else:
            book.children[index] = Children(found.length, found.segments)
        book.blocks_of[index] = []
        if any(book.earlier.runs_again(n) for n in book.plan.dependents[index]):
            stand_ins += [_given(book, index, part) for part in found.segments]
    if stand_ins:
        book.submit(stand_ins)
    for index, found in sorted(kept.items()):
        if found.is_whole:
            if not book.fans_out[index]:
                book.mark_submitted(index)
            book.make_final(index)


def _given(book: Book, index: int, segment: Segment) -> Assignment:
    node = book.plan.nodes[index]
    step = Step(index, node.task, node.slug, (), mapped=bool(book.fans_out[index]))
    number = book.take_number()
    book.blocks_of[index].append(number)
    if book.fans_out[index]:
        book.spans[number] = segment.start, segment.stop
    block = Block(number, (step,), segment.start, segment.stop, 0.0, frozenset({index}))
    return Assignment(block, (), {index: segment})
