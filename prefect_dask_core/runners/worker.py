"""What runs on a Dask worker: one block, and the report of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from distributed import Worker, get_worker, rejoin, secede

from prefect_dask_core.engine.block import Block, BlockReport
from prefect_dask_core.engine.block_results import (
    BlockResult,
    StaleInput,
    items_in,
    leanest,
    measure,
    segment_in,
)
from prefect_dask_core.engine.compile import RunRecord
from prefect_dask_core.engine.effects import Answer, AsyncCalls, Call
from prefect_dask_core.engine.measuring import count_children
from prefect_dask_core.engine.packing import SmallPart, load_small, unpack
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.sources import Filled, Items
from prefect_dask_core.engine.unreadable import how_to_mend
from prefect_dask_core.errors import InternalError, PrefectDaskCoreError
from prefect_dask_core.runners._private import carry_thread_state
from prefect_dask_core.runners.coroutines import Coroutines
from prefect_dask_core.runners.digests import MOST_WAITS, ReportDigest, digests_of, told
from prefect_dask_core.runners.home import (
    PlainReport,
    make_portable,
    pack_report,
    plain_report,
    refuse_unpicklable,
)
from prefect_dask_core.runners.logs import COLLECTOR
from prefect_dask_core.runners.outbox import (
    ADVANCED,
    BEGAN_WAITING,
    DONE,
    REACHED,
    outbox_of,
)
from prefect_dask_core.runners.run_logger import collector_here
from prefect_dask_core.runners.shell import ThreadShell

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds until a message has left a worker that may die next; Dask sends every 2 ms.
TIME_TO_LEAVE: Final = 0.01


class CannotLoad(PrefectDaskCoreError):
    """A worker cannot unpickle what it was sent: most often a package is missing."""


class CannotLoadItems(CannotLoad):
    """The same of what only some children of a block are mapped over."""


class WorkerShell(ThreadShell):
    """Gives the worker's thread back while it waits."""

    def __init__(self) -> None:
        self._has_left = False
        self._returns = False
        #: When it waited: begin and end, in seconds since the epoch.
        self.waits: list[tuple[float, float]] = []

    def call(self, call: Call) -> Answer:
        """Call user code, in a place of the pool."""
        if self._returns:
            self._has_left = self._returns = False
            rejoin()
        return super().call(call)

    def lend_place(self) -> None:
        """Let the worker start something else until the body beside has ended."""
        if not self._has_left:
            self._leave_pool()
            self._returns = self._has_left

    def wait(self, until: float) -> None:
        """Wait outside of the worker's thread pool."""
        begin = time.time()
        if self._has_left:
            super().wait(until)
        else:
            secede()
            super().wait(until)
            rejoin()
        if len(self.waits) < MOST_WAITS:
            self.waits.append((begin, time.time()))

    def async_calls(self) -> AsyncCalls:
        """Coroutines side by side; the worker's thread is given back meanwhile."""
        return Coroutines(self._leave_pool, carry_thread_state())

    def _leave_pool(self) -> None:
        """Let the worker start something else, although this block has not ended."""
        with contextlib.suppress(Exception):  # a thread that is not of the pool
            secede()
            self._has_left = True

    def prepare_thread(self) -> Callable[[], None]:
        """Let the thread of a limited body stand for the worker's."""
        return carry_thread_state()


def run_on_worker(
    header: bytes, inline: Sequence[SmallPart], record: Any, *arguments: Any
) -> Any:
    """Run a block; the Dask task of its key.

    Returns
    -------
    BlockResult or object
        For the blocks that read it; see `leanest`.

    The report goes out on the topic of the run before Dask's own message that the
    task has finished, on the same stream, so it arrives before it. That of a plain node
    which completed waits a moment for others (see `Outbox`).
    """
    worker = get_worker()
    block, run = _load(worker, header, inline, record, arguments)

    collector = collector_here(worker, run.topic, run.log_process, run.log_level)
    token = COLLECTOR.set(collector)

    outbox = outbox_of(worker)

    thread = threading.get_native_id()
    shell = WorkerShell()

    def tell(kind: str, body: Any, *digest: Any) -> None:
        if collector is not None:
            collector.flush()  # logs go before the report of what has logged them
        outbox.send(run.topic, kind, body, *digest)

    def tell_report(kind: str, report: BlockReport) -> None:
        # Before the errors are made to travel, which costs them their tracebacks.
        digest = _digest(block, report, arguments, shell, thread) if run.watched else ()
        for segment in report.segments.values():
            make_portable(segment)
        tell(kind, pack_report(report, run.home_bytes), *digest)

    def advanced(report: BlockReport) -> None:
        tell_report(ADVANCED, report)

    def began_waiting(done: int, busy: float) -> None:
        tell(BEGAN_WAITING, (block.number, done, busy))

    def reached(index: int) -> None:
        tell(REACHED, (block.number, index))
        time.sleep(TIME_TO_LEAVE)

    try:
        result, report = run_block(
            block,
            arguments,
            run.variables,
            shell,
            began_waiting,
            advanced,
            reached,
        )
        plain = _plain_report(block, report, run.home_bytes)
        if plain is not None:
            if collector is not None:
                collector.flush()
            outbox.add(run.topic, (*plain, thread), block.awaited)
            return leanest(result, plain.node) if block.keep else None
        for step in block.steps:
            segment = result.segments.get(step.node)  # not there if it was handed back
            if segment is not None and step.node in block.keep:
                if not refuse_unpicklable(segment, step.task.name, run.home_bytes):
                    continue
                if step.mapped and step.flattened:
                    count_children(segment)
                elif step.node in result.items:
                    del result.items[step.node]
                    segment.length = segment.flat_length = None
        tell_report(DONE, report)
        for node, segment in result.segments.items():  # some are copies
            segment.details = report.segments[node].details
    except StaleInput:
        raise
    except Exception as error:
        names = ", ".join(step.task.name for step in block.steps)
        raise InternalError(
            f"running block {block.number} ({names}) failed outside of the user's "
            f"code: {type(error).__name__}: {error}"
        ) from error
    finally:
        COLLECTOR.reset(token)
    return result


def _digest(
    block: Block,
    report: BlockReport,
    arguments: Sequence[Any],
    shell: WorkerShell,
    thread: int,
) -> tuple[Any, ...]:
    """What the pages are told of a report; nothing where that fails.

    The values it may show are the user's, and no run is to fail because it is watched.
    """
    waits, shell.waits = tuple(shell.waits), []
    try:
        digests = digests_of(block, report.segments, arguments)
        return (told(ReportDigest(thread, block.number, waits, digests)),)
    except Exception:
        _LOGGER.warning("the pages miss block %d", block.number, exc_info=True)
        return ()


class Lost(NamedTuple):
    """A block of plain nodes of which no report came.

    Parameters
    ----------
    key : object
        Its key.
    number : int
        Its number.
    nodes : dict of int to tuple of bool
        Whether others map over each of its nodes, and over it flattened.
    """

    key: Any
    number: int
    nodes: dict[int, tuple[bool, bool]]


def retell(
    lost: Sequence[Lost], limit: int, dask_worker: Worker
) -> list[tuple[str, Any]]:
    """Report of blocks whose reports were lost, by what they have left here.

    Parameters
    ----------
    lost : sequence of Lost
        The blocks.
    limit : int
        Most bytes of values that come along.
    dask_worker : Worker
        Filled in by Dask.

    Returns
    -------
    list of tuple
        Messages as `Outbox` sends them, without the worker's address. Of a bare value
        nobody knows any more when it was made: it is taken for made now.
    """
    messages: list[tuple[str, Any]] = []
    for key, number, nodes in lost:
        if key not in dask_worker.data:
            continue
        left = dask_worker.data[key]
        segments = {}
        for node, (measured, flattened) in nodes.items():
            segment = segments[node] = segment_in(left, node)
            if not isinstance(left, BlockResult):
                segment.begins[0] = segment.ends[0] = time.time()
                measure(segment, items_in(left, node) if measured else None, flattened)
        report = BlockReport(number, segments, 1, 0.0)
        messages.append((DONE, pack_report(report, limit)))
    return messages


def _plain_report(block: Block, report: BlockReport, limit: int) -> PlainReport | None:
    if len(block.steps) != 1 or block.steps[0].mapped:
        return None
    return plain_report(report, limit)


def _load(
    worker: Worker,
    header: bytes,
    inline: Sequence[SmallPart],
    record: Any,
    arguments: Sequence[Any],
) -> tuple[Block, RunRecord]:
    kind, what = CannotLoad, "the definition of a task, or an argument of it"
    try:
        run = load_small(record) if isinstance(record, SmallPart) else record
        block: Block = unpack(header, inline, arguments)
        kind = CannotLoadItems
        for step in block.steps:
            for item in step.inputs:
                source = item.source
                if isinstance(source, Filled):
                    source = source.source
                if isinstance(source, Items) and not block.apart:
                    what = f"what task {step.task.name!r} is mapped over"
                    _ = source.values[0]  # unpickled here, where it may fail
        return block, run
    except Exception as error:
        raise kind(
            f"worker {worker.address} cannot unpickle {what}: {type(error).__name__}: "
            f"{error}. {how_to_mend(error)}"
        ) from error
