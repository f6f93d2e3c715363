"""Metrics: counts of flow runs and task runs on the scheduler's Prometheus route."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Protocol


class Source(Protocol):
    """Knows how many runs ended in which state."""

    def task_runs(self) -> Counter[tuple[str, str, str]]:
        """Task runs that have ended, by flow, task and state."""

    def flow_runs(self) -> Counter[str]:
        """Flow runs by their state."""


class Collector:
    """Gives the counts of all schedulers of this process, when Prometheus asks."""

    def __init__(self) -> None:
        self.sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self.is_registered = False

    def describe(self) -> Iterator[Any]:
        """Nothing: there is nothing to compare at registration."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """The counts."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        task_runs: Counter[tuple[str, str, str]] = Counter()
        flow_runs: Counter[str] = Counter()
        for source in list(self.sources):
            task_runs.update(source.task_runs())
            flow_runs.update(source.flow_runs())
        tasks = CounterMetricFamily(
            "prefect_dask_core_task_runs",
            "Task runs that have ended; each child of a mapped task is one",
            labels=["flow", "task", "state"],
        )
        for labels, count in sorted(task_runs.items()):
            tasks.add_metric(list(labels), count)
        yield tasks
        flows = GaugeMetricFamily(
            "prefect_dask_core_flow_runs",
            "Flow runs that the scheduler has seen, by their present state",
            labels=["state"],
        )
        for state, count in sorted(flow_runs.items()):
            flows.add_metric([state], count)
        yield flows


#: Registered with the library once per process: its route gives all of a process.
_COLLECTOR: Final = Collector()


def register_metrics(source: Source) -> None:
    """Add counts to the metrics of this process, where Prometheus is installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    _COLLECTOR.sources.add(source)
    if not _COLLECTOR.is_registered:
        _COLLECTOR.is_registered = True
        REGISTRY.register(_COLLECTOR)


def forget_metrics(source: Source) -> None:
    """Tell the counts of a scheduler that has closed no more."""
    _COLLECTOR.sources.discard(source)
