"""Page: what the pages of flow runs have in common: the choice of a run, the time."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from bokeh.document import Document
from bokeh.layouts import row
from bokeh.models import CustomJS
from bokeh.models.widgets.inputs import Select
from bokeh.models.widgets.markups import Div
from distributed import Scheduler

from prefect_dask_core.monitor.columns import headline
from prefect_dask_core.monitor.pages.widgets import WIDE, say
from prefect_dask_core.monitor.plugin import MonitorPlugin, flow_of, plugin_of
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.texts import clock_text

#: The choice of a run that follows the newest one.
NEWEST: Final = "newest"


class Page:
    """One page for one reader.

    Parameters
    ----------
    scheduler : Scheduler
        Whose dashboard it is in.
    document : Document
        Of the reader; its request may name a run, ``?run=<id>``.
    """

    title: ClassVar[str]

    def __init__(self, scheduler: Scheduler, document: Document) -> None:
        self._scheduler = scheduler
        asked = _asked_run(document)
        self.choice: Any = Select(value=asked or NEWEST, options=[], width=340)
        self.choice.js_on_change("value", _remember())
        self.choice.on_change("value", self._chosen)
        self.headline = Div(
            text="", styles={"font-size": "15px", "padding-top": "6px"}, **WIDE
        )
        self._shown: Any = None
        self._time: Callable[[], float] = time.time

    def _chosen(self, attr: str, old: Any, new: Any) -> None:
        self.update()

    @property
    def plugin(self) -> MonitorPlugin | None:
        """What knows the runs."""
        return plugin_of(self._scheduler)

    def run(self) -> Run | None:
        """The run that the reader has chosen, or the newest one."""
        plugin = self.plugin
        if plugin is None:
            return None
        if self.choice.value == NEWEST:
            return plugin.newest()
        return plugin.runs.get(str(self.choice.value))

    def top(self) -> Any:
        """The line above: which run, and how it is."""
        return row(self.choice, self.headline, **WIDE)

    def update(self) -> None:
        """Show what is known now, if it is new."""
        plugin, now = self.plugin, self._time()
        if plugin is None:
            return
        run = self.run()
        goes_on = run is not None and run.ended is None
        # What goes on changes with time alone: its duration, its rate.
        state = (
            plugin.version,
            self.choice.value,
            int(2 * now) if goes_on else 0,
        )
        if state == self._shown:
            return
        self._shown = state
        asked = "" if self.choice.value == NEWEST else str(self.choice.value)
        options = [
            (NEWEST, "newest run"),
            *map(_option, reversed(plugin.runs.values())),
        ]
        if asked and run is None:  # it was forgotten, and is still the choice
            options.append((asked, f"{asked[:8]} (not known here)"))
        if self.choice.options != options:
            self.choice.options = options
        say(self.headline, html.escape(headline(run, now, asked)))
        self.draw(run, now)

    def draw(self, run: Run | None, now: float) -> None:
        """Show a run."""
        raise NotImplementedError

    def root(self) -> Any:
        """The layout."""
        raise NotImplementedError


def _option(run: Run) -> tuple[str, str]:
    when = "" if run.begun is None else f" · {clock_text(run.begun.begin)}"
    return run.id, f"{flow_of(run)} · {run.id[:8]}{when}"


def _asked_run(document: Document) -> str:
    # What Bokeh's server puts there has a request, which its base class does not know.
    request = getattr(document.session_context, "request", None)
    found = request.arguments.get("run", [b""]) if request is not None else [b""]
    return bytes(found[0]).decode("ascii", "ignore")[:64]


def _remember() -> CustomJS:
    """Lets the address tell the run that was chosen, and the links to other pages."""
    return CustomJS(
        code="""
        const url = new URL(window.location);
        const chosen = cb_obj.value;
        if (chosen === "newest") url.searchParams.delete("run");
        else url.searchParams.set("run", chosen);
        window.history.replaceState(null, "", url);
        window.dispatchEvent(new Event("flow-run-chosen"));
        """
    )
