"""Make the pictures of the dashboard's pages: ``python docs/make_pages.py``.

The census of the standard library (``examples/stdlib_census.py``) runs on a cluster of
two worker processes, and a headless Chromium looks at its pages. Needs selenium,
chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "examples")]

from browser import browser, console_errors, missing, resize  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

from prefect_dask_core import DaskTaskRunner  # noqa: E402
from stdlib_census import census_flow  # noqa: E402

PAGES = ("flow-runs", "flow-timeline", "flow-graph", "flow-failures")
#: Seconds that a page is given to be drawn.
PATIENCE = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Pictures of the pages.")
    parser.add_argument("--widths", type=int, nargs="+", default=[1_280])
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--pages", nargs="+", default=PAGES)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--limit", type=int, help="files of the census")
    options = parser.parse_args()
    reason = missing()
    if reason:
        print(reason)
        return 1
    flow, _ = census_flow()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        runner = DaskTaskRunner(cluster=client)
        flow.run({"limit": 200}, task_runner=runner)
        state = flow.run({"limit": options.limit}, task_runner=runner)
        print(state, state.states.counts())
        address = f"http://localhost:{cluster.scheduler.http_server.port}"
        with browser() as driver:
            for page in options.pages:
                for width in options.widths:
                    resize(driver, width, options.height)
                    driver.get(f"{address}/{page}")
                    time.sleep(PATIENCE)
                    name = page if len(options.widths) == 1 else f"{page}-{width}"
                    driver.save_screenshot(str(options.out / f"{name}.png"))
                    print(f"{name}.png", *console_errors(driver))
    return 0


if __name__ == "__main__":
    sys.exit(main())
