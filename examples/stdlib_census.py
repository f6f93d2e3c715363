"""Census of a Python standard library: a mapped flow with a page as its result.

Every file is read and parsed in a mapped chain. Some files of the library are broken on
purpose and cannot be parsed: their task fails, is retried once and fails again, and the
task below it, whose trigger lets it run after a failure, turns the failure into a row
"could not be parsed". The last task reduces all rows to totals, which become a page::

    python examples/stdlib_census.py --workers 2 --out census.html

The exit code is 0 only if the flow ends as ``Completed``.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from census_page import page_of
from prefect_dask_core import DaskTaskRunner, Flow, Parameter, task, triggers

NOT_THE_LIBRARY = ("site-packages", "dist-packages", "__pycache__")
PARSED = "<census>"  # the file name under which the parser warns


# -- what is counted: plain functions, of use to a plain loop as well ----------------


@dataclass(frozen=True)
class SourceFile:
    """One file, by its place below the source directory: ``json/decoder.py``."""

    root: str
    name: str

    @property
    def package(self) -> str:
        """Top-level package, or module, to which the file belongs."""
        return self.name.split("/")[0].removesuffix(".py")


@dataclass(frozen=True)
class FileCensus:
    """The numbers of one file.

    `lengths` holds the lines of each of its functions, in the order of the file;
    `longest` is the qualified name of the longest one, empty if there is none.
    """

    lines: int
    classes: int
    imports: int
    lengths: tuple[int, ...]
    longest: str


@dataclass(frozen=True)
class Row:
    """What became of one file: its census, or why it could not be parsed."""

    file: SourceFile
    census: FileCensus | None
    error: str = ""


@dataclass(frozen=True)
class Package:
    """The numbers of one top-level package. Files not parsed count as files only."""

    package: str
    files: int
    unparsed: int
    lines: int
    functions: int
    classes: int
    imports: int
    longest_lines: int
    longest: str


@dataclass(frozen=True)
class Totals:
    """All rows reduced: packages by name, functions by length, files not parsed."""

    packages: tuple[Package, ...]
    functions_by_length: dict[int, int]
    unparsed: tuple[tuple[str, str], ...]


def source_files(
    source: str | None = None, limit: int | None = None
) -> list[SourceFile]:
    """List the ``.py`` files below a directory, sorted, without installed packages.

    Parameters
    ----------
    source : str, optional
        The standard library of the running Python unless given.
    limit : int, optional
        At most so many files.
    """
    root = source or sysconfig.get_path("stdlib")
    names = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name not in NOT_THE_LIBRARY]
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        names += [path.relative_to(root).as_posix() for path in paths]
    if not names:
        raise ValueError(f"there is no .py file below {root!r}; give another directory")
    return [SourceFile(root, name) for name in sorted(names)[:limit]]


def read_source(file: SourceFile) -> bytes:
    """Read a file as it is; its encoding is a matter of parsing."""
    return Path(file.root, file.name).read_bytes()


def census_of_bytes(data: bytes) -> FileCensus:
    """Count a file in the encoding it declares, as the interpreter would read it."""
    return census_of_source(importlib.util.decode_source(data))


def census_of_source(text: str) -> FileCensus:
    """Count the source of one file.

    Raises
    ------
    SyntaxError, ValueError, RecursionError, MemoryError
        If it cannot be parsed.

    Examples
    --------
    >>> census_of_source("import os\\n\\nclass A:\\n    def f(self):\\n        pass\\n")
    FileCensus(lines=5, classes=1, imports=1, lengths=(2,), longest='A.f')
    """
    ignore_warnings_of_parsed_files()
    tree = ast.parse(text, filename=PARSED)
    definitions = list(qualified_definitions(tree))
    functions = [
        (node.end_lineno - node.lineno + 1, name)
        for name, node in definitions
        if not isinstance(node, ast.ClassDef)
    ]
    return FileCensus(
        lines=text.count("\n") + (text[-1:] not in ("", "\n")),
        classes=len(definitions) - len(functions),
        imports=sum(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(tree)),
        lengths=tuple(length for length, _ in functions),
        # The first of equally long ones, in the order of the file.
        longest=max(functions, key=lambda function: function[0], default=(0, ""))[1],
    )


def qualified_definitions(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield each class and function with its qualified name, in order."""
    # A stack instead of recursion: deeply nested expressions are real in `test`.
    stack = [("", tree)]
    while stack:
        prefix, node = stack.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            prefix = f"{prefix}{node.name}."
        children = list(ast.iter_child_nodes(node))
        stack += [(prefix, child) for child in reversed(children)]


def ignore_warnings_of_parsed_files() -> None:
    """Keep the parser's warnings on other people's files out of the output.

    A filter for this one file name, which stays. `warnings.catch_warnings` would
    exchange the filters of the whole process while other threads run.
    """
    ignored = ("ignore", None, Warning, re.compile(re.escape(PARSED)), 0)
    if ignored not in warnings.filters:
        warnings.filterwarnings("ignore", module=re.escape(PARSED))


def row_of(file: SourceFile, outcome: FileCensus | BaseException) -> Row:
    """Make the row of a file from its census, or from the error instead of it."""
    if isinstance(outcome, BaseException):
        # A syntax error's own text ends in a made-up file name; the line is enough.
        line = getattr(outcome, "lineno", None)
        text = f"{outcome.msg} (line {line})" if line else str(outcome)
        return Row(file, None, f"{type(outcome).__name__}: {text}")
    return Row(file, outcome)


def totals_of(rows: Iterable[Row]) -> Totals:
    """Reduce the rows, which come in the order of the files."""
    by_package: dict[str, list[Row]] = {}
    lengths: Counter[int] = Counter()
    for row in rows:
        by_package.setdefault(row.file.package, []).append(row)
        lengths.update(row.census.lengths if row.census else ())
    return Totals(
        packages=tuple(package_of(*item) for item in sorted(by_package.items())),
        functions_by_length=dict(sorted(lengths.items())),
        unparsed=tuple(
            (row.file.name, row.error)
            for package_rows in by_package.values()
            for row in package_rows
            if row.census is None
        ),
    )


def package_of(name: str, rows: list[Row]) -> Package:
    """Add up the files of one package."""
    parsed = [(row.file, row.census) for row in rows if row.census]
    longest = [
        (max(census.lengths), f"{file.name}: {census.longest}")
        for file, census in parsed
        if census.lengths
    ]
    longest_lines, longest_name = max(longest, key=lambda one: one[0], default=(0, ""))
    return Package(
        package=name,
        files=len(rows),
        unparsed=len(rows) - len(parsed),
        lines=sum(census.lines for _, census in parsed),
        functions=sum(len(census.lengths) for _, census in parsed),
        classes=sum(census.classes for _, census in parsed),
        imports=sum(census.imports for _, census in parsed),
        longest_lines=longest_lines,
        longest=longest_name,
    )


def plain_census(files: Iterable[SourceFile]) -> Totals:
    """Do the whole census in a plain loop: what the flow must give as well."""
    rows = []
    for file in files:
        try:
            outcome: FileCensus | BaseException = census_of_bytes(read_source(file))
        except Exception as error:
            outcome = error
        rows.append(row_of(file, outcome))
    return totals_of(rows)


# -- the flow -------------------------------------------------------------------------


@task
def list_files(source, limit):
    return source_files(source, limit)


@task
def read(file):
    return read_source(file)


@task(retries=1, retry_delay_seconds=0)
def parse(data):
    # Only the numbers leave the task: a syntax tree is a hundred times its file.
    return census_of_bytes(data)


@task(trigger=triggers.all_finished, skip_on_upstream_skip=False)
def settle(file, census):
    # After a failure above, `census` is the exception.
    return row_of(file, census)


@task
def reduce_rows(rows):
    return totals_of(rows)


def census_flow():
    """Build the flow; gives it with its tasks, in their order."""
    with Flow("stdlib census") as flow:
        source = Parameter("source", default=None)
        limit = Parameter("limit", default=None)
        files = list_files(source, limit)
        data = read.map(files)
        censuses = parse.map(data)
        rows = settle.map(files, censuses)
        totals = reduce_rows(rows)
    return flow, (files, data, censuses, rows, totals)


def summary(state, tasks) -> str:
    """Say how the flow ended and how many runs of each task ended in which state."""
    lines = [state.name]
    for each in tasks:
        children = list(state[each]) or [state[each]]
        counts = Counter(child.name for child in children)
        ends = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
        lines.append(f"  {each.name:<12} {ends}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--address", help="use the scheduler at this address instead")
    parser.add_argument("--source", help="directory, instead of the standard library")
    parser.add_argument("--limit", type=int, help="at most so many files")
    parser.add_argument("--out", type=Path, default=Path("census.html"))
    options = parser.parse_args(arguments)

    if options.address:
        runner = DaskTaskRunner(address=options.address)
    else:
        # One thread each: parsing is pure Python and holds the interpreter's lock.
        workers = {"n_workers": options.workers, "threads_per_worker": 1}
        runner = DaskTaskRunner(cluster_kwargs=workers)
    version = f"{platform.python_implementation()} {platform.python_version()}"
    subject = options.source or f"the standard library of {version}"

    flow, tasks = census_flow()
    parameters = {"source": options.source, "limit": options.limit}
    state = flow.run(parameters=parameters, task_runner=runner)
    print(summary(state, tasks))
    if not state.is_successful():
        return 1
    # Drawn here, not in a task: the workers may be on machines with other disks.
    page = page_of(state[tasks[-1]].result(), f"Census of {subject}")
    options.out.write_text(page, encoding="utf-8")
    print(f"page: {options.out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
