"""A browser, and a cluster of its own whose dashboard it looks at."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

_PATH = Path(__file__).parents[2] / "docs" / "browser.py"
_SPEC = importlib.util.spec_from_file_location("browser", _PATH)
chromium = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(chromium)


@pytest.fixture(scope="package")
def watched():
    """Two workers in this process, with a dashboard."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture(scope="package")
def watched_client(watched):
    with Client(watched, set_as_default=False) as made:
        yield made


@pytest.fixture(scope="package")
def window(watched):
    """A headless Chromium; it is gone before the cluster it looks at."""
    reason = chromium.missing()
    if reason:
        pytest.skip(f"the pages are looked at with Chromium, but {reason}")
    with chromium.browser(1_280, 800) as driver:
        yield driver


@pytest.fixture
def see(window, watched):
    """Open a page, and give what a `Reader` reads on it."""
    yield lambda page: Reader(window, watched, page)
    # Bokeh sends nothing more: it would to a cluster that is about to close, too.
    window.get("about:blank")


class Reader:
    """What a person reads on a page."""

    def __init__(self, driver, cluster, page):
        self.driver = driver
        self.base = f"http://localhost:{cluster.scheduler.http_server.port}"
        self.errors()  # those of the page before
        self.requested()
        driver.get(f"{self.base}/{page}")

    def until(self, holds, *, seconds=60):
        """Wait until something holds on the page; gives it."""
        end = time.monotonic() + seconds
        while True:
            found = holds()
            if found:
                return found
            assert time.monotonic() < end, f"not within {seconds} s: {self.errors()}"
            time.sleep(0.1)

    def texts(self):
        """All texts on the page, of Bokeh's shadow roots as well."""
        return self.driver.execute_script(_TEXTS)

    def has(self, *texts):
        """Wait until the page has some texts."""
        return self.until(lambda: all(t in self.texts() for t in texts))

    def rows(self, place):
        """Cells of the rows of the table at a place, as texts."""
        return self.driver.execute_script(_ROWS, place)

    def column(self, source, name):
        """A column of a plot or table, as the browser has it."""
        return self.driver.execute_script(_COLUMN, source, name)

    def labels(self):
        """Labels of the rows of a plot, from the top."""
        return self.driver.execute_script(_LABELS)

    def errors(self):
        """Errors on the console, but for those of other people's pages."""
        return chromium.console_errors(self.driver)

    def requested(self):
        """What the browser has asked for, other than of the scheduler."""
        return [
            url
            for url in chromium.requested(self.driver)
            if not url.startswith((self.base, "data:", "chrome:"))
        ]


_WALK = """
const all = [];
(function walk(node) {
  for (const child of node.querySelectorAll("*")) {
    all.push(child);
    if (child.shadowRoot) walk(child.shadowRoot);
  }
})(document);
"""
_TEXTS = (
    _WALK
    + """
return all.filter(e => !["STYLE", "SCRIPT"].includes(e.tagName))
  .flatMap(e => Array.from(e.childNodes).filter(n => n.nodeType === Node.TEXT_NODE))
  .map(n => n.textContent).join("\\n");
"""
)
_ROWS = (
    _WALK
    + """
const tables = all.filter(e => e.classList.contains("slick-viewport")
  && e.querySelector(".grid-canvas") && e.offsetHeight);
const table = tables[arguments[0]];
if (!table) return [];
return Array.from(table.querySelectorAll(".slick-row"))
  .sort((a, b) => a.offsetTop - b.offsetTop)
  .map(r => Array.from(r.querySelectorAll(".slick-cell")))
  .map(cells => cells.map(c => c.textContent.trim()));
"""
)
_COLUMN = """
if (!window.Bokeh || !Bokeh.documents.length) return null;
const sources = Bokeh.documents[0]._all_models;
for (const model of sources.values()) {
  if (model.type === "ColumnDataSource" && model.name === arguments[0])
    return Array.from(model.data.get ? model.data.get(arguments[1])
      : model.data[arguments[1]]);
}
return null;
"""

_LABELS = """
if (!window.Bokeh || !Bokeh.documents.length) return [];
for (const model of Bokeh.documents[0]._all_models.values())
  if (model.type === "LinearAxis" && model.major_label_overrides.size)
    return Array.from(model.major_label_overrides.entries())
      .sort((a, b) => b[0] - a[0]).map(entry => entry[1]);
return [];
"""
