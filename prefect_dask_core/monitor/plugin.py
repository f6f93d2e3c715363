"""Plugin: collects on the scheduler what workers and clients tell of flow runs.

It only counts (see `runs`). Nothing of the user's is unpickled here: reports come with
a digest of plain numbers and texts.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from prefect_dask_core.config import kept_runs, most_bars
from prefect_dask_core.monitor.metrics import forget_metrics
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.tallies import NAMES
from prefect_dask_core.runners._private import TOPIC_PREFIX
from prefect_dask_core.runners.digests import read
from prefect_dask_core.runners.outbox import PLAIN
from prefect_dask_core.runners.telling import TOLD, Begin, Death, End, NodeInfo

_LOGGER: Final = logging.getLogger(__name__)

#: Name of the plugin; there is one on a scheduler, whoever registers it.
NAME: Final = "prefect-dask-core-monitor"
#: Sets of labels whose counts are told to Prometheus; further ones are told as one.
MOST_LABELS: Final = 2_000

#: What runs are counted by: flow, task, name of the state.
Label = tuple[str, str, str]


class MonitorPlugin(SchedulerPlugin):
    """Collects flow runs.

    Parameters
    ----------
    runs : int, optional
        Ended runs that are kept; the setting ``monitor.runs`` unless given.
    bars : int, optional
        Bars that are kept of each run; the setting ``monitor.bars`` unless given.
    """

    name = NAME
    idempotent = True

    def __init__(self, runs: int | None = None, bars: int | None = None) -> None:
        self._most_runs = kept_runs() if runs is None else runs
        self._most_bars = most_bars() if bars is None else bars
        #: By id, in the order in which they were first told of.
        self.runs: dict[str, Run] = {}
        #: Grows with everything that is taken in.
        self.version = 0
        self._forgotten: Counter[Label] = Counter()
        self._forgotten_runs: Counter[str] = Counter()

    # -- what is told --------------------------------------------------------------

    def log_event(self, topic: str, msg: Any) -> None:
        """Take in a message; called by the scheduler for each one there is."""
        if topic.startswith(TOPIC_PREFIX):
            self._take(topic[len(TOPIC_PREFIX) :], msg)
        elif topic == "all" and msg.get("action") == "remove-worker":
            self._worker_left(msg)

    def _take(self, run_id: str, message: Any) -> None:
        kind, worker, body, *digest = message
        run = self.runs.get(run_id)
        if kind == TOLD and "begin" in body:
            run = self.runs.setdefault(run_id, Run(run_id, self._most_bars))
        if run is None:
            return  # nobody watches it, or it was forgotten
        if kind == TOLD:
            self._take_told(run, body)
        elif kind == PLAIN:
            for report in body:
                # The fields of a `home.PlainReport`, and the thread of the worker.
                run.take_plain(worker, report[-1], *report[:4])
        elif digest:
            run.take(worker, read(digest[0]))
        self.version += 1

    def _take_told(self, run: Run, told: Mapping[str, Any]) -> None:
        if "begin" in told:
            run.begin(Begin(*told["begin"]))
        if "nodes" in told:
            run.add_nodes(NodeInfo(*fields) for fields in told["nodes"])
        if "lengths" in told:
            run.set_lengths(told["lengths"])
        for message in told.get("given", ()):
            run.take("", read(message))
        for fields in told.get("lost", ()):
            run.lose(Death(*fields))
        if "end" in told:
            run.end(End(*told["end"]))
            self._forget_old()

    def _worker_left(self, message: Mapping[str, Any]) -> None:
        """Note the death of a worker in the runs that it worked for."""
        if message.get("expected", True):
            return
        keys = list(message.get("processing-tasks") or ())
        for run in self.runs.values():
            if run.ended is not None:
                continue
            mine = sorted({found for k in keys if (found := _tasks_of(k, run.id))})
            if mine:
                tasks = ", ".join(mine[:5])
                worker = str(message.get("worker", ""))
                run.lose(Death(time.time(), worker, False, tasks, "the worker died"))
                self.version += 1

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """End the runs that a client leaves behind: nobody drives them any more."""
        for run in list(self.runs.values()):
            if (
                run.ended is None
                and run.begun is not None
                and run.begun.client == client
            ):
                counts = run.final_counts()
                message = "the client that drives it has gone"
                run.end(End("Crashed", message, time.time(), *counts))
                self.version += 1
        self._forget_old()

    async def close(self) -> None:
        """Tell no metrics any more; called when the scheduler closes."""
        forget_metrics(self)

    def _forget_old(self) -> None:
        """Keep so many ended runs; what the others counted stays counted."""
        ended = [run for run in self.runs.values() if run.ended is not None]
        for run in ended[: max(0, len(ended) - self._most_runs)]:
            assert run.ended is not None
            self._forgotten.update(_labelled(run))
            if len(self._forgotten) > MOST_LABELS:
                self._forgotten = _with_fewer_labels(self._forgotten)
            self._forgotten_runs[run.ended.state] += 1
            del self.runs[run.id]

    # -- what is known -------------------------------------------------------------

    def newest(self) -> Run | None:
        """The run that began last; `None` if there is none."""
        return next(reversed(self.runs.values()), None)

    def task_runs(self) -> Counter[Label]:
        """Task runs that have ended since the scheduler began, by flow, task, state."""
        found = Counter(self._forgotten)
        for run in self.runs.values():
            found.update(_labelled(run))
        return _with_fewer_labels(found) if len(found) > MOST_LABELS else found

    def flow_runs(self) -> Counter[str]:
        """Flow runs by the name of their state."""
        found = Counter(self._forgotten_runs)
        found.update(state_of(run) for run in self.runs.values())
        return found


def state_of(run: Run) -> str:
    """Name of the state of a run."""
    return "Running" if run.ended is None else run.ended.state


def flow_of(run: Run) -> str:
    """Name of the flow of a run."""
    return run.begun.flow if run.begun is not None else "(unknown)"


def _labelled(run: Run) -> Counter[Label]:
    flow = flow_of(run)
    return Counter(
        {
            (flow, tally.name, NAMES[code]): count
            for tally in run.tasks
            for code, count in tally.counts.items()
        }
    )


def _with_fewer_labels(counts: Counter[Label]) -> Counter[Label]:
    """Counts with the rarer tasks as one: names may be made up without end."""
    found: Counter[Label] = Counter()
    for place, ((flow, task, state), count) in enumerate(counts.most_common()):
        if place < MOST_LABELS // 2:
            found[flow, task, state] += count
        else:
            found["(others)", "(others)", state] += count
    return found


def _tasks_of(key: Any, run_id: str) -> str:
    """Names of the tasks of a block, by its key; empty if it is of another run."""
    if not isinstance(key, tuple) or not key:
        return ""
    # Keys carry the begin of the id only.
    name, _, suffix = str(key[0]).rpartition("-")
    return name if suffix and run_id.startswith(suffix) else ""


def plugin_of(scheduler: Scheduler) -> MonitorPlugin | None:
    """The plugin of a scheduler; `None` if it has none."""
    found = scheduler.plugins.get(NAME)
    return found if isinstance(found, MonitorPlugin) else None
