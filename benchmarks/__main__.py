"""The command: ``python -m benchmarks [name ...]``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import (
    caching,
    imports,
    mapped,
    overhead,
    recording,
    retries,
    scale,
    static_graphs,
    submits,
    watching,
)
from benchmarks.bench import Bench, open_bench
from benchmarks.comparison import Measurement
from benchmarks.peers import measure as peers
from benchmarks.table import BEGIN, HEADINGS, cells, inserted, markdown, text_row

Topic = Callable[[Bench], Iterator[Measurement]]

TOPICS: Final[dict[str, Topic]] = {
    "static_graphs": static_graphs.measure,
    "mapped": mapped.measure,
    "submits": submits.measure,
    "scale": scale.measure,
    "retries": retries.measure,
    "recording": recording.measure,
    "overhead": overhead.measure,
    "imports": imports.measure,
    "caching": caching.measure,
    "watching": watching.measure,
}
#: Measured only if named: they install other packages first.
ON_REQUEST: Final[dict[str, Topic]] = {"peers": peers.measure}
EVERY: Final = {**TOPICS, **ON_REQUEST}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(EVERY)), metavar="[NAME]...")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all.")
@click.option(
    "--markdown",
    "page",
    type=click.Path(path_type=Path),
    help=f"Write a table; into a page that has the line {BEGIN}, below it.",
)
@click.option("--quick", is_flag=True, help="Small sizes; bars count as goals only.")
def main(
    names: Sequence[str], json_file: Path | None, page: Path | None, quick: bool
) -> None:
    """Measure what flows cost on two worker processes, beside the same in raw Dask.

    NAME is static_graphs, mapped, submits, scale, retries, recording, overhead,
    imports, caching or watching; all of them unless given. With NAME peers, Prefect
    1.4.1 and Prefect 3 are installed below the folder .peers and measured. The exit
    code is 1 if a bar is missed.
    """
    click.echo(text_row(HEADINGS))
    lines = []
    for line in measurements(names or list(TOPICS), quick):
        click.echo(text_row(cells(line)))
        lines.append(line)
    if json_file is not None:
        record = {**surroundings(), "quick": quick}
        record["measurements"] = [line.as_record() for line in lines]
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if page is not None:
        write_table(page, markdown(lines, caption()))
    sys.exit(any(line.is_missed for line in lines))


def measurements(names: Sequence[str], quick: bool) -> Iterator[Measurement]:
    """Lines of the table, as they come."""
    with open_bench(quick) as bench:
        for name in names:
            for line in EVERY[name](bench):
                # Small sizes say nothing about the costs of large ones.
                yield line.without_obligation() if quick else line


def write_table(page: Path, table: str) -> None:
    """Write a table, between the markers if the page has them."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    new = inserted(old, table) if BEGIN in old else f"{table}\n"
    page.write_text(new, encoding="utf-8")


def surroundings() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = ("prefect_dask_core", "dask", "distributed")
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        **{name: version_of(name) for name in packages},
    }


def version_of(package: str) -> str:
    """Version of a package, also of one that is run from its sources."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from sources"


def caption() -> str:
    """What the numbers depend on, in a sentence."""
    found = surroundings()
    return (
        f"Python {found['python']}, dask {found['dask']}, distributed "
        f"{found['distributed']}, {found['cpus']} CPUs; two worker processes of one "
        "thread each unless a line says otherwise. Medians of measurements in turns; "
        "the ratio is the median of the ratios of neighbours."
    )


if __name__ == "__main__":
    main()
