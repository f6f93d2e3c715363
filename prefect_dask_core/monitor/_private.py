"""The private parts of distributed's dashboard that the pages use, all of them here.

`tests/monitor/test_private.py` fails loudly when one of them moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import distributed.http
from distributed import Scheduler
from distributed.http.utils import get_handlers
from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader
from tornado.ioloop import IOLoop

#: Folders of templates: ours, and those of Dask, which ours extend.
_OURS: Final = Path(__file__).with_name("templates")
_DASKS: Final = Path(distributed.http.__file__).with_name("templates")
#: The template that has the bar of all pages, and what our menu comes before in it: the
#: menu of plots.
BAR, BEFORE = "base.html", '<div class="dropdown">'
#: Our menu, from those entries of the menu of plots that say what they are called here.
#: It looks and behaves as that one, and its name leads to the first page.
_MENU: Final = """
{% set flows = (plots or [])|selectattr("flow", "defined")|sort(attribute="place") %}
{% if flows %}
<div class="dropdown flows">
    <li><a href="{{ flows[0].url }}">Flows</a></li>
    <div class="dropdown-content"><ul>
        {% for page in flows %}
        <li><a href="{{ page.url }}">{{ page.flow }}</a></li>
        {% endfor %}
    </ul></div>
</div>
{% endif %}
"""


class WithMenu(BaseLoader):
    """Templates of Dask, with our menu in the bar.

    Parameters
    ----------
    inner : BaseLoader
        Finds the templates.
    """

    def __init__(self, inner: BaseLoader) -> None:
        self.inner = inner

    def get_source(self, environment: Environment, template: str) -> Any:
        """Source of a template, its file, and what tells whether it has changed."""
        source, *more = self.inner.get_source(environment, template)
        if template == BAR:
            source = source.replace(BEFORE, _MENU + BEFORE, 1)
        return (source, *more)


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


@lru_cache
def _templates() -> Environment:
    dasks = WithMenu(FileSystemLoader(str(_DASKS)))
    loader = ChoiceLoader([FileSystemLoader(str(_OURS)), dasks])
    return Environment(loader=loader, autoescape=False)


def template(name: str) -> Any:
    """A template of ours, which extends Dask's."""
    return _templates().get_template(name)


def add_menu() -> bool:
    """Put our menu into the bar of Dask's pages, in this process.

    Returns
    -------
    bool
        Whether it is there. Schedulers that have none of our pages do not show it.
    """
    from distributed.dashboard.components.scheduler import env

    loader = env.loader
    if isinstance(loader, WithMenu):
        return True
    if loader is None or BEFORE not in loader.get_source(env, BAR)[0]:
        return False
    env.loader = WithMenu(loader)
    return True


def theme() -> Any:
    """Theme of Dask's own pages."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME

    return BOKEH_THEME


def add_documents(
    scheduler: Scheduler,
    documents: Mapping[str, Callable[..., None]],
    menu: Sequence[Mapping[str, Any]],
) -> None:
    """Add pages to the dashboard of a scheduler that runs.

    Parameters
    ----------
    scheduler : Scheduler
        The scheduler; it has a dashboard.
    documents : mapping of str to callable
        By path, ``f(scheduler, extra, document)``, as Dask's own.
    menu : sequence of mapping
        Entries of the menu of plots: ``name`` and ``url``; and for our own menu, the
        name there as ``flow`` and the ``place``. Where our menu cannot be, the bar
        leads to the first.
    """
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    variables = template_variables(scheduler)
    # Lists that the pages of Dask hold as well: they are read when a page is drawn.
    pages, plots = variables["pages"], variables["plots"]
    plots += map(dict, menu)
    plots.sort(key=lambda plot: plot["name"])
    if not add_menu():
        pages.append(menu[0]["url"])
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
