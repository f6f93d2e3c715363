"""The private parts of distributed's dashboard that the pages use, all of them here.

`tests/monitor/test_private.py` fails loudly when one of them moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import distributed.http
from distributed import Scheduler
from distributed.http.utils import get_handlers
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from tornado.ioloop import IOLoop

#: Folders of templates: ours, and those of Dask, which ours extend.
_TEMPLATES: Final = (
    Path(__file__).with_name("templates"),
    Path(distributed.http.__file__).with_name("templates"),
)


def has_dashboard(scheduler: Scheduler) -> bool:
    """Whether a scheduler serves Dask's own pages."""
    return _bokeh_application(scheduler) is not None


def _bokeh_application(scheduler: Scheduler) -> Any:
    applications = getattr(scheduler.http_application, "applications", ())
    found = (one for one in applications if hasattr(one, "app_paths"))
    return next(found, None)


def _prefix(scheduler: Scheduler) -> str:
    """What the paths of all pages begin with (``--dashboard-prefix``)."""
    application = _bokeh_application(scheduler)
    return "" if application is None else str(application.prefix)


def template(name: str) -> Any:
    """A template of ours, which extends Dask's."""
    loader = ChoiceLoader([FileSystemLoader(str(folder)) for folder in _TEMPLATES])
    return Environment(loader=loader, autoescape=False).get_template(name)


def theme() -> Any:
    """Theme of Dask's own pages."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME

    return BOKEH_THEME


def add_documents(
    scheduler: Scheduler,
    documents: Mapping[str, Callable[..., None]],
    in_bar: Sequence[str],
    in_menu: Sequence[Mapping[str, str]],
) -> None:
    """Add pages to the dashboard of a scheduler that runs.

    Parameters
    ----------
    scheduler : Scheduler
        The scheduler; it has a dashboard.
    documents : mapping of str to callable
        By path, ``f(scheduler, extra, document)``, as Dask's own.
    in_bar : sequence of str
        Paths that the navigation bar of all pages leads to.
    in_menu : sequence of mapping
        Entries of its menu of plots: ``name`` and ``url``.
    """
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    variables = template_variables(scheduler)
    # Lists that the pages of Dask hold as well: they are read when a page is drawn.
    pages, plots = variables["pages"], variables["plots"]
    pages += [path for path in in_bar if path not in pages]
    known = {plot["url"] for plot in plots}
    plots += [dict(plot) for plot in in_menu if plot["url"] not in known]
    plots.sort(key=lambda plot: plot["name"])
    application = BokehApplication(  # type: ignore[no-untyped-call]
        documents,
        scheduler,
        prefix=_prefix(scheduler),
        template_variables=variables,
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()


def add_routes(scheduler: Scheduler, module: str) -> None:
    """Add the routes of a module, as ``distributed.scheduler.http.routes`` has them."""
    routes = get_handlers(scheduler, [module], prefix=_prefix(scheduler))
    scheduler.http_application.add_handlers(".*$", routes)
