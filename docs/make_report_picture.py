"""Make the picture of a report: run the census, write its report, take a screenshot.

Needs chromium with chromedriver, and selenium::

    python docs/make_report_picture.py docs/report.png
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]

from browser import browser, console_errors, resize  # noqa: E402

from prefect_dask_core import DaskTaskRunner  # noqa: E402
from stdlib_census import census_flow  # noqa: E402

#: Seconds that the page is given to be drawn.
PATIENCE = 2.0


def picture(page: Path, out: Path, width: int = 1200) -> None:
    """Take a screenshot of a whole page."""
    with browser(width, 1000) as driver:
        driver.get(page.resolve().as_uri())
        time.sleep(PATIENCE)
        height = driver.execute_script("return document.body.scrollHeight")
        resize(driver, width, height)
        time.sleep(PATIENCE)
        driver.save_screenshot(str(out))
        errors = console_errors(driver)
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
