"""Dashboard: puts the pages, the JSON routes and the metrics on a scheduler."""

from __future__ import annotations

import importlib

from distributed import Scheduler

from prefect_dask_core.monitor import _private
from prefect_dask_core.monitor.metrics import register_metrics
from prefect_dask_core.monitor.plugin import NAME, MonitorPlugin, plugin_of


def register(scheduler: Scheduler) -> MonitorPlugin:
    """Collect flow runs on a scheduler and show them, if that was not done before.

    Parameters
    ----------
    scheduler : Scheduler
        The scheduler; without a dashboard it has the JSON routes and the metrics only.
    """
    known = plugin_of(scheduler)
    if known is not None:
        return known
    plugin = MonitorPlugin()
    scheduler.add_plugin(plugin, name=NAME, idempotent=True)
    _private.add_routes(scheduler, "prefect_dask_core.monitor.routes")
    register_metrics(plugin)
    if _private.has_dashboard(scheduler):
        _add_pages(scheduler)
    return plugin


def _add_pages(scheduler: Scheduler) -> None:
    # Loads Bokeh, which a scheduler with a dashboard has loaded already.
    pages = importlib.import_module("prefect_dask_core.monitor.pages")
    documents = {
        path: pages.document_of(path, one) for path, one in pages.PAGES.items()
    }
    menu = [
        {
            "url": path.strip("/"),
            "name": _among_plots(one.title),
            "flow": one.title,
            "place": place,
        }
        for place, (path, one) in enumerate(pages.PAGES.items())
    ]
    _private.add_documents(scheduler, documents, menu)


def _among_plots(title: str) -> str:
    """Name of a page in Dask's menu of plots, which has a graph of its own."""
    return title if title.startswith("Flow") else f"Flow {title.lower()}"
