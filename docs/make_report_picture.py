"""Make the picture of a report: run the census, write its report, take a screenshot.

Needs chromium with chromedriver, and selenium::

    python docs/make_report_picture.py docs/report.png
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from prefect_dask_core import DaskTaskRunner
from stdlib_census import census_flow

#: Without network and without a window; a browser of its own each time.
SWITCHES = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


def browser(folder: str, width: int, height: int) -> webdriver.Chrome:
    """A headless browser whose profile is in a folder."""
    options = Options()
    for switch in SWITCHES:
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={folder}")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = shutil.which("chromedriver")  # else selenium looks for one on the network
    if driver is None:
        raise RuntimeError("chromedriver is not installed")
    return webdriver.Chrome(options, Service(driver))


def picture(page: Path, out: Path, width: int = 1200) -> None:
    """Take a screenshot of a whole page."""
    with tempfile.TemporaryDirectory() as folder:
        driver = browser(folder, width, 1000)
        try:
            driver.get(page.resolve().as_uri())
            driver.implicitly_wait(10)
            height = driver.execute_script("return document.body.scrollHeight")
            driver.set_window_size(width, height + 100)
            driver.execute_async_script("setTimeout(arguments[0], 1000)")
            driver.save_screenshot(str(out))
            errors = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
        finally:
            driver.quit()
    if errors:
        raise RuntimeError(f"the page has errors: {errors}")


def main() -> None:
    """Run the census and draw its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", type=Path, help="draw this page instead")
    parser.add_argument("--limit", type=int, default=None, help="at most so many files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = options.page
        if page is None:
            page = Path(folder, "report.html")
            flow, _ = census_flow()
            workers = {"n_workers": 2, "threads_per_worker": 1}
            runner = DaskTaskRunner(cluster_kwargs=workers)
            state = flow.run(limit=options.limit, task_runner=runner)
            state.report(page)
        picture(page, options.out)


if __name__ == "__main__":
    main()
