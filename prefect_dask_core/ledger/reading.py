"""Reading: the runs in a ledger, for people, commands, reports and resume."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.errors import LedgerError, UnknownRunError
from prefect_dask_core.ledger.columns import Span, decode, indexes_in
from prefect_dask_core.ledger.records import (
    AssetRecord,
    AttemptRecord,
    DetailRecord,
    InputRecord,
    NodeRecord,
    RunRecord,
)
from prefect_dask_core.ledger.schema import is_gone, open_engine, reading, tables
from prefect_dask_core.states import usual_attempts

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, RowMapping

#: Fewest characters of an id that find a run.
SHORTEST: Final = 4
#: Tables that are read as they were at one moment: a run may be going on, and what is
#: told of its nodes must be of nodes that are known.
_TOGETHER: Final = ("nodes", "batches", "details")


class Ledger:
    """Run records in a database.

    Parameters
    ----------
    url : str or path
        Path of an SQLite file, or a URL as SQLAlchemy has them:
        ``"sqlite:///runs.sqlite"``, ``"postgresql://user@host/database"``.
    must_exist : bool
        Whether a file that is not there is a mistake, as for those who read.

    Raises
    ------
    LedgerError
        If it cannot be opened.
    ImportError
        Without SQLAlchemy (extra ``ledger``) or the driver of the database.

    Notes
    -----
    Parameters of runs are unpickled when somebody asks for their values, so read
    only what you trust: pickle runs code. Nothing else in a ledger is pickled.

    Examples
    --------
    >>> import tempfile
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> @task
    ... def invert(x):
    ...     return 1 / x
    >>> with Flow("inverses") as flow:
    ...     inverses = invert.map([1, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(f"{folder}/ledger.sqlite")
    ...     _ = flow.run(task_runner=SequentialTaskRunner(), ledger=ledger)
    ...     (found,) = ledger.runs()
    ...     run = ledger.run(found.id)
    ...     print(run.record.state, run.counts(), run.states("invert"))
    Failed {'Completed': 1, 'Failed': 1} ['Completed', 'Failed']
    """

    def __init__(
        self, url: str | os.PathLike[str], *, must_exist: bool = False
    ) -> None:
        self.url = url
        self.engine: Engine = open_engine(url, must_exist)

    def __repr__(self) -> str:
        return f"Ledger({self.engine.url.render_as_string()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Ledger, (self.url,)

    def runs(
        self,
        *,
        flow: str | None = None,
        state: str | None = None,
        parent: str | None = None,
        limit: int | None = 20,
    ) -> list[RunRecord]:
        """Flow runs, the latest first: the one whose last attempt began last.

        Parameters
        ----------
        flow, state : str, optional
            Name of the flow; name of the state, as ``"Failed"``.
        parent : str, optional
            Id of the flow run around them.
        limit : int, optional
            How many at most; `None` for all.
        """
        import sqlalchemy as sa

        table = tables().runs
        wanted = sa.select(table).order_by(table.c.attempt_begin.desc(), table.c.id)
        for column, value in (("flow", flow), ("state", state), ("parent", parent)):
            if value is not None:
                wanted = wanted.where(table.c[column] == value)
        if limit is not None:
            wanted = wanted.limit(limit)
        with self._reading() as connection:
            return [_run_of(row) for row in connection.execute(wanted).mappings()]

    def run(self, id: str) -> LedgerRun:
        """One run.

        Parameters
        ----------
        id : str
            Its id, or the first characters of it, at least four.

        Raises
        ------
        UnknownRunError
            If no run has that id, or several begin so.
        """
        import sqlalchemy as sa

        table = tables().runs
        start = str(id).replace("-", "").lower()
        if len(start) < SHORTEST:
            raise UnknownRunError(
                f"the id of a run needs at least {SHORTEST} characters, and {id!r} has "
                f"{len(start)}; `dask flow runs` and Ledger.runs() list the runs of "
                f"{self!r}."
            )
        found: list[RunRecord] = []
        if start.isalnum():
            wanted = sa.select(table).where(table.c.id.startswith(start)).limit(2)
            with self._reading() as connection:
                found = [_run_of(row) for row in connection.execute(wanted).mappings()]
        if not found:
            raise UnknownRunError(
                f"{self!r} has no run {id!r}; `dask flow runs` and Ledger.runs() list "
                f"those it has. An id may be shortened to {SHORTEST} characters."
            )
        if len(found) > 1:
            raise UnknownRunError(
                f"{self!r} has several runs whose ids begin with {id!r}, such as "
                f"{found[0].id} and {found[1].id}; give more characters."
            )
        return LedgerRun(self, found[0])

    @property
    def is_gone(self) -> bool:
        """Whether its file was removed."""
        return is_gone(self.engine)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        import sqlalchemy as sa

        try:
            with reading(self.engine) as connection:
                yield connection
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            told = getattr(error, "orig", error)
            raise LedgerError(f"{self!r} cannot be read: {told}") from error


@dataclass(frozen=True, slots=True)
class NodeColumns:
    """What is known of all children of a node, or of a plain node as its only one.

    Parameters
    ----------
    states : list of str
        Name of the state's class per child; ``"Pending"`` where none is known.
    begins, ends : array of float
        Seconds since the epoch; 0 where nothing is known.
    attempts : list of int
        Attempts made; 0 where no body was called, or nothing is known.
    workers : list of str or None
        Address of the worker, where it is known.
    waits : dict of int to sequence of (float, float)
        By index, when each wait for a further attempt began and ended.
    stores, keys : list of str or None
        URL of the store and the key in it, of values that are stored.
    is_mapped : bool
        Whether they are children.
    """

    states: list[str]
    begins: array[float]
    ends: array[float]
    attempts: list[int]
    workers: list[str | None]
    waits: dict[int, Sequence[tuple[float, float]]]
    stores: list[str | None]
    keys: list[str | None]
    is_mapped: bool


class LedgerRun:
    """One run as the ledger has it; read from the database when it is asked for.

    Parameters
    ----------
    ledger : Ledger
        Where it is.
    record : RunRecord
        What is known of the run as a whole.

    Notes
    -----
    A run that was resumed has several attempts. Of each child the latest attempt
    counts that knows it; `nodes` are those of all attempts, by their slugs.
    """

    def __init__(self, ledger: Ledger, record: RunRecord) -> None:
        self._ledger = ledger
        self.record = record

    def __repr__(self) -> str:
        record = self.record
        return f"<LedgerRun {record.id[:8]}: {record.flow!r}, {record.state}>"

    @cached_property
    def attempts(self) -> list[AttemptRecord]:
        """Its attempts, in order."""
        return [
            AttemptRecord(**{k: v for k, v in row.items() if k != "run_id"})
            for row in self._rows("attempts", "number")
        ]

    @cached_property
    def parameters_told(self) -> dict[str, str]:
        """Its parameters for people, by name."""
        return {row["name"]: row["told"] for row in self._rows("parameters", "name")}

    def parameters(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """Values of its parameters by name, as far as they were kept; unpickles.

        Parameters
        ----------
        names : collection of str, optional
            Those that are wanted; all unless given.

        Raises
        ------
        LedgerError
            If one cannot be unpickled here, because its class is not to be found.
        """
        known = {}
        for row in self._rows("parameters", "name"):
            name, blob = row["name"], row["blob"]
            if blob is None or (names is not None and name not in names):
                continue
            try:
                known[name] = pickle.loads(blob)
            except Exception as error:  # of whatever is imported
                raise LedgerError(
                    f"the parameter {name!r} of run {self.record.id}, {row['told']}, "
                    f"cannot be unpickled here: {type(error).__name__}: {error}"
                ) from error
        return known

    @cached_property
    def nodes(self) -> dict[str, NodeRecord]:
        """Its nodes by slug."""
        found: dict[str, NodeRecord] = {}
        for row in self._rows("nodes", "attempt", "number"):
            node = _node_of(row)
            known = found.get(node.slug)
            if node.length is None and known is not None:
                # Not reached again yet; what the earlier attempt had still stands.
                node = replace(node, length=known.length)
            found[node.slug] = node
        return found

    @cached_property
    def spans(self) -> list[tuple[str, Span]]:
        """Slug and span of what ended, attempt by attempt, in the order of the end."""
        return [(slug, span) for _, slug, span in self._numbered]

    @cached_property
    def _numbered(self) -> list[tuple[int, str, Span]]:
        """The spans, each after its attempt."""
        slugs = {
            (row["attempt"], row["number"]): row["slug"]
            for row in self._rows("nodes", "attempt", "number")
        }
        return [
            (row["attempt"], slugs[row["attempt"], span.node], span)
            for row in self._rows("batches", "attempt", "number")
            for span in decode(row["columns"])
        ]

    @cached_property
    def versions(self) -> dict[str, dict[int, NodeRecord]]:
        """What its nodes were in each attempt, by slug."""
        found: dict[str, dict[int, NodeRecord]] = {}
        for row in self._rows("nodes", "attempt", "number"):
            node = _node_of(row)
            found.setdefault(node.slug, {})[row["attempt"]] = node
        return found

    def attempts_of(self, slug: str) -> dict[int, Collection[int] | None]:
        """The last attempt that knows them, of all children of a node.

        Returns
        -------
        dict of int to collection of int or None
            By attempt the indexes of children; `None`: of all of them, or of a plain
            node.
        """
        mine = self._numbered_of.get(slug, [])
        numbers = {number for number, _ in mine}
        if len(numbers) < 2 or mine[-1][1].is_plain:
            return {number: None for number, _ in mine[-1:]}
        last: dict[int, int] = {}
        for number, span in mine:
            start = max(span.start, 0)
            last.update(dict.fromkeys(range(start, start + len(span.states)), number))
        found: dict[int, Collection[int] | None] = {}
        for number in sorted(set(last.values())):
            found[number] = [index for index, n in last.items() if n == number]
        return found

    def columns(self, slug: str) -> NodeColumns:
        """States and times of all children of a node.

        Parameters
        ----------
        slug : str
            Slug of the node, or the name of its task where that has no other node.

        Raises
        ------
        KeyError
            If the run has no such node.
        """
        slug = self._slug_of(slug)
        mine = self._spans_of.get(slug, [])
        length = self.nodes[slug].length
        plain = length is None or bool(mine and mine[-1].is_plain)
        length = 1 if plain or length is None else length
        columns = NodeColumns(
            ["Pending"] * length,
            array("d", bytes(8 * length)),
            array("d", bytes(8 * length)),
            [0] * length,
            [None] * length,
            {},
            [None] * length,
            [None] * length,
            not plain,
        )
        for span in mine:
            start, count = max(span.start, 0), len(span.states)
            part = slice(start, start + count)
            columns.states[part] = list(map(str, span.states))
            columns.begins[part] = span.begins
            columns.ends[part] = span.ends
            columns.attempts[part] = list(map(usual_attempts, columns.states[part]))
            for offset, made in span.attempts.items():
                columns.attempts[start + offset] = made
            columns.workers[part] = [span.worker] * count
            if columns.waits:  # of an earlier attempt
                for index in range(start, start + count):
                    columns.waits.pop(index, None)
            for offset, waits in span.waits.items():
                columns.waits[start + offset] = waits
            columns.keys[part] = _keys_of(span)
            columns.stores[part] = [span.kept and span.kept.place] * count
        return columns

    def _slug_of(self, name: str) -> str:
        if name in self.nodes:
            return name
        found = [slug for slug, node in self.nodes.items() if node.task == name]
        if len(found) == 1:
            return found[0]
        told = f"several nodes of task {name!r}" if found else f"no node {name!r}"
        known = ", ".join(found or list(self.nodes)[:10]) or "none"
        raise KeyError(f"run {self.record.id} has {told}, but: {known}.")

    def states(self, slug: str) -> list[str]:
        """Names of the states of all children of a node; one of a plain node."""
        return self.columns(slug).states

    def counts(self, slug: str | None = None) -> dict[str, int]:
        """Number of task runs by the name of their state: of a node, or of all."""
        if slug is None:
            return dict(self.record.counts)
        found: dict[str, int] = {}
        for state in self.states(slug):
            found[state] = found.get(state, 0) + 1
        return found

    def details(self, *, every_attempt: bool = False) -> list[tuple[str, DetailRecord]]:
        """Slug and detail of what did not simply complete.

        Parameters
        ----------
        every_attempt : bool
            Whether to list also what a later attempt has run again: the history.
        """
        slugs = {}
        last: dict[tuple[str, int], int] = {}
        for row in self._rows("nodes", "attempt", "number"):
            slugs[row["attempt"], row["number"]] = row["slug"]
        if not every_attempt:
            last = self._last_attempts(slugs)
        found = []
        for row in self._rows("details", "attempt", "batch", "number"):
            slug = slugs[row["attempt"], row["node"]]
            detail = DetailRecord(**{k: row[k] for k in DetailRecord.__slots__})
            indexes = indexes_in(detail.indexes) or [0]
            if every_attempt or any(
                last.get((slug, index)) == row["attempt"] for index in indexes
            ):
                found.append((slug, detail))
        return found

    @cached_property
    def details_of(self) -> dict[str, list[DetailRecord]]:
        """What did not simply complete, by slug: worked out once for all nodes."""
        found: dict[str, list[DetailRecord]] = {}
        for slug, detail in self.details():
            found.setdefault(slug, []).append(detail)
        return found

    def failures(self) -> list[tuple[str, DetailRecord]]:
        """Slug and detail of what failed or crashed, as it stands now.

        In the order of the nodes, and of the first child that each is said of.
        """
        bad = ("Failed", "TimedOut", "TriggerFailed", "Crashed")
        place = {slug: number for number, slug in enumerate(self.nodes)}
        found = [pair for pair in self.details() if pair[1].state in bad]
        return sorted(found, key=lambda pair: (place[pair[0]], _first_of(pair[1])))

    @cached_property
    def assets(self) -> list[AssetRecord]:
        """What was done to assets, in the order in which it happened."""
        return [
            AssetRecord(
                key=row["asset"],
                event=row["event"],
                run=row["run"],
                upstream=tuple(json.loads(row["upstream"])),
                by=row["by"],
                metadata=json.loads(row["metadata"]),
            )
            for row in self._rows("assets", "attempt", "batch", "number")
        ]

    @cached_property
    def _spans_of(self) -> dict[str, list[Span]]:
        return {slug: [s for _, s in mine] for slug, mine in self._numbered_of.items()}

    @cached_property
    def _numbered_of(self) -> dict[str, list[tuple[int, Span]]]:
        found: dict[str, list[tuple[int, Span]]] = {}
        for attempt, slug, span in self._numbered:
            known = found.setdefault(slug, [])
            # It had nothing to map over in one attempt, and had in another.
            if known and known[-1][1].is_plain != span.is_plain:
                known.clear()
            known.append((attempt, span))
        return found

    def _last_attempts(
        self, slugs: Mapping[tuple[int, int], str]
    ) -> dict[tuple[str, int], int]:
        """The last attempt that knows a child, for children that any detail is of."""
        wanted = {
            (slugs[row["attempt"], row["node"]], index)
            for row in self._rows("details", "attempt", "batch", "number")
            for index in indexes_in(row["indexes"]) or [0]
        }
        nodes = {slug for slug, _ in wanted}
        found: dict[tuple[str, int], int] = {}
        for row in self._rows("batches", "attempt", "number"):
            for span in decode(row["columns"]):
                slug = slugs[row["attempt"], span.node]
                if slug not in nodes:
                    continue
                start = max(span.start, 0)
                for index in range(start, start + len(span.states)):
                    if (slug, index) in wanted:
                        found[slug, index] = row["attempt"]
        return found

    def _rows(self, name: str, *order: str) -> Sequence[RowMapping]:
        known: dict[str, list[RowMapping]] = self.__dict__.setdefault("_known_rows", {})
        if name not in known:
            together = _TOGETHER if name in _TOGETHER else (name,)
            with self._ledger._reading() as connection:
                known.update({one: self._read(connection, one) for one in together})
        return sorted(known[name], key=lambda row: [row[column] for column in order])

    def _read(self, connection: Connection, name: str) -> list[RowMapping]:
        import sqlalchemy as sa

        table = getattr(tables(), name)
        wanted = sa.select(table).where(table.c.run_id == self.record.id)
        return list(connection.execute(wanted).mappings())


def _first_of(detail: DetailRecord) -> int:
    return min(indexes_in(detail.indexes), default=0)


def _keys_of(span: Span) -> list[str | None]:
    """Keys of the values of a span in their store."""
    if span.kept is None:
        return [None] * len(span.states)
    found: list[str | None] = []
    for offset, key in enumerate(span.kept.keys):
        if key == ".":
            name = "value" if span.is_plain else str(span.start + offset)
            key = span.kept.prefix + name
        found.append(key or None)
    return found


def _run_of(row: RowMapping) -> RunRecord:
    return RunRecord(
        **{
            **row,
            "tags": tuple(json.loads(row["tags"])),
            "logs": tuple(json.loads(row["logs"])),
            "counts": json.loads(row["counts"]),
        }
    )


def _node_of(row: RowMapping) -> NodeRecord:
    return NodeRecord(
        row["number"],
        row["slug"],
        row["task"],
        row["mapped"],
        row["length"],
        tuple(InputRecord(*found) for found in json.loads(row["inputs"])),
        row["helper"],
        row["made_of"],
    )
