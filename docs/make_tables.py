"""Write the tables of the documentation: of the API, and of the options of tasks.

The options are those of the docstring of `TaskOptions`. Of the tables of the API, each
row of a ``*_rows.csv`` is one option, method or statement of the reference pages: its
name; the generations that document it ("later" for an option that only later ones had,
"own" for one of this package); its kind ("to come" for what is refused with a clear
error until then); and the test that proves it, as ``module::test`` below ``tests``. Run
it without arguments after a change of the rows or of the docstring::

    python docs/make_tables.py
"""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prefect_dask_core import TaskOptions
from prefect_dask_core.spellings import OLDER

HERE = Path(__file__).parent
OPTIONS = HERE / "task_options.md"

#: Name of a table -> what stands above it.
HEADS = {
    "declarative": """\
# The API of the graph generations

What the reference pages of tasks and parameters of 0.2, 0.11 and 0.14 document, what
belongs to it (flows, edges, mapping, triggers, signals, states, results), and the test
that proves it here; "later" is what only later generations had. Written by
`make_tables.py` from `declarative_rows.csv`.

""",
    "functional": """\
# The API of the function generations

What the reference pages of tasks of 3.0 and 3.8 document, parameter by parameter and
example by example, and the test that proves it here. What is *to come* (deferred
runs) is refused with a clear error until then. Written by `make_tables.py` from
`functional_rows.csv`.

""",
}
COLUMNS = """\
| name | generation | kind | test |
| --- | --- | --- | --- |
"""

OPTIONS_HEAD = """\
# Options of tasks

All that `@task(...)`, `Task(...)`, `with_options(...)` and `task_args={...}` take, by
the name of today and by older ones. Written by `make_tables.py` from the docstring of
`TaskOptions`; [graph_flows.md](graph_flows.md) shows them at work.

| option | takes | meaning | older names |
| --- | --- | --- | --- |
"""
#: One parameter of a docstring: its name, what it takes, and the lines about it.
PARAMETER = re.compile(r"^([\w, ]+) : (.*)\n((?:    .*\n)+)", re.MULTILINE)


def make_options_table() -> str:
    """Text of the page of the options of tasks."""
    section = (inspect.getdoc(TaskOptions) or "").partition("Raises\n")[0]
    lines = []
    for together, takes, text in PARAMETER.findall(section):
        for name in together.split(", "):
            older = [old for old, found in OLDER.items() if found.canonical == name]
            meaning = " ".join(text.split()).replace("``", "`")
            names = ", ".join(f"`{old}`" for old in older)
            lines.append(f"| `{name}` | {takes} | {meaning} | {names} |\n")
    return OPTIONS_HEAD + "".join(lines)


def load_rows(table: str) -> list[dict[str, str]]:
    """Rows of a table, by the names of its columns."""
    path = HERE / f"{table}_rows.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def page_of(table: str) -> Path:
    """The page that a table is written to."""
    return HERE / f"{table}_api.md"


def make_table(table: str, rows: Iterable[Mapping[str, str]]) -> str:
    """Text of the page."""
    lines = []
    for row in rows:
        module, _, function = row["test"].partition("::")
        cells = [
            _shown(row["name"]),
            row["generation"],
            row["kind"],
            f"[`{function}`](../tests/{module}.py)",
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEADS[table] + COLUMNS + "".join(lines)


def _shown(name: str) -> str:
    """A name as code, a statement as text."""
    return name.replace("*", "\\*") if ":" in name else f"`{name}`"


if __name__ == "__main__":
    OPTIONS.write_text(make_options_table(), encoding="utf-8")
    for name in HEADS:
        found = load_rows(name)
        page_of(name).write_text(make_table(name, found), encoding="utf-8")
        print(f"{page_of(name)} has {len(found)} rows")
