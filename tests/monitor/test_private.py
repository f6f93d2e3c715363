"""Each private part of Dask's dashboard that the pages use is there, and does its part.

If one of these fails after an update of distributed, `monitor/_private.py` is the only
place to look at.
"""

from __future__ import annotations

import json
import urllib.request

from bokeh.themes import Theme
from distributed import LocalCluster
from distributed.dashboard.components import scheduler as dask_pages
from distributed.dashboard.scheduler import template_variables
from jinja2 import BaseLoader, DictLoader, Environment, FileSystemLoader

from prefect_dask_core.monitor import _private


def asked(cluster, path):
    address = f"http://localhost:{cluster.scheduler.http_server.port}/{path}"
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def test_a_dashboard_is_told_from_none(watched):
    assert _private.has_dashboard(watched.scheduler)
    with LocalCluster(
        n_workers=0,
        processes=False,
        dashboard_address=":0",
        scheduler_kwargs={"dashboard": False},
    ) as bare:
        assert not _private.has_dashboard(bare.scheduler)


def test_the_theme_and_the_template_are_those_of_dask():
    assert isinstance(_private.theme(), Theme)
    drawn = _private.template("flows.html").render(pages=["status"], plots=[])
    assert '<a href="status">Status</a>' in drawn
    assert 'class="flow-pages"' in drawn


def test_the_variables_of_the_navigation_are_lists_that_all_pages_share(watched):
    variables = template_variables(watched.scheduler)
    assert variables is template_variables(watched.scheduler)
    assert "status" in variables["pages"]
    assert {"url", "name"} <= set(variables["plots"][0])


def test_the_bar_of_dask_has_the_place_that_our_menu_comes_before():
    loader = FileSystemLoader(str(_private._DASKS))
    source = loader.get_source(Environment(autoescape=True), _private.BAR)[0]
    assert _private.BEFORE in source
    assert isinstance(dask_pages.env.loader, BaseLoader)


def test_where_the_bar_of_dask_is_another_it_leads_to_the_first_page(monkeypatch):
    monkeypatch.setattr(dask_pages.env, "loader", DictLoader({"base.html": "<nav>"}))
    assert not _private.add_menu()
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        menu = [{"url": "added", "name": "A page", "flow": "Added", "place": 0}]

        async def add():
            _private.add_documents(cluster.scheduler, {}, menu)

        cluster.sync(add)
        assert template_variables(cluster.scheduler)["pages"][-1] == "added"


def test_a_page_and_a_route_are_added_to_a_dashboard_that_runs():
    def page(scheduler, extra, document):
        document.title = "an added page"

    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        scheduler = cluster.scheduler

        async def add():
            menu = [
                {"url": "added", "name": "A page", "flow": "An added one", "place": 0}
            ]
            _private.add_documents(scheduler, {"/added": page}, menu)
            _private.add_routes(scheduler, "prefect_dask_core.monitor.routes")

        cluster.sync(add)
        assert "an added page" in asked(cluster, "added")
        assert '<a href="added">Flows</a>' in asked(cluster, "status")
        assert '<a href="added">An added one</a>' in asked(cluster, "status")
        assert '<a href="added">A page</a>' in asked(cluster, "status")
        assert json.loads(asked(cluster, "json/flow-runs.json")) == {"runs": []}
