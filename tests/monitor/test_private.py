"""Each private part of Dask's dashboard that the pages use is there, and does its part.

If one of these fails after an update of distributed, `monitor/_private.py` is the only
place to look at.
"""

from __future__ import annotations

import json
import urllib.request

from bokeh.themes import Theme
from distributed import LocalCluster
from distributed.dashboard.scheduler import template_variables

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


def test_a_page_and_a_route_are_added_to_a_dashboard_that_runs():
    def page(scheduler, extra, document):
        document.title = "an added page"

    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        scheduler = cluster.scheduler

        async def add():
            menu = [{"url": "added", "name": "An added page"}]
            _private.add_documents(scheduler, {"/added": page}, ["added"], menu)
            _private.add_routes(scheduler, "prefect_dask_core.monitor.routes")

        cluster.sync(add)
        assert "an added page" in asked(cluster, "added")
        assert ">Added</a>" in asked(cluster, "status")
        assert "An added page" in asked(cluster, "status")
        assert json.loads(asked(cluster, "json/flow-runs.json")) == {"runs": []}
