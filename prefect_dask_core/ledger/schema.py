"""Schema: the tables of the ledger, their version, and how a database gets them."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, MetaData, Table

#: What every table's name begins with: a database may hold others' tables.
PREFIX: Final = "flow_ledger"
#: Number of the lock that whoever makes or changes tables holds in PostgreSQL.
_LOCK: Final = 7_302_115_880
#: Seconds that a writer waits for another one, in SQLite.
_BUSY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables."""

    metadata: MetaData
    version: Table
    runs: Table
    attempts: Table
    parameters: Table
    nodes: Table
    batches: Table
    details: Table
    assets: Table


@functools.cache
def tables() -> Tables:
    """The tables; SQLAlchemy is loaded at the first call."""
    import sqlalchemy as sa

    metadata = sa.MetaData()

    def table(name: str, *columns: Any) -> Table:
        return sa.Table(f"{PREFIX}_{name}" if name else PREFIX, metadata, *columns)

    def key(name: str, kind: Any) -> Any:
        return sa.Column(name, kind, primary_key=True, autoincrement=False)

    def column(
        name: str,
        kind: Any,
        null: bool = False,
        index: bool = False,
        default: str | None = None,
    ) -> Any:
        """A column; one that was added later has a default, for the rows before."""
        return sa.Column(name, kind, nullable=null, index=index, server_default=default)

    run_id = sa.String(32)
    return Tables(
        metadata,
        version=table("", key("version", sa.Integer)),
        runs=table(
            "runs",
            key("id", run_id),
            column("flow", sa.Text, index=True),
            column("name", sa.Text),
            column("kind", sa.Text),
            column("version", sa.Text, null=True),
            column("source", sa.Text, null=True),
            column("runner", sa.Text),
            column("state", sa.Text),
            column("message", sa.Text, null=True),
            column("begin", sa.Double),
            column("end", sa.Double, null=True),
            column("seen", sa.Double),
            column("attempt", sa.Integer),
            column("attempt_begin", sa.Double, index=True, default="0"),
            column("seconds_before", sa.Double, default="0"),
            column("parent", run_id, null=True, index=True),
            column("parent_task", run_id, null=True),
            column("root", run_id, null=True),
            column("tags", sa.Text),
            column("logs", sa.Text),
            column("host", sa.Text),
            column("process", sa.Integer),
            column("counts", sa.Text),
        ),
        attempts=table(
            "attempts",
            key("run_id", run_id),
            key("number", sa.Integer),
            column("begin", sa.Double),
            column("end", sa.Double, null=True),
            column("state", sa.Text),
            column("message", sa.Text, null=True),
            column("runner", sa.Text),
            column("host", sa.Text),
            column("process", sa.Integer),
        ),
        parameters=table(
            "parameters",
            key("run_id", run_id),
            key("name", sa.String(255)),
            column("told", sa.Text),
            column("blob", sa.LargeBinary, null=True),
        ),
        nodes=table(
            "nodes",
            key("run_id", run_id),
            key("attempt", sa.Integer),
            key("number", sa.Integer),
            column("slug", sa.Text),
            column("task", sa.Text),
            column("mapped", sa.Boolean),
            column("length", sa.BigInteger, null=True),
            column("inputs", sa.Text),
            column("helper", sa.Boolean),
            column("made_of", sa.Text, null=True),
        ),
        batches=table(
            "batches",
            key("run_id", run_id),
            key("attempt", sa.Integer),
            key("number", sa.Integer),
            column("written", sa.Double),
            column("count", sa.BigInteger),
            column("columns", sa.LargeBinary),
        ),
        details=table(
            "details",
            key("run_id", run_id),
            key("attempt", sa.Integer),
            key("batch", sa.Integer),
            key("number", sa.Integer),
            column("node", sa.Integer),
            column("indexes", sa.Text),
            column("count", sa.BigInteger),
            column("state", sa.Text),
            column("name", sa.Text),
            column("message", sa.Text, null=True),
            column("error", sa.Text, null=True),
            column("text", sa.Text, null=True),
            column("traceback", sa.Text, null=True),
        ),
        assets=table(
            "assets",
            key("run_id", run_id),
            key("attempt", sa.Integer),
            key("batch", sa.Integer),
            key("number", sa.Integer),
            column("asset", sa.Text),
            column("event", sa.Text),
            column("run", sa.Text),
            column("upstream", sa.Text),
            column("by", sa.Text, null=True),
            column("metadata", sa.Text),
        ),
    )


def _make_tables(connection: Connection) -> None:
    found = tables()
    rest = [t for t in found.metadata.sorted_tables if t is not found.version]
    found.metadata.create_all(connection, rest)


def _add_columns(connection: Connection, table: Table, *names: str) -> bool:
    """Add columns to a table, with their indexes; `False` if they are there.

    The first step makes the tables as they are now.
    """
    import sqlalchemy as sa
    from sqlalchemy.schema import CreateColumn

    known = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
    if known.issuperset(names):
        return False
    for name in names:
        told = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {told}"))
    for index in table.indexes:
        if set(names).intersection(index.columns.keys()):
            index.create(connection, checkfirst=True)
    return True


def _add_made_of(connection: Connection) -> None:
    _add_columns(connection, tables().nodes, "made_of")


def _add_times_of_attempts(connection: Connection) -> None:
    import sqlalchemy as sa

    found = tables()
    runs, attempts = found.runs.name, found.attempts.name
    if not _add_columns(connection, found.runs, "attempt_begin", "seconds_before"):
        return
    first = f"SELECT MIN(a.begin) FROM {attempts} a WHERE a.run_id = {runs}.id"
    for text in (
        # What was written of attempts that died is gone.
        f"UPDATE {runs} SET attempt_begin = begin, begin = ({first})",
        # Runs are listed by their last begin, which is another column now.
        f"DROP INDEX IF EXISTS ix_{runs}_begin",
    ):
        connection.execute(sa.text(text))


#: From one version to the next: the first makes the tables, a later one changes them.
STEPS: Final[tuple[Callable[[Connection], None], ...]] = (
    _make_tables,
    _add_made_of,
    _add_times_of_attempts,
)
VERSION: Final = len(STEPS)


def full_url(given: str | os.PathLike[str]) -> str:
    """URL of a database, of what people write.

    Parameters
    ----------
    given : str or path
        A URL of SQLAlchemy, or the path of an SQLite file.

    Examples
    --------
    >>> full_url("postgresql://me@db/runs")
    'postgresql+psycopg://me@db/runs'
    >>> full_url("/data/ledger.sqlite")
    'sqlite:////data/ledger.sqlite'
    """
    text = os.fspath(given)
    kind, colons, rest = text.partition("://")
    if not colons:
        return f"sqlite:///{os.path.abspath(os.path.expanduser(text))}"
    if kind in ("postgresql", "postgres"):
        return f"postgresql+psycopg://{rest}"
    path = rest[1:]
    if kind == "sqlite" and path and not path.startswith((":memory:", "file:")):
        # Absolute: whoever runs something may go elsewhere meanwhile.
        return f"sqlite:///{os.path.abspath(os.path.expanduser(path))}"
    return text


def open_engine(given: str | os.PathLike[str], must_exist: bool = False) -> Engine:
    """Connect to a database, and bring its tables up to date.

    Parameters
    ----------
    given : str or path
        A URL of SQLAlchemy, or the path of an SQLite file.
    must_exist : bool
        Whether a file that is not there is a mistake; else it is made.

    Raises
    ------
    LedgerError
        If the URL is wrong, the database cannot be reached, or a later version of
        this package has changed its tables.
    ImportError
        Without SQLAlchemy or the driver of the database.
    """
    try:
        import sqlalchemy as sa
    except ImportError as error:
        raise ImportError(
            "the ledger needs SQLAlchemy 2, which comes with the extra: "
            "pip install 'prefect_dask_core[ledger]'."
        ) from error
    try:
        url = sa.make_url(full_url(given))
        if url.get_backend_name() == "sqlite":
            engine = _sqlite(url, must_exist)
        else:
            # A connection is opened for each look and each run: nothing stays behind
            # in whatever process a flow runs.
            engine = sa.create_engine(url, poolclass=sa.NullPool)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the ledger's database needs the driver {error.name!r}; for PostgreSQL: "
            "pip install 'prefect_dask_core[postgresql]'."
        ) from error
    except (sa.exc.ArgumentError, OSError) as error:
        raise LedgerError(
            f"the ledger {os.fspath(given)!r} cannot be used: {error}. Give the path "
            "of an SQLite file, 'sqlite:///...' or 'postgresql://user@host/database'."
        ) from error
    told = url.render_as_string()
    try:
        if _version(engine, told) < VERSION:
            with engine.begin() as connection:
                _upgrade(connection)
    except sa.exc.DBAPIError as error:
        raise LedgerError(
            f"the ledger {told!r} cannot be opened: {error.orig}"
        ) from error
    return engine


def is_gone(engine: Engine) -> bool:
    """Whether the file of a database was removed; `False` of one that is no file."""
    url = engine.url
    if url.get_backend_name() != "sqlite" or url.database is None:
        return False
    return not os.path.exists(url.database)


def refuse_if_gone(engine: Engine) -> None:
    """Raise what a driver does, if the file of a database was removed.

    Whoever has it open would go on writing, and nobody could ever read it.
    """
    if is_gone(engine):
        raise sqlite3.OperationalError(f"the file {engine.url.database} is gone")


def _sqlite(url: URL, must_exist: bool) -> Engine:
    import sqlalchemy as sa

    if not url.database or url.database == ":memory:":
        raise LedgerError(
            "the ledger is a file that outlives this process; a database in memory "
            "cannot be one. Give the path of a file."
        )
    path = Path(url.database).absolute()
    if not path.exists():
        if must_exist:
            raise LedgerError(
                f"there is no ledger at {path}; it is made by the first run that is "
                "recorded there."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_file(path)
    engine = _sqlite_engine(url)

    @sa.event.listens_for(engine, "do_connect")
    def find(*_: Any) -> None:
        # SQLite would make an empty file, which nobody can use.
        refuse_if_gone(engine)

    return engine


def _sqlite_engine(url: URL | str) -> Engine:
    import sqlalchemy as sa

    engine = sa.create_engine(
        url, poolclass=sa.NullPool, connect_args={"timeout": _BUSY}
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # Transactions begin where SQLAlchemy says, and not where the driver guesses.
        connection.isolation_level = None
        # A batch that was committed outlives its process; of a machine that loses
        # power the last ones may be lost.
        connection.execute("PRAGMA synchronous=NORMAL").close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that begins as a reader may be refused half-way; as one, it waits.
        reads = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _make_file(path: Path) -> None:
    """Make a database aside, and put it in its place if there is none by then.

    Its journal is a write-ahead log: a reader then never waits for a writer. Processes
    that switch to it in one file at once wait for each other for ever.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    engine = _sqlite_engine(f"sqlite:///{aside}")
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA journal_mode=WAL").close()
        with engine.begin() as connection:
            _upgrade(connection)
        _remove_remains(path)
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _remove_remains(path: Path) -> None:
    """Remove the journal of a database that is gone: it would count for the next one.

    SQLite leaves it if the file of a database is removed that somebody has open.
    """
    for end in ("-wal", "-shm"):
        remains = path.with_name(path.name + end)
        if remains.exists() and not path.exists():
            remains.unlink(missing_ok=True)


def reading(engine: Engine) -> Connection:
    """A connection that only reads, to be closed; all that it sees is of one moment."""
    options: dict[str, Any] = {"reads_only": True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    return engine.connect().execution_options(**options)


def _version(engine: Engine, told: str) -> int:
    """Version of the tables in a database; 0 without any."""
    import sqlalchemy as sa

    version = tables().version
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(version.name):
            return 0
        known = connection.execute(sa.select(version.c.version)).scalar() or 0
    if known > VERSION:
        raise LedgerError(
            f"the ledger {told!r} was written by a later version of prefect_dask_core "
            f"(its schema has version {known}, this one knows {VERSION}); upgrade the "
            "package, or use another ledger."
        )
    return int(known)


def _upgrade(connection: Connection) -> None:
    """Take the steps that a database lacks; one process at a time takes them."""
    import sqlalchemy as sa

    version = tables().version
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    version.create(connection, checkfirst=True)
    known = connection.execute(sa.select(version.c.version)).scalar() or 0
    for step in STEPS[known:]:
        step(connection)
    connection.execute(version.delete())
    connection.execute(version.insert().values(version=VERSION))
