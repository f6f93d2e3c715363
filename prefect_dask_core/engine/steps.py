"""Steps: what a block runs of each of its nodes, and where the inputs of these are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from prefect_dask_core.engine.block import NOT_PAUSED, Step
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.lengths import length_of
from prefect_dask_core.engine.plan import Input, Node, items_of
from prefect_dask_core.engine.sources import (
    Each,
    Filled,
    Fixed,
    Items,
    Local,
    Source,
    StepInput,
    Whole,
)
from prefect_dask_core.engine.templates import PART, has_template, nodes_of
from prefect_dask_core.errors import InternalError


def kept_of(book: Book, members: Iterable[int]) -> frozenset[int]:
    """Nodes of a block whose values somebody outside of it reads."""
    inside = set(members)
    return frozenset(
        node
        for node in inside
        if node in book.wanted
        or node in book.pinned
        or not inside.issuperset(book.plan.dependents[node])
    )


def step_of(
    book: Book,
    node: Node,
    members: Collection[int],
    reads: dict[int, int],
    span: tuple[int, int] | None,
) -> Step:
    """One node as a block runs it.

    Parameters
    ----------
    node : Node
        The node.
    members : collection of int
        Nodes of the same block.
    reads : dict of int to int
        Block number to argument position; grows.
    span : tuple of int or None
        Children of the block; `None` for a plain one.
    """
    custom = not hasattr(node.task.trigger, "rule")
    inputs = tuple(
        StepInput(
            item.key,
            "" if item.node is None else book.told_as(item.node),
            _source(book, item, members, reads, span),
            item.edge if custom else None,
            item.node in node.tolerated,
        )
        for item in node.inputs
        if item.value is not PART
    )
    refusal: Exception | None = None
    if node.mapped and span is None:
        found = length_of(book, node, {})
        if not isinstance(found, Exception):
            raise InternalError(f"node {node.name!r} can be mapped, yet is plain")
        refusal = found
    return Step(
        node.index,
        node.task,
        node.slug,
        inputs,
        mapped=span is not None,
        measured=node.index in book.plan.measured and span is None,
        flattened=node.index in book.plan.flattened,
        refusal=refusal,
        paused=_paused(book, node.index, span),
        variables=node.variables,
    )


def _paused(book: Book, index: int, span: tuple[int, int] | None) -> Mapping[int, str]:
    """Runs of a block that are resumed from a pause."""
    found = book.earlier.paused.get(index)
    if found is None or span is None:
        return found or NOT_PAUSED
    return {n: name for n, name in found.items() if span[0] <= n < span[1]}


def _source(
    book: Book,
    item: Input,
    members: Collection[int],
    reads: dict[int, int],
    span: tuple[int, int] | None,
) -> Source:
    if item.node is None:
        return _constant(book, item, reads, span)
    if item.node in members:
        return Local(item.node, item.flattened)
    fanout = item.node in book.children
    each = item.mapped and span is not None
    if each and not fanout and book.plain[item.node].length is None:
        each = False  # it cannot be iterated, so it is the same for every child
    if not each or span is None:
        return _whole(book, item.node, reads, item.flattened)
    if not fanout:
        positions = _positions(book.blocks_of[item.node], reads)
        return Each(item.node, positions, fanout, item.flattened)
    return _each_child(book, item.node, reads, span, item.flattened)


def _each_child(
    book: Book, node: int, reads: dict[int, int], span: tuple[int, int], flat: bool
) -> Each:
    """Where some children of a fan-out are, or some of their elements."""
    layout = book.layout(node)
    found = layout.giving(span) if flat else layout.holding(span)
    positions = _positions([layout.blocks[n] for n in found], reads)
    spans = tuple(layout.spans[n] for n in found)
    elements = tuple(layout.elements[n] for n in found) if flat else ()
    return Each(node, positions, True, flat, spans, elements)


def _constant(
    book: Book, item: Input, reads: dict[int, int], span: tuple[int, int] | None
) -> Source:
    constant: Fixed | Items = Fixed(item.value)
    value = item.value
    if item.mapped and span is not None:
        items = items_of(item.value)
        if items is not None:
            value = items[span[0] : span[1]]
            constant = Items(value, span[0])
    if not has_template(value):
        return constant
    places = tuple(
        (book.told_as(node), _whole(book, node, reads))
        for node in dict.fromkeys(nodes_of(value))
    )
    return Filled(constant, places)


def _whole(book: Book, node: int, reads: dict[int, int], flat: bool = False) -> Whole:
    """Where all of a node above is."""
    if node not in book.children:
        positions = _positions(book.blocks_of[node], reads)
        return Whole(node, positions, False, flat)
    layout = book.layout(node)
    positions = _positions(layout.blocks, reads)
    return Whole(node, positions, True, flat, tuple(layout.spans))


def _positions(blocks: Iterable[int], reads: dict[int, int]) -> tuple[int, ...]:
    """Where a block finds the results of others among its arguments."""
    return tuple(reads.setdefault(number, len(reads)) for number in blocks)
