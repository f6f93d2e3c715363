"""Pages: the four pages of flow runs, for the dashboard of the scheduler.

A page lays out and sends what has changed; what it shows is worked out in `columns`,
`timeline` and `graph`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bokeh.document import Document
from distributed import Scheduler

from prefect_dask_core.monitor import _private
from prefect_dask_core.monitor.pages.failures import FailuresPage
from prefect_dask_core.monitor.pages.flow_runs import FlowRunsPage
from prefect_dask_core.monitor.pages.graph import GraphPage
from prefect_dask_core.monitor.pages.page import Page
from prefect_dask_core.monitor.pages.timeline import TimelinePage

#: Milliseconds between two updates of a page.
UPDATE_EVERY: Final = 500
#: Pages by path, in the order of the navigation.
PAGES: Final[dict[str, type[Page]]] = {
    "/flow-runs": FlowRunsPage,
    "/flow-timeline": TimelinePage,
    "/flow-graph": GraphPage,
    "/flow-failures": FailuresPage,
}


def document_of(path: str, page_class: type[Page]) -> Callable[..., None]:
    """What makes the document of a page, as Dask's own pages are made."""

    def document(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
        page = page_class(scheduler, doc)
        page.update()
        doc.title = f"Dask: {page.title}"
        doc.add_root(page.root())
        doc.template = _private.template("flows.html")
        doc.template_variables.update(extra)
        doc.template_variables["flow_page"] = path.strip("/")
        doc.template_variables["flow_pages"] = [
            {"url": other.strip("/"), "name": PAGES[other].title} for other in PAGES
        ]
        doc.theme = _private.theme()
        doc.add_periodic_callback(page.update, UPDATE_EVERY)

    return document
