"""Routes: what the pages show, as JSON, beside them.

``/json/flow-runs.json`` tells of all runs, ``/json/flow-runs/<run id>.json`` of one.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from distributed.http.utils import RequestHandler

from prefect_dask_core.monitor.columns import about_run, about_tasks, texts_of_failures
from prefect_dask_core.monitor.plugin import plugin_of


class _JSON(RequestHandler):
    def answer(self, found: Any) -> None:
        """Send an object."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(found, allow_nan=False))


class FlowRuns(_JSON):
    """All runs, the newest first."""

    def get(self) -> None:
        """Answer a request."""
        plugin = plugin_of(self.server)
        runs = reversed(plugin.runs.values()) if plugin is not None else ()
        now = time.time()
        self.answer({"runs": [about_run(run, now) for run in runs]})


class FlowRunOfId(_JSON):
    """One run, with its tasks and failures."""

    def get(self, run_id: str) -> None:
        """Answer a request."""
        plugin = plugin_of(self.server)
        run = plugin.runs.get(run_id) if plugin is not None else None
        if run is None:
            self.set_status(404)
            self.answer({"error": f"there is no flow run {run_id!r} here"})
            return
        now = time.time()
        self.answer(
            {
                **about_run(run, now),
                "tasks": about_tasks(run, now),
                "failures": texts_of_failures(run),
                "deaths": [death._asdict() for death in sorted(run.deaths)],
            }
        )


routes: Final[list[tuple[str, type[_JSON], dict[str, Any]]]] = [
    (r"json/flow-runs\.json", FlowRuns, {}),
    (r"json/flow-runs/([0-9a-f-]+)\.json", FlowRunOfId, {}),
]
