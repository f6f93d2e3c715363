"""Measure: children per second of a mapped flow, beside those of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import click

from benchmarks.bench import Bench
from benchmarks.caching import cost_with_store
from benchmarks.comparison import Bar, Measurement, in_turns
from benchmarks.mapped import rate_of_flow
from benchmarks.peers.environments import (
    EnvironmentMissingError,
    environment,
    environment_variables,
)
from prefect_dask_core.results import INPUTS

#: Children of our side.
CHILDREN: Final = 2_000
#: Children that find their values, on both sides.
CACHED: Final = 300
#: Seconds that a script may take.
PATIENCE: Final = 1_800


class Peer(NamedTuple):
    """Another package.

    Parameters
    ----------
    title : str
        What it is called in the table.
    script : Path
        Run as ``python SCRIPT CHILDREN``; the last line it prints is a rate. What it
        needs stands in the file of its name and ``.txt``.
    commands : tuple of str
        Pythons that its environment can be made with.
    children : int
        Children of its side, fewer where it would take too long.
    bar : Bar
        Of the ratio of rates.
    """

    title: str
    script: Path
    commands: tuple[str, ...]
    children: int
    bar: Bar


HERE: Final = Path(__file__).parent
#: Wheels of what Prefect 1 needs exist for these.
PYTHONS_OF_ITS_TIME: Final = tuple(
    filter(None, (os.environ.get("PEER_PYTHON"), "python3.9", "python3.8"))
)
PEERS: Final = (
    Peer(
        "Prefect 1.4.1, DaskExecutor",
        HERE / "prefect_1.py",
        PYTHONS_OF_ITS_TIME,
        2_000,
        Bar("ratio", 100, at_least=True),
    ),
    Peer(
        "Prefect 3, prefect-dask",
        HERE / "prefect_3.py",
        (sys.executable,),
        200,
        Bar("ratio", 1_000, at_least=True),
    ),
)


def measure(bench: Bench) -> Iterator[Measurement]:
    """Each peer; one that cannot be had here is told of, and left out."""
    bench.warm_up()
    for peer in PEERS:
        try:
            yield measure_peer(bench, peer)
        except EnvironmentMissingError as error:
            click.echo(f"not measured: {peer.title}: {error}", err=True)
    try:
        yield measure_cached(bench)
    except EnvironmentMissingError as error:
        click.echo(f"not measured: the cache of Prefect 3: {error}", err=True)


def measure_cached(bench: Bench) -> Measurement:
    """Children that find their values in a folder, beside the cache of Prefect 3.

    Raises
    ------
    EnvironmentMissingError
        As `measure_peer` does.
    """
    python = environment("prefect_3", HERE / "prefect_3.txt", (sys.executable,))
    count = bench.choose(CACHED, 50)
    with tempfile.TemporaryDirectory() as folder:
        rates = in_turns(
            partial(_cached_rate, bench, folder, count),
            partial(rate_of_script, python, HERE / "prefect_3_cache.py", count),
            rounds=bench.choose(2, 1),
            warm_up=0,
        )
    what = f"{count:,} children that find their value; peer: Prefect 3, its threads"
    return Measurement(what, "children per s", rates)


def _cached_rate(bench: Bench, folder: str, count: int) -> float:
    options = {"cache_policy": INPUTS}
    return 1e6 / cost_with_store(bench, folder, count, options, filled=True)


def measure_peer(bench: Bench, peer: Peer) -> Measurement:
    """Rates in turns; the peer begins and ends a cluster of its own each time.

    Raises
    ------
    EnvironmentMissingError
        If its environment cannot be made, or its script does not run there.
    """
    requirements = peer.script.with_suffix(".txt")
    python = environment(peer.script.stem, requirements, peer.commands)
    ours = CHILDREN
    theirs = bench.choose(peer.children, 50)
    rates = in_turns(
        partial(rate_of_flow, bench, ours),
        partial(rate_of_script, python, peer.script, theirs),
        rounds=bench.choose(2, 1),
        warm_up=0,
    )
    told = "" if ours == theirs else f" with {theirs:,}"
    what = f"{ours:,} no-op children and a reduce; peer: {peer.title}{told}"
    return Measurement(what, "children per s", rates, peer.bar)


def rate_of_script(python: Path, script: Path, children: int) -> float:
    """Children per second that a script tells."""
    done = subprocess.run(
        [str(python), str(script), str(children)],
        env=environment_variables(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise EnvironmentMissingError(f"{script.name} failed: {said[-1]}")
    return float(done.stdout.split()[-1])
