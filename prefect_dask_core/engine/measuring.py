"""Measuring: how much there is to map over in what a block gives to others."""

from __future__ import annotations

from typing import Any

from prefect_dask_core.engine.block import Block
from prefect_dask_core.engine.block_results import BlockResult, measure
from prefect_dask_core.engine.flattening import count_elements
from prefect_dask_core.engine.plan import items_of
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.states import Failed


def _measured(segment: Segment, flat: bool) -> list[Any] | None:
    """Items of a plain node's value, counted; `None` if there are none to map over."""
    if not is_success(segment):
        return None
    try:
        items = items_of(segment.values[0])
        measure(segment, items, flat)
    except Exception as error:  # iterating over a value may run any code of the user's
        _refuse_to_iterate(segment, 0, error)
        return None
    return items


def count_children(segment: Segment) -> None:
    """Count the elements of children; one that cannot be iterated over has failed.

    Notes
    -----
    Whatever changes a child afterwards has to count anew before the segment is reported
    or read: another worker would count other elements than were promised.
    """
    segment.flat_length = count_elements(segment, _refuse_to_iterate)


def _refuse_to_iterate(segment: Segment, offset: int, error: Exception) -> None:
    segment.length = segment.flat_length = None
    failed = Failed(f"its value cannot be iterated over: {error!r}", data=error)
    made = segment.attempts_of(offset)
    segment.put(offset, failed, segment.begins[offset], segment.ends[offset], made)


def result_of_block(block: Block, segments: dict[int, Segment]) -> BlockResult:
    """What stays for later blocks; measures the nodes that are mapped over."""
    items: dict[int, list[Any]] = {}
    for step in block.steps:
        segment = segments.get(step.node)
        if segment is None:
            continue  # handed back
        if step.measured and not step.mapped:
            found = _measured(segment, step.flattened)
            if found is not None:
                items[step.node] = found
        elif step.flattened:
            count_children(segment)
    kept = {
        node: segment if node in block.keep else segment.without_values()
        for node, segment in segments.items()
    }
    return BlockResult(kept, items)
