"""Script: a fully cached mapped flow in Prefect 3, on its own threads.

``python prefect_3_cache.py CHILDREN`` prints how many children per second it found in a
folder that an earlier run has filled. The server is one that it starts for itself, see
`prefect_3`, whose environment it shares.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path


def nothing(number: int) -> int:
    """Body of a child that does nothing."""
    return number


def rate(children: int, log: Path) -> float:
    """Children per second of the second run."""
    from prefect import flow, task
    from prefect.cache_policies import INPUTS

    def body(number: int) -> int:
        with log.open("a") as file:
            file.write("x")
        return nothing(number)

    cached = task(cache_policy=INPUTS, persist_result=True)(body)

    @flow  # type: ignore[untyped-decorator]
    def many() -> list[int]:
        found: list[int] = cached.map(list(range(children))).result()
        return found

    many()
    if log.stat().st_size != children:
        raise RuntimeError("the first run did not run each body once")
    begin = time.perf_counter()
    found = many()
    took = time.perf_counter() - begin
    if found != list(range(children)) or log.stat().st_size != children:
        raise RuntimeError("the second run did not find each value")
    return children / took


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Of the script beside this one: Python finds it there when it runs this one.
        from prefect_3 import settings  # type: ignore[import-not-found]

        os.environ.update(settings(folder))
        os.environ["PREFECT_LOCAL_STORAGE_PATH"] = str(Path(folder) / "storage")
        print(rate(int(sys.argv[1]), Path(folder) / "log"))
