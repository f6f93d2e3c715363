"""Writing: one run into the ledger, batch by batch."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.errors import LedgerError, ResumeError
from prefect_dask_core.ledger.columns import Span, encode
from prefect_dask_core.ledger.records import (
    AssetRecord,
    DetailRecord,
    NodeRecord,
    ParameterRecord,
    RunRecord,
)
from prefect_dask_core.ledger.schema import refuse_if_gone, tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_LOGGER: Final = logging.getLogger("prefect_dask_core.ledger")

#: What an attempt shares with its run.
_OF_ATTEMPTS: Final = ("runner", "host", "process")
#: By what an attempt is known as one's own.
_OWN: Final = ("attempt_begin", "host", "process")
#: What counts of the attempts before it.
_BEFORE: Final = ("begin", "end", "seen", "attempt_begin", "seconds_before")
#: State of an attempt that died, once the next one has begun.
LOST: Final = "Lost"
#: Longest text that is kept of a message or a traceback, in characters.
LONGEST: Final = 20_000


@dataclass(slots=True)
class Batch:
    """What is new of a run.

    Parameters
    ----------
    nodes : list of NodeRecord
        Nodes that the ledger does not know yet.
    lengths : dict of int to int
        Numbers of children of nodes that it knows, by node.
    spans : list of Span
        Runs that ended.
    names : sequence of str
        Names of state classes by the codes in `spans`.
    details : list of DetailRecord
        What their states say.
    assets : list of AssetRecord
        What was done to assets.
    """

    nodes: list[NodeRecord] = field(default_factory=list)
    lengths: dict[int, int] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    names: Sequence[str] = ()
    details: list[DetailRecord] = field(default_factory=list)
    assets: list[AssetRecord] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.nodes or self.lengths or self.spans or self.details or self.assets
        )


class RunWriter:
    """Writes one attempt at one run.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the ledger.
    record : RunRecord
        What is known at the begin.

    Notes
    -----
    Once a run has begun, a database that cannot be reached fails nothing: what could
    not be written is kept and written with the next batch.
    """

    def __init__(
        self,
        engine: Engine,
        record: RunRecord,
        parameters: Sequence[ParameterRecord] = (),
    ) -> None:
        self._engine = engine
        self._parameters = parameters
        self._connection: Connection | None = None
        self._todo: list[Batch] = []
        self._written = 0
        #: What is known of the run; may be changed until it was entered.
        self.record = record
        #: Number of the attempt; 0 until it was entered.
        self.attempt = 0
        #: Whether the last attempt to write failed.
        self.is_behind = False

    def begin(self, after: int = 0) -> None:
        """Enter the attempt at once; else the first write does.

        Parameters
        ----------
        after : int
            Attempt that it goes on after, 0 of a new run: of several who would go on
            with a run, one does.

        Raises
        ------
        LedgerError
            If that is not possible.
        ResumeError
            If the run has begun again meanwhile.
        """
        import sqlalchemy as sa

        try:
            connection = self._open()
            with connection.begin():
                attempt = self._enter(connection)
                if attempt != after + 1:
                    raise ResumeError(
                        f"run {self.record.id} was resumed by somebody else at the "
                        f"same time, as attempt {attempt - 1}; resume it when that has "
                        "ended."
                    )
        except ResumeError:
            self._drop_connection()
            raise
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            self._drop_connection()
            raise LedgerError(
                f"run {self.record.id} cannot be entered into the ledger: "
                f"{_cause(error)}"
            ) from error
        self.attempt = attempt

    def write(self, batch: Batch, counts: Mapping[str, int], now: float) -> bool:
        """Write what is new; whether it, and all before it, is in the ledger.

        Parameters
        ----------
        batch : Batch
            What is new; may be empty, which says that the run still lives.
        counts : mapping of str to int
            Task runs by the name of their state, all of the run.
        now : float
            Seconds since the epoch.
        """
        return self._write(batch, {"seen": now, "counts": json.dumps(dict(counts))})

    def end(
        self,
        batch: Batch,
        counts: Mapping[str, int],
        now: float,
        state: str,
        message: str | None,
    ) -> bool:
        """Write the end of the attempt, with what is new; whether that worked.

        There is no later write that could make up for this one. So it is tried again
        where the connection was an old one, which may be what is broken.
        """
        ended = {"state": state, "message": _or_none(message), "end": now}
        told = {"seen": now, "counts": json.dumps(dict(counts)), **ended}
        was_open = self._connection is not None
        done = self._write(batch, told, ended)
        if not done and was_open:
            done = self._write(Batch(), told, ended)
        return done

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(
        self,
        batch: Batch,
        run: Mapping[str, Any],
        attempt: Mapping[str, Any] | None = None,
    ) -> bool:
        import sqlalchemy as sa

        if batch:
            self._todo.append(batch)
        found = tables()
        mine = self.record.id
        try:
            connection = self._open()
            with connection.begin():
                entered = self.attempt or self._enter(connection)
                if self.is_behind:
                    self._forget_written(connection, entered)
                for number, one in enumerate(self._todo, self._written):
                    self._insert(connection, entered, number, one, run["seen"])
                is_news = self._todo or attempt is not None or self.is_behind
                if self.attempt or is_news:  # else its row was made just now
                    update = found.runs.update().where(found.runs.c.id == mine)
                    connection.execute(update, run)
                if attempt is not None:
                    connection.execute(
                        found.attempts.update().where(
                            found.attempts.c.run_id == mine,
                            found.attempts.c.number == entered,
                        ),
                        attempt,
                    )
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            if not self.is_behind:
                _LOGGER.warning(
                    "run %s: the ledger cannot be written (%s); the run goes on, and "
                    "what is missing is written as soon as that works again",
                    mine,
                    _cause(error),
                )
            self.is_behind = True
            self._drop_connection()
            return False
        self.attempt = entered
        self._written += len(self._todo)
        self._todo.clear()
        self.is_behind = False
        return True

    def _forget_written(self, connection: Connection, attempt: int) -> None:
        """Forget batches that are in the ledger after all: only the answer was lost."""
        import sqlalchemy as sa

        batches = tables().batches
        known = connection.execute(
            sa.select(sa.func.max(batches.c.number)).where(
                batches.c.run_id == self.record.id,
                batches.c.attempt == attempt,
            )
        ).scalar()
        done = 0 if known is None else known + 1 - self._written
        if done > 0:
            del self._todo[:done]
            self._written += done

    def _enter(self, connection: Connection) -> int:
        """Write the attempt; its number."""
        import sqlalchemy as sa

        found, record = tables(), self.record
        mine = found.runs.c.id == record.id
        columns = [found.runs.c[key] for key in {"attempt", *_OWN, *_BEFORE}]
        known = (
            connection.execute(sa.select(*columns).where(mine).with_for_update())
            .mappings()
            .first()
        )
        number = 1 if known is None else int(known["attempt"]) + 1
        row = {**_row_of_run(record), "attempt": number}
        is_own = known is not None and all(known[key] == row[key] for key in _OWN)
        if self.is_behind and is_own:
            return number - 1  # only the answer to the first try was lost
        if known is None:
            connection.execute(found.runs.insert(), row)
        else:
            before = RunRecord(
                record.id,
                record.flow,
                record.name,
                record.kind,
                **{key: known[key] for key in _BEFORE},
            )
            row |= {"begin": before.begin, "seconds_before": before.seconds()}
            connection.execute(found.runs.update().where(mine), row)
            connection.execute(
                found.attempts.update().where(
                    found.attempts.c.run_id == record.id,
                    found.attempts.c.number == number - 1,
                    found.attempts.c.end.is_(None),
                ),
                {"end": before.seen, "state": LOST},
            )
            keys = found.parameters.c.run_id == record.id
            connection.execute(found.parameters.delete().where(keys))
        attempt = {key: row[key] for key in ("state", *_OF_ATTEMPTS)}
        own = {"run_id": record.id, "number": number, "begin": row["attempt_begin"]}
        connection.execute(found.attempts.insert(), {**own, **attempt})
        rows = [{"run_id": record.id, **_row_of_parameter(p)} for p in self._parameters]
        if rows:
            connection.execute(found.parameters.insert(), rows)
        return number

    def _insert(
        self,
        connection: Connection,
        attempt: int,
        number: int,
        batch: Batch,
        now: float,
    ) -> None:
        found = tables()
        ours = {"run_id": self.record.id, "attempt": attempt}
        connection.execute(
            found.batches.insert(),
            {
                **ours,
                "number": number,
                "written": now,
                "count": sum(len(span.states) for span in batch.spans),
                "columns": encode(batch.spans, batch.names),
            },
        )
        if batch.nodes:
            rows = [{**ours, **_row_of_node(node)} for node in batch.nodes]
            connection.execute(found.nodes.insert(), rows)
        for node, length in batch.lengths.items():
            connection.execute(
                found.nodes.update().where(
                    found.nodes.c.run_id == self.record.id,
                    found.nodes.c.attempt == attempt,
                    found.nodes.c.number == node,
                ),
                {"length": length},
            )
        for table, rows in (
            (found.details, [_row_of_detail(one) for one in batch.details]),
            (found.assets, [_row_of_asset(one) for one in batch.assets]),
        ):
            if rows:
                place = {**ours, "batch": number}
                connection.execute(
                    table.insert(),
                    [{**place, "number": n, **row} for n, row in enumerate(rows)],
                )

    def _open(self) -> Connection:
        refuse_if_gone(self._engine)
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _cause(error: Exception) -> str:
    """What a database said."""
    return str(getattr(error, "orig", None) or error).strip()


def storable(text: str) -> str:
    """Text that any database takes, shortened in its middle.

    Examples
    --------
    >>> storable("a" + chr(0) + "b") == "a" + chr(92) + "x00b"
    True
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        left = len(text) - 2 * half
        text = f"{text[:half]}\n... ({left} characters left out) ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _or_none(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _row_of_run(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "flow": storable(record.flow),
        "name": storable(record.name),
        "kind": record.kind,
        "version": _or_none(record.version),
        "source": _or_none(record.source),
        "runner": storable(record.runner),
        "state": record.state,
        "message": _or_none(record.message),
        "begin": record.begin,
        "attempt_begin": record.begin,
        "seconds_before": 0.0,
        "end": record.end,
        "seen": record.seen,
        "parent": record.parent,
        "parent_task": record.parent_task,
        "root": record.root,
        "tags": json.dumps(sorted(record.tags)),
        "logs": json.dumps(list(record.logs)),
        "host": record.host,
        "process": record.process,
        "counts": json.dumps(dict(record.counts)),
    }


def _row_of_parameter(parameter: ParameterRecord) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "told": storable(parameter.told),
        "blob": parameter.blob,
    }


def _row_of_node(node: NodeRecord) -> dict[str, Any]:
    return {
        "number": node.number,
        "slug": storable(node.slug),
        "task": storable(node.task),
        "mapped": node.mapped,
        "length": node.length,
        "inputs": json.dumps(
            [(i.key, i.above, i.mapped, i.flattened) for i in node.inputs]
        ),
        "helper": node.helper,
        "made_of": node.made_of,
    }


def _row_of_detail(detail: DetailRecord) -> dict[str, Any]:
    return {
        "node": detail.node,
        "indexes": detail.indexes,
        "count": detail.count,
        "state": detail.state,
        "name": storable(detail.name),
        "message": _or_none(detail.message),
        "error": _or_none(detail.error),
        "text": _or_none(detail.text),
        "traceback": _or_none(detail.traceback),
    }


def _row_of_asset(asset: AssetRecord) -> dict[str, Any]:
    return {
        "asset": asset.key,
        "event": asset.event,
        "run": storable(asset.run),
        "upstream": json.dumps(list(asset.upstream)),
        "by": _or_none(asset.by),
        "metadata": _json_of(asset.metadata),
    }


def _json_of(metadata: Mapping[str, Any]) -> str:
    """What a user said of an asset, as far as it can be written."""
    try:
        return json.dumps(dict(metadata), default=repr)
    except (TypeError, ValueError):  # keys that are no text, or a list in itself
        return json.dumps({str(key): repr(value) for key, value in metadata.items()})
