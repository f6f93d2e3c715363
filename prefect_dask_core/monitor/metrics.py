"""Metrics: counts of flow runs and task runs on the scheduler's Prometheus route."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_dask_core.monitor.plugin import MonitorPlugin

#: The collector that is registered with the library, once per process.
_collectors: list[Collector] = []


class Collector:
    """Gives the counts of a plugin, whenever Prometheus asks.

    Parameters
    ----------
    plugin : MonitorPlugin
        Of the scheduler; not kept alive.
    """

    def __init__(self, plugin: MonitorPlugin) -> None:
        self.watch(plugin)

    def watch(self, plugin: MonitorPlugin) -> None:
        """Give the counts of another plugin from now on."""
        self._plugin = weakref.ref(plugin)

    def describe(self) -> Iterator[Any]:
        """Nothing: there is nothing to compare at registration."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """The counts."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        plugin = self._plugin()
        if plugin is None:
            return
        tasks = CounterMetricFamily(
            "prefect_dask_core_task_runs",
            "Task runs that have ended; each child of a mapped task is one",
            labels=["flow", "task", "state"],
        )
        for labels, count in sorted(plugin.task_runs().items()):
            tasks.add_metric(list(labels), count)
        yield tasks
        flows = GaugeMetricFamily(
            "prefect_dask_core_flow_runs",
            "Flow runs that the scheduler has seen, by their present state",
            labels=["state"],
        )
        for state, count in sorted(plugin.flow_runs().items()):
            flows.add_metric([state], count)
        yield flows


def register_metrics(plugin: MonitorPlugin) -> None:
    """Add the counts to the metrics of this process, where Prometheus is installed.

    The route of the scheduler gives all metrics of its process. As Dask's own do, ours
    tell of the newest scheduler if there are several in one process.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    if _collectors:
        _collectors[0].watch(plugin)
        return
    collector = Collector(plugin)
    with contextlib.suppress(ValueError):  # registered by another import of this module
        REGISTRY.register(collector)
        _collectors.append(collector)
