"""Running: a block from its first child to its result.

A block goes depth-first: child 0 through all its steps, then child 1. A child that
waits for its next attempt is parked, and the others go on. A block that finds itself
far over its aim stops early and hands back the children it has not begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect_dask_core.engine.block import Block, BlockReport, careful_piece
from prefect_dask_core.engine.block_results import BlockResult
from prefect_dask_core.engine.effects import Shell
from prefect_dask_core.engine.measuring import result_of_block
from prefect_dask_core.engine.open_steps import OpenStep
from prefect_dask_core.engine.quick import NOT_CALLED
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.under_way import Child, Teller, WaitingChildren

#: A block over its aim by this factor hands back what it has not begun.
FAR_OVER = 4.0


def run_block(
    block: Block,
    arguments: Sequence[Any],
    variables: Mapping[str, Any],
    shell: Shell,
    on_wait: Callable[[int, float], None] | None = None,
    on_advance: Callable[[BlockReport], None] | None = None,
    on_reach: Callable[[int], None] | None = None,
) -> tuple[BlockResult, BlockReport]:
    """Run a block to its end.

    Parameters
    ----------
    block : Block
        What to run.
    arguments : sequence
        Results of the blocks above and large constants, where sources point.
    variables : mapping
        Context variables of the flow run.
    shell : Shell
        Calls user code and waits.
    on_wait : callable, optional
        Told the number of children begun and the seconds of work before the block
        waits with nothing else to do.
    on_advance : callable, optional
        Given a report of the steps that ended while a later one still has to run;
        only of plain nodes, and not more often than every `REPORT_EVERY` seconds.
    on_reach : callable, optional
        Told the index of a child before it begins, now and then; only of a careful
        block.

    Returns
    -------
    BlockResult
        For the blocks below, with values.
    BlockReport
        For the driver, without values.
    """
    segments: dict[int, Segment] = {}
    steps = [
        OpenStep(step, block, arguments, segments, variables, shell)
        for step in block.steps
    ]
    dropped: list[Segment] = []
    if block.lean:
        dropped = [segments[s.node] for s in block.steps if s.node not in block.keep]
    waiting = WaitingChildren(steps, shell, on_wait, dropped)
    started = shell.now()
    limit = started + FAR_OVER * block.aim if block.aim else float("inf")
    tell = Teller(block, steps, shell, on_advance) if on_advance else None
    done = 0
    now = started
    piece = 0
    if block.careful and on_reach is not None:
        piece = careful_piece(block.start, block.stop)
    for index, first, last in block.ways():
        if done and now > limit:
            break
        if piece and not (index - block.start) % piece:
            assert on_reach is not None
            on_reach(index)
        child, now = _go_quickly(index, steps, first, last, shell, tell, now)
        if child is not None:
            waiting.go_on(child, tell)
            now = shell.now()
        else:
            for segment in dropped:
                segment.values[index - block.start] = None
        done += 1
        if waiting.is_full():
            waiting.take_answers(done, started, tell)
            now = shell.now()
    while waiting.is_open():
        waiting.take_answers(done, started, tell)
    _hand_back(block, segments, done)
    for segment in dropped:
        segment.values = None
    busy = shell.now() - started - waiting.seconds
    result = result_of_block(block, segments)
    report = BlockReport(block.number, segments, done, busy)
    return result, report


def _hand_back(block: Block, segments: dict[int, Segment], done: int) -> None:
    """Forget what was not begun."""
    if not block.parts:
        for segment in segments.values():
            segment.cut(done)
        return
    last = (*block.parts, len(block.steps))[done - 1]
    for step in block.steps[last:]:
        del segments[step.node]


def _go_quickly(
    index: int,
    steps: Sequence[OpenStep],
    first: int,
    last: int,
    shell: Shell,
    tell: Teller | None,
    now: float,
) -> tuple[Child | None, float]:
    """Take a child through the steps that need no pipeline, from one to another.

    Returns
    -------
    Child or None
        The child where it needs one; `None` if it has ended.
    float
        The time now.
    """
    for position in range(first, last):
        quick = steps[position].quick
        if quick is None or not quick.may_run(index):
            return Child(index, position, last), now
        answer = quick.run(index, now)
        if answer is not None:
            told = None if answer is NOT_CALLED else answer
            return Child(index, position, last, told, now), now
        segment = quick.segment
        offset = index - segment.start
        segment.begins[offset] = now
        now = segment.ends[offset] = shell.now()
        if tell is not None:
            tell.step_ended(position)
    return None, now
