"""Lengths: how many children the mapped nodes of a run have."""

from __future__ import annotations

from functools import partial

from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.fanout import (
    elements_in,
    mapped_length,
    nothing_to_map,
)
from prefect_dask_core.engine.plan import Input, Node
from prefect_dask_core.engine.segments import is_success


def length_of(book: Book, node: Node, lane: dict[int, int]) -> int | Exception:
    """Number of children of a node, or why it cannot have any.

    Parameters
    ----------
    node : Node
        A mapped node.
    lane : dict of int to int
        Lengths of nodes that are about to run in the same lane.
    """
    return mapped_length(
        node,
        partial(_length_above, book, node, lane),
        partial(_skipped_above, book, lane),
    )


def _skipped_above(book: Book, lane: dict[int, int], item: Input) -> str | None:
    above = item.node
    assert above is not None
    if above in lane:
        return None  # element by element, or the node would not be in the lane
    name = book.told_as(above)
    if above not in book.children:
        return name if book.plain[above].state(0).is_skipped() else None
    whole = not item.mapped
    return name if whole and book.children[above].any_skipped() else None


def _length_above(
    book: Book, node: Node, lane: dict[int, int], item: Input
) -> int | Exception | None:
    above = item.node
    assert above is not None
    if above in lane:
        return lane[above]
    if above in book.children:
        children = book.children[above]
        if item.flattened:
            counts = [segment.flat_length for segment in children.segments]
            return elements_in(node.name, book.told_as(above), counts)
        return len(children)
    segment = book.plain[above]
    if not is_success(segment):
        name = book.told_as(above)
        return nothing_to_map(node.name, name, segment.state(0))
    return segment.flat_length if item.flattened else segment.length
