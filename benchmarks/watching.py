"""Watching: what the pages of the dashboard cost a run, and how fast they are drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import dask

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds
from benchmarks.static_graphs import TASKS
from prefect_dask_core import Flow, Task
from prefect_dask_core.monitor.plugin import MonitorPlugin
from prefect_dask_core.runners._private import TOPIC_PREFIX
from prefect_dask_core.runners.digests import Digest, FailureText, ReportDigest, told
from prefect_dask_core.runners.telling import TOLD

#: Children of each of the two mapped tasks that the pages are drawn of.
CHILDREN, BLOCKS = 1_000_000, 10_000


def measure(bench: Bench) -> Iterator[Measurement]:
    """Runs that are watched beside runs that are not; then the pages."""
    yield measure_map(bench)
    yield measure_nodes(bench)
    yield from measure_pages(bench)


def measure_map(bench: Bench) -> Measurement:
    """A large fan-out, watched and not."""
    count = bench.choose(100_000, 2_000)
    with Flow("watched map") as flow:
        Task(_nothing, name="nothing").map(list(range(count)))
    what = f"map of {count:,} no-op children, watched; peer: not watched"
    return _in_turns(bench, flow, what, 1.05)


def measure_nodes(bench: Bench) -> Measurement:
    """Many plain nodes, watched and not."""
    count = bench.choose(5_000, 50)
    with Flow("watched nodes") as flow:
        for _ in range(count):
            TASKS[0]()
    what = f"{count:,} plain nodes, watched; peer: not watched"
    # The processor time is 1.03 to 1.05 times; the rest is for what the clock adds.
    return _in_turns(bench, flow, what, 1.1)


def _in_turns(bench: Bench, flow: Flow, what: str, limit: float) -> Measurement:
    def run(watched: bool) -> float:
        bench.settle()
        with dask.config.set({"prefect-dask-core.monitor.enabled": watched}):
            return seconds(partial(flow.run, task_runner=bench.runner))

    pairs = in_turns(
        partial(run, True), partial(run, False), rounds=bench.choose(15, 2), warm_up=2
    )
    return Measurement(what, "s", pairs, Bar("ratio", limit))


def _nothing(x: int) -> int:
    return x


def measure_pages(bench: Bench) -> Iterator[Measurement]:
    """An update of each page, of a run with two million task runs that goes on."""
    rounds = bench.choose(10, 2)
    found = bench.client.run_on_scheduler(update_pages, rounds)
    for page, times in found.items():
        what = f"update of {page}, 2 x {CHILDREN:,} children in {BLOCKS:,} blocks"
        pairs = tuple(Pair(1e3 * one) for one in times)
        yield Measurement(what, "ms", pairs, Bar("ours", 200))


def update_pages(rounds: int, dask_scheduler: Any = None) -> dict[str, list[float]]:
    """Seconds that updates of the pages take; runs on the scheduler.

    Each round more blocks are told, and what has changed is put into the form in which
    it goes to the browser.
    """
    from bokeh.document import Document
    from bokeh.protocol import Protocol

    from prefect_dask_core.monitor.pages import PAGES

    plugin = dask_scheduler.plugins["prefect-dask-core-monitor"]
    fed = feed(plugin, BLOCKS // 2)
    times: dict[str, list[float]] = {}
    for path, page_class in PAGES.items():
        document = Document()
        page = page_class(dask_scheduler, document)
        document.add_root(page.root())
        page.update()
        events: list[Any] = []
        document.on_change(events.append)
        for _ in range(rounds):
            step = BLOCKS // 2 // (rounds * len(PAGES))
            tell_blocks(plugin, fed, step)
            fed += step
            page._shown = None
            events.clear()
            begin = time.perf_counter()
            page.update()
            message = Protocol().create("PATCH-DOC", events) if events else None
            if message is not None:
                _ = message.content_json
            times.setdefault(path.strip("/"), []).append(time.perf_counter() - begin)
    plugin.runs.pop(RUN, None)
    return times


#: Id of the run that is made up.
RUN = "0" * 32


def feed(plugin: MonitorPlugin, blocks: int) -> int:
    """Tell a plugin of a run, and of some of its blocks."""
    begin = ("watched", "", time.time() - 200, "no client", "")
    nodes = [(0, "load", True, False, ()), (1, "double", True, False, (0,))]
    lengths = [(0, CHILDREN), (1, CHILDREN)]
    first = {"begin": begin, "nodes": nodes, "lengths": lengths}
    plugin.log_event(f"{TOPIC_PREFIX}{RUN}", (TOLD, "", first))
    tell_blocks(plugin, 0, blocks)
    return blocks


def tell_blocks(plugin: MonitorPlugin, first: int, count: int) -> None:
    """Tell a plugin of the ends of some blocks."""
    run = plugin.runs[RUN]
    assert run.begun is not None
    size = CHILDREN // BLOCKS
    for block in range(first, first + count):
        start, at = size * block, run.begun.begin + block / 50
        failure = FailureText(start, 3, 1, at, "odd", "Traceback ...", "x=1")
        digests = tuple(
            Digest(
                node,
                True,
                start,
                start + size,
                ((0, size - 1), (3, 1)),
                0,
                0,
                at,
                at + 0.1,
                ((-10, size),),
                0.1,
                (failure,),
            )
            for node in (0, 1)
        )
        report = told(ReportDigest(block % 16, block, (), digests))
        worker = f"tcp://10.0.0.{block % 8}:4000"
        plugin.log_event(f"{TOPIC_PREFIX}{RUN}", ("done", worker, b"", report))
