"""The ledger on SQLite and on PostgreSQL: what is written, and what is read again."""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
from array import array
from dataclasses import replace

import pytest
import sqlalchemy as sa

from prefect_dask_core.errors import LedgerError, ResumeError, UnknownRunError
from prefect_dask_core.ledger import (
    PLAIN,
    AssetRecord,
    Batch,
    DetailRecord,
    InputRecord,
    Ledger,
    NodeRecord,
    ParameterRecord,
    RunRecord,
    RunWriter,
    Span,
)
from prefect_dask_core.ledger import schema as ledger_schema
from prefect_dask_core.ledger.schema import full_url, tables

NAMES = ("Completed", "Failed")


def record(id="a" * 32, **more):
    return RunRecord(id=id, flow="etl", name="first", kind="graph", begin=5.0, **more)


def span(node, start, *codes, attempts=(), worker=None):
    times = array("d", [float(n) for n in range(len(codes))])
    return Span(node, start, bytes(codes), times, times, dict(attempts), worker)


def written(ledger, *batches, parameters=(), state="Completed", **more):
    """Write a run, and read it."""
    writer = RunWriter(ledger.engine, record(**more), parameters)
    for batch in batches:
        assert writer.write(batch, {}, 6.0)
    assert writer.end(Batch(), {"Completed": 2}, 7.0, state, "over")
    writer.close()
    return ledger.run(record(**more).id)


LOAD = NodeRecord(
    0,
    "load",
    "load",
    False,
    None,
)
SQUARE = NodeRecord(1, "square", "square", True, 4, (InputRecord("x", "load", True),))


def test_a_run_is_read_as_it_was_written(ledger_url):
    ledger = Ledger(ledger_url)
    one = Batch([LOAD, SQUARE], {}, [span(0, PLAIN, 0, worker="tcp://a:1")], NAMES)
    two = Batch(spans=[span(1, 2, 1, 0, attempts=[(0, 3)])], names=NAMES)
    detail = DetailRecord(1, "2", 1, "Failed", "Failed", "no", "ValueError", "no", "tb")
    asset = AssetRecord("s3://b/x", "succeeded", "load", ("s3://b/y",), "dbt", {"n": 1})
    two.details.append(detail)
    two.assets.append(asset)
    more = {"tags": ("a", "b"), "logs": ("/x.log",), "parent": "b" * 32}
    parameters = [
        ParameterRecord("n", "7", pickle.dumps(7)),
        ParameterRecord("password", "(not kept)"),
    ]

    run = written(ledger, one, two, parameters=parameters, **more)

    assert (run.record.state, run.record.message, run.record.end) == (
        "Completed",
        "over",
        7.0,
    )
    assert (run.record.tags, run.record.logs) == (("a", "b"), ("/x.log",))
    assert run.record.parent == "b" * 32
    assert run.counts() == {"Completed": 2}
    assert list(run.nodes.values()) == [LOAD, SQUARE]
    assert run.states("load") == ["Completed"]
    assert run.states("square") == ["Pending", "Pending", "Failed", "Completed"]
    assert run.counts("square") == {"Pending": 2, "Failed": 1, "Completed": 1}
    columns = run.columns("square")
    assert (columns.attempts, list(columns.ends)) == ([0, 0, 3, 1], [0, 0, 0, 1])
    assert run.columns("load").workers == ["tcp://a:1"]
    assert run.failures() == [("square", detail)]
    assert run.assets == [asset]
    assert run.parameters() == {"n": 7}
    assert run.parameters_told == {"n": "7", "password": "(not kept)"}


def test_what_is_read_of_a_run_that_goes_on_is_of_one_moment(ledger_url):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record())
    unknown = NodeRecord(0, "square", "square", True)
    writer.write(Batch([unknown]), {}, 6.0)
    run = ledger.run(record().id)
    assert list(run.nodes) == ["square"]
    later = Batch([replace(LOAD, number=1)], {0: 3}, [span(0, 1, 0, 1)], NAMES)
    later.spans.append(span(1, PLAIN, 1))
    later.details.append(DetailRecord(1, "", 1, "Failed", "Failed"))
    writer.write(later, {}, 7.0)
    assert (run.spans, run.details(), run.states("square")) == ([], [], ["Pending"])
    run = ledger.run(record().id)
    assert run.states("square") == ["Pending", "Completed", "Failed"]
    assert [slug for slug, _ in run.details()] == ["load"]
    writer.close()


def test_a_length_that_is_told_later_is_known(ledger_url):
    ledger = Ledger(ledger_url)
    unknown = NodeRecord(0, "square", "square", True)

    run = written(ledger, Batch([unknown]), Batch(lengths={0: 3}))

    assert run.nodes["square"].length == 3
    assert run.states("square") == ["Pending"] * 3


def test_a_later_attempt_counts_where_it_knows_a_child(ledger_url):
    ledger = Ledger(ledger_url)
    failed = DetailRecord(1, "0-1", 2, "Failed", "Failed", "no")
    first = Batch([LOAD, SQUARE], {}, [span(1, 0, 1, 1, 0)], NAMES, [failed])
    # The numbers of nodes are those of an attempt: here they have changed places.
    there = NodeRecord(0, "square", "square", True)
    second = Batch([there], {}, [span(0, 1, 0)], NAMES)

    written(ledger, first, state="Failed")
    run = written(ledger, second)

    assert [attempt.state for attempt in run.attempts] == ["Failed", "Completed"]
    assert run.record.attempt == 2
    assert run.nodes["square"].length == 4
    assert run.states("square") == ["Failed", "Completed", "Completed", "Pending"]
    assert run.failures() == [("square", failed)]

    written(ledger, Batch([there], {}, [span(0, 0, 0)], NAMES))
    run = ledger.run(record().id)
    assert run.failures() == []
    assert run.details(every_attempt=True) == [("square", failed)]


def test_a_node_that_had_nothing_to_map_over_may_have_in_a_later_attempt(ledger_url):
    ledger = Ledger(ledger_url)
    bare = NodeRecord(0, "square", "square", True)
    written(ledger, Batch([bare], {}, [span(0, PLAIN, 1)], NAMES))

    assert ledger.run("aaaa").states("square") == ["Failed"]
    run = written(ledger, Batch([bare], {0: 2}, [span(0, 1, 0)], NAMES))
    assert run.states("square") == ["Pending", "Completed"]


def test_runs_are_listed_the_latest_first(ledger_url):
    ledger = Ledger(ledger_url)
    for number in range(3):
        begun = RunRecord(f"{number}" * 32, "etl", "", "graph", begin=float(number))
        RunWriter(ledger.engine, begun).begin()
    other = RunRecord("b" * 32, "other", "", "function", begin=9.0, parent="0" * 32)
    RunWriter(ledger.engine, other).begin()

    assert [run.id[0] for run in ledger.runs()] == ["b", "2", "1", "0"]
    assert [run.id[0] for run in ledger.runs(flow="etl", limit=2)] == ["2", "1"]
    assert [run.id[0] for run in ledger.runs(parent="0" * 32)] == ["b"]
    assert ledger.runs(state="Failed") == []
    assert ledger.run("2222").record.state == "Running"


def test_a_run_is_found_by_the_begin_of_its_id(ledger_url):
    ledger = Ledger(ledger_url)
    for id in ("abcd" + "0" * 28, "abcd" + "1" * 28):
        RunWriter(ledger.engine, record(id)).begin()

    assert ledger.run("abcd1").record.id == "abcd" + "1" * 28
    assert ledger.run("abcd1111-1111-1111-1111-111111111111").record.flow == "etl"
    with pytest.raises(UnknownRunError, match="several runs whose ids begin"):
        ledger.run("abcd")
    for short in ("abc", "a-b-c", ""):
        with pytest.raises(UnknownRunError, match="needs at least 4 characters"):
            ledger.run(short)
    for unknown in ("ffff", "%%%%", "abcd" + "0" * 29):
        with pytest.raises(UnknownRunError, match="has no run"):
            ledger.run(unknown)


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800 alone", "ü" * 50_000, "'; DROP TABLE x; --"]
)
def test_any_text_can_be_written(ledger_url, text):
    ledger = Ledger(ledger_url)
    detail = DetailRecord(0, "", 1, "Failed", "Failed", text, "E", text, text)

    run = written(ledger, Batch([LOAD], {}, [span(0, PLAIN, 1)], NAMES, [detail]))

    ((_, found),) = run.failures()
    assert found.message
    assert found.message[0] == text[0].replace("\ud800", "\\")
    assert len(found.message) < 21_000


def test_a_ledger_of_a_later_version_is_not_touched(ledger_url):
    ledger = Ledger(ledger_url)
    with ledger.engine.begin() as connection:
        connection.execute(tables().version.update().values(version=99))

    with pytest.raises(LedgerError, match="later version of prefect_dask_core"):
        Ledger(ledger_url)


def test_a_ledger_of_an_earlier_version_is_brought_up_to_date(ledger_url, monkeypatch):
    Ledger(ledger_url)

    def add_column(connection):
        name = tables().runs.name
        connection.execute(sa.text(f"ALTER TABLE {name} ADD COLUMN fresh TEXT"))

    monkeypatch.setattr(ledger_schema, "STEPS", (*ledger_schema.STEPS, add_column))
    monkeypatch.setattr(ledger_schema, "VERSION", ledger_schema.VERSION + 1)
    for _ in range(2):  # the second finds nothing to do
        ledger = Ledger(ledger_url)

    columns = sa.inspect(ledger.engine).get_columns(tables().runs.name)
    assert "fresh" in [column["name"] for column in columns]
    ledger.engine.dispose()


def schema_of(ledger):
    """Columns and indexes of all tables, by table and name."""
    told = sa.inspect(ledger.engine)
    return {
        name: (
            {
                column["name"]: (
                    str(column["type"]),
                    column["nullable"],
                    column["default"],
                )
                for column in told.get_columns(name)
            },
            {
                index["name"]: (index["column_names"], bool(index["unique"]))
                for index in told.get_indexes(name)
            },
        )
        for name in told.get_table_names()
    }


def test_a_ledger_of_the_first_version_is_made_as_a_fresh_one(ledger_url):
    ledger = Ledger(ledger_url)
    fresh = schema_of(ledger)
    runs, nodes = tables().runs.name, tables().nodes.name
    assert f"ix_{runs}_attempt_begin" in fresh[runs][1]
    with ledger.engine.begin() as connection:
        for text in (
            f"DROP INDEX ix_{runs}_attempt_begin",
            f"ALTER TABLE {runs} DROP COLUMN attempt_begin",
            f"ALTER TABLE {runs} DROP COLUMN seconds_before",
            f"CREATE INDEX ix_{runs}_begin ON {runs} (begin)",
            f"ALTER TABLE {nodes} DROP COLUMN made_of",
            f"UPDATE {tables().version.name} SET version = 1",
        ):
            connection.execute(sa.text(text))
    ledger.engine.dispose()

    ledger = Ledger(ledger_url)
    assert schema_of(ledger) == fresh
    ledger.engine.dispose()


def test_a_ledger_that_had_the_last_begin_only_learns_the_first(
    ledger_url, monkeypatch
):
    ledger = Ledger(ledger_url)
    for begin in (5.0, 50.0):
        again = replace(record(), begin=begin, seen=begin)
        writer = RunWriter(ledger.engine, again)
        assert writer.end(Batch(), {}, begin + 2.0, "Completed", None)
        writer.close()
    (now,) = ledger.runs()
    fresh = schema_of(ledger)
    runs = tables().runs.name
    with ledger.engine.begin() as connection:
        # As it was written before: one begin, which was the last.
        for text in (
            f"UPDATE {runs} SET begin = attempt_begin",
            f"DROP INDEX IF EXISTS ix_{runs}_attempt_begin",
            f"ALTER TABLE {runs} DROP COLUMN attempt_begin",
            f"ALTER TABLE {runs} DROP COLUMN seconds_before",
            f"CREATE INDEX ix_{runs}_begin ON {runs} (begin)",
            f"UPDATE {tables().version.name} SET version = 2",
        ):
            connection.execute(sa.text(text))
    ledger.engine.dispose()

    ledger = Ledger(ledger_url)
    (brought,) = ledger.runs()
    assert schema_of(ledger) == fresh
    ledger.engine.dispose()
    assert (now.begin, now.attempt_begin, now.seconds()) == (5.0, 50.0, 4.0)
    assert replace(brought, seconds_before=2.0) == now


def _open_at_once(url, barrier):
    barrier.wait(60)
    ledger = Ledger(url)
    RunWriter(ledger.engine, record(f"{multiprocessing.current_process().pid:032x}"))


@pytest.mark.slow
def test_several_processes_may_make_one_ledger_at_once(ledger_url):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    made = [
        context.Process(target=_open_at_once, args=(ledger_url, barrier))
        for _ in range(4)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join(120)

    assert [process.exitcode for process in made] == [0] * 4
    assert Ledger(ledger_url).runs() == []


def test_what_could_not_be_written_is_written_later(ledger_url, caplog):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record())
    writer.begin()
    hidden = tables().nodes.name
    rename = "ALTER TABLE {} RENAME TO {}"
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(rename.format(hidden, "elsewhere")))

    assert not writer.write(Batch([LOAD]), {}, 6.0)
    assert not writer.write(Batch([SQUARE]), {}, 6.0)
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(rename.format("elsewhere", hidden)))
    assert writer.end(Batch(), {}, 7.0, "Completed", None)
    writer.close()

    assert list(ledger.run(record().id).nodes) == ["load", "square"]
    told = [r for r in caplog.records if "cannot be written" in r.message]
    assert len(told) == 1


def test_a_batch_whose_answer_was_lost_is_not_written_twice(ledger_url):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record())
    writer.begin()
    writer.write(Batch([LOAD]), {}, 6.0)
    # As if the connection had broken between the commit and its answer.
    writer._written, writer._todo, writer.is_behind = 0, [Batch([LOAD])], True

    assert writer.write(Batch([SQUARE]), {}, 6.0)
    writer.close()

    assert list(ledger.run(record().id).nodes) == ["load", "square"]


def test_an_attempt_whose_answer_was_lost_is_not_entered_twice(ledger_url):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record())
    assert writer.write(Batch([LOAD]), {}, 6.0)
    # As if the connection had broken between the first commit and its answer.
    writer.attempt, writer._written = 0, 0
    writer._todo, writer.is_behind = [Batch([LOAD])], True

    assert writer.write(Batch([SQUARE]), {}, 7.0)
    writer.close()

    run = ledger.run(record().id)
    assert list(run.nodes) == ["load", "square"]
    assert [attempt.number for attempt in run.attempts] == [1]


def break_once(ledger, word):
    """Let the connection of the next statement with a word break, once."""
    broken = []

    @sa.event.listens_for(ledger.engine, "before_cursor_execute")
    def break_it(connection, cursor, statement, *rest):
        if word in statement and not broken:
            broken.append(statement)
            raise sa.exc.OperationalError(statement, {}, OSError("the line is dead"))

    return broken


def test_the_end_of_a_run_is_written_though_the_connection_is_broken(ledger_url):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record())
    writer.begin()
    broken = break_once(ledger, f"UPDATE {tables().attempts.name}")

    assert writer.end(Batch([LOAD]), {"Completed": 1}, 7.0, "Completed", None)
    writer.close()

    assert broken
    run = ledger.run(record().id)
    assert (run.record.state, list(run.nodes)) == ("Completed", ["load"])


def test_a_run_tells_that_it_lives_also_when_it_is_entered_late(ledger_url):
    ledger = Ledger(ledger_url)
    writer = RunWriter(ledger.engine, record(seen=5.0))
    broken = break_once(ledger, f"INSERT INTO {tables().attempts.name}")

    assert not writer.write(Batch(), {}, 5.0)
    assert broken
    for now in (62.0, 67.0):
        assert writer.write(Batch(), {}, now)
        assert ledger.run(record().id).record.seen == now
    writer.close()


def test_of_several_who_go_on_with_a_run_one_does(ledger_url):
    ledger = Ledger(ledger_url)
    run = written(ledger, Batch([LOAD]))
    assert run.record.attempt == 1
    first, second = (RunWriter(ledger.engine, record()) for _ in range(2))
    first.begin(after=1)
    with pytest.raises(ResumeError, match="by somebody else at the same time, as at"):
        second.begin(after=1)
    assert [attempt.number for attempt in ledger.run(run.record.id).attempts] == [1, 2]
    first.close()


def test_a_file_that_is_removed_is_told_and_not_made_again(tmp_path, caplog):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    writer = RunWriter(ledger.engine, record())
    assert writer.write(Batch([LOAD]), {}, 6.0)
    path.unlink()
    assert not writer.write(Batch([SQUARE]), {}, 7.0)
    assert f"the file {path} is gone" in caplog.text
    assert not writer.end(Batch(), {}, 8.0, "Completed", None)
    writer.close()
    with pytest.raises(LedgerError, match="is gone"):
        ledger.runs()
    with pytest.raises(LedgerError, match="is gone"):
        RunWriter(ledger.engine, record()).begin(after=0)
    assert not path.exists()


def test_a_relative_url_is_of_the_folder_where_it_was_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger("sqlite:///ledger.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ledger.runs() == []
    assert full_url("sqlite:///x/../y") == f"sqlite:///{tmp_path}/elsewhere/y"


def test_a_parameter_that_cannot_be_unpickled_is_told(ledger_url):
    lost = ParameterRecord("lost", "<Lost>", b"cnowhere_to_be_found\nLost\n.")
    kept = ParameterRecord("kept", "7", pickle.dumps(7))
    run = written(Ledger(ledger_url), parameters=[lost, kept])
    assert run.parameters(["kept"]) == {"kept": 7}
    with pytest.raises(LedgerError, match=r"parameter 'lost' .* cannot be unpickled"):
        run.parameters()


def test_a_file_that_is_no_database_is_told(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database, but long enough to be taken for one" * 10)

    with pytest.raises(LedgerError, match=r"notes\.txt' cannot be opened: file is not"):
        Ledger(path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "a database in memory cannot be one"),
        ("nonsense://x", "cannot be used"),
        ("postgresql://nobody@/x?host=/nowhere", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_be_one_is_told(url, told):
    with pytest.raises(LedgerError, match=told):
        Ledger(url)


def test_who_reads_makes_no_ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"

    with pytest.raises(LedgerError, match="there is no ledger at"):
        Ledger(path, must_exist=True)

    assert not path.exists()


def test_a_ledger_is_a_plain_file(tmp_path):
    path = tmp_path / "new folder" / "ledger.sqlite"
    written(Ledger(path), Batch([LOAD]))

    with sqlite3.connect(path) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM flow_ledger_runs"
        ).fetchone()
    connection.close()
    assert count == 1
    assert [p.name for p in path.parent.iterdir()] == ["ledger.sqlite"]


def test_a_ledger_that_travels_is_the_same_ledger(ledger_url):
    ledger = Ledger(ledger_url)
    written(ledger, Batch([LOAD]))

    assert pickle.loads(pickle.dumps(ledger)).run("aaaa").record.flow == "etl"


def test_a_password_is_not_shown():
    assert "hidden" in full_url("postgresql://me:hidden@/x")
    with pytest.raises(LedgerError) as raised:
        Ledger("postgresql://me:hidden@/x?host=/nowhere")
    assert "hidden" not in str(raised.value)
