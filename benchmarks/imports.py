"""Imports: what loading the package costs, and what a first run loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, in_turns

#: Seconds of our import, by those of distributed's.
IMPORT_BAR: Final = Bar("ratio", 1.15)
OURS: Final = "import prefect_dask_core"
PEER: Final = "import distributed"
#: What is loaded late is loaded here, so it shows what was only put off.
FIRST_RUN: Final = """
from prefect_dask_core import DaskTaskRunner, Flow, Task
with Flow("first") as flow:
    only = Task(abs)(-1)
assert flow.run(task_runner=DaskTaskRunner(address={address!r}))[only].result() == 1
"""
FIRST_SUBMIT: Final = """
from distributed import Client
with Client({address!r}, set_as_default=False) as client:
    assert client.submit(abs, -1, pure=False).result() == 1
"""
#: The time of the processor, as others on the machine are not what is measured.
TIMED: Final = """
import time
begin = time.process_time()
{code}
print(time.process_time() - begin)
"""


def measure(bench: Bench) -> Iterator[Measurement]:
    """The import alone, and with a first run on the cluster."""
    rounds = bench.choose(21, 2)
    # Both sides find their byte code in a fresh cache, filled while warming up, also
    # where writing it beside the sources is forbidden.
    with tempfile.TemporaryDirectory() as cache:
        pairs = in_turns(
            partial(processor_seconds, OURS, cache),
            partial(processor_seconds, PEER, cache),
            rounds,
        )
        yield Measurement(f"{OURS}; peer: {PEER}", "CPU s", pairs, IMPORT_BAR)
        address = bench.client.scheduler.address
        pairs = in_turns(
            partial(processor_seconds, FIRST_RUN.format(address=address), cache),
            partial(processor_seconds, FIRST_SUBMIT.format(address=address), cache),
            rounds,
        )
        what = "  import, connect and run one task; peer: import, connect, submit"
        yield Measurement(what, "CPU s", pairs)


def processor_seconds(code: str, cache: str) -> float:
    """Seconds of processor time that code takes in a fresh interpreter.

    Parameters
    ----------
    code : str
        What is measured.
    cache : str
        Folder in which byte code is kept.

    Raises
    ------
    RuntimeError
        If the code fails.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(code=code)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a fresh interpreter failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])
