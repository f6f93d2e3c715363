"""Opening: from what says where an input is to the feed that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect_dask_core.engine.block_results import (
    flat_items_in,
    items_in,
    segment_in,
    segments_in,
)
from prefect_dask_core.engine.feeds import (
    ConstantFeed,
    EachChildFeed,
    EachItemFeed,
    Feed,
    FilledFeed,
    FlatChildFeed,
    ItemsFeed,
    LocalFeed,
    TolerantFeed,
    WholeFeed,
)
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import (
    Each,
    Filled,
    Fixed,
    Items,
    Local,
    Shared,
    StepInput,
    Whole,
)
from prefect_dask_core.errors import InternalError


def open_feed(
    step_input: StepInput,
    arguments: Sequence[Any],
    segments: Mapping[int, Segment],
    mapped: bool,
) -> Feed:
    """Get an input ready for reading.

    Parameters
    ----------
    step_input : StepInput
        The input.
    arguments : sequence
        Arguments of the block: block results and large constants.
    segments : mapping of int to Segment
        Of the earlier steps of the block.
    mapped : bool
        Whether the step runs children.
    """
    feed = _open(step_input, arguments, segments, mapped)
    return TolerantFeed(feed) if step_input.tolerated else feed


def _open(
    step_input: StepInput,
    arguments: Sequence[Any],
    segments: Mapping[int, Segment],
    mapped: bool,
) -> Feed:
    name, source = step_input.name, step_input.source
    match source:
        case Filled(inner, above):
            places = {
                whole.node: (
                    label,
                    segments_in(arguments, whole.node, whole.positions, whole.spans),
                    whole.fanout,
                )
                for label, whole in above
            }
            plain = step_input._replace(source=inner)
            return FilledFeed(_open(plain, arguments, segments, mapped), places)
        case Fixed(value):
            return ConstantFeed(value)
        case Items(values, start):
            return ItemsFeed(values, start)
        case Shared(position):
            return ConstantFeed(arguments[position])
        case Local(node, flat):
            return LocalFeed(name, segments[node], mapped, flat)
        case Each(node, positions, True, flat, spans, elements):
            found = segments_in(arguments, node, positions, spans)
            if not flat:
                return EachChildFeed(name, found)
            starts = (start for start, _ in spans) if elements else ()
            return FlatChildFeed(name, found, dict(zip(starts, elements, strict=True)))
        case Each(node, positions, False, flat):
            argument = arguments[positions[0]]
            read = flat_items_in if flat else items_in
            items = read(argument, node)
            return EachItemFeed(name, segment_in(argument, node), items)
        case Whole(node, positions, fanout, flat, spans):
            found = segments_in(arguments, node, positions, spans)
            return WholeFeed(name, found, fanout, flat)
        case _:
            raise InternalError(f"no feed reads {source!r}")
