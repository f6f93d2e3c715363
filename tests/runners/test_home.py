"""Reports: what travels to the client, and in which form."""

import pickle
import sys

import pytest
from dask.sizeof import sizeof

from prefect_dask_core import Task, signals
from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.block_results import (
    BlockResult,
    PlainValue,
    flat_items_in,
)
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import Fixed, Items, StepInput
from prefect_dask_core.runners.home import (
    PlainReport,
    make_portable,
    pack_report,
    plain_report,
    trim,
)
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.testing import Script

LIMIT = 10_000


def report_of(*outcomes, mapped_over=False, **options):
    """Report of a block of one plain node."""
    task = Task(Script(*outcomes), name="t", **options)
    inputs = (StepInput("x", "", Fixed(1), None),)
    step = Step(3, task, "t-1", inputs, False, measured=mapped_over)
    block = Block(7, (step,), 0, 1, 0.0, frozenset({3}))
    _, report = run_block(block, [], {}, ThreadShell())
    return report


def travelled(plain):
    """A plain report as the client reads it."""
    return PlainReport(*pickle.loads(pickle.dumps(tuple(plain)))).full()


@pytest.mark.parametrize("value", [None, 5, [1, [2]], {"a": (1, 2)}, "text"])
def test_a_plain_report_tells_what_the_full_one_does(value):
    report = report_of(value)
    told = travelled(plain_report(report, LIMIT))
    assert (told.number, told.done, list(told.segments)) == (7, 1, [3])
    full, short = report.segments[3], told.segments[3]
    assert short.state(0).result() == full.state(0).result() == value
    assert type(short.state(0)) is type(full.state(0))
    assert (short.begins[0], short.ends[0]) == (full.begins[0], full.ends[0])
    assert short.attempts == full.attempts == {}


def test_a_plain_report_tells_how_much_there_is_to_map_over():
    told = travelled(plain_report(report_of([1, 2, 3], mapped_over=True), LIMIT))
    assert told.segments[3].length == 3


class Touchy(Exception):
    """An exception with more than its text, that counts how often it is read."""

    read = 0

    def __init__(self, text):
        super().__init__(text)
        self.where = "here"

    def __setstate__(self, state):
        type(self).read += 1
        self.__dict__.update(state)


def failing(number):
    raise Touchy(f"row {number} has no price")


def test_failures_travel_light_and_are_not_read_before_somebody_looks():
    inputs = (StepInput("number", "", Items(list(range(1_000)), 0), None),)
    step = Step(3, Task(failing), "t-1", inputs, mapped=True)
    block = Block(7, (step,), 0, 1_000, 0.0, frozenset({3}))
    _, report = run_block(block, [], {}, ThreadShell())
    make_portable(report.segments[3])
    assert sys.getsizeof(report.segments[3].details) < 150_000  # on the worker, too
    blob = pack_report(report, LIMIT)
    assert len(blob) < 150_000
    Touchy.read = 0
    told = pickle.loads(blob).segments[3]
    assert len(told.details) == 1_000
    assert Touchy.read == 0
    with pytest.raises(Touchy, match="row 700 has no price") as caught:
        told.state(700).result()
    assert caught.value.where == "here"
    assert "failing" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("cause", [None, KeyError("x")])
def test_a_failure_keeps_its_traceback_and_its_cause(cause):
    error = ValueError("no", 5)
    error.__cause__ = cause
    told = pickle.loads(pack_report(report_of(error), LIMIT))
    found = told.segments[3].state(0).data
    assert (type(found), found.args) == (ValueError, ("no", 5))
    assert repr(found.__cause__) == repr(cause)
    assert found.__traceback__ is not None


def test_a_large_value_stays_where_it_is():
    report = report_of("x" * LIMIT)
    plain = plain_report(report, LIMIT)
    assert plain.blob is None
    assert travelled(plain).segments[3].values is None


@pytest.mark.parametrize(
    ("outcomes", "options"),
    [
        ((ValueError("no"), "yes"), {"retries": 1}),
        ((ValueError("no"),), {}),
        ((signals.SKIP("not today"),), {}),
        ((signals.SUCCESS("as said", data=5),), {}),
    ],
    ids=["second attempt", "failed", "skipped", "message"],
)
def test_what_is_more_than_completed_is_told_in_full(outcomes, options):
    report = report_of(*outcomes, **options)
    assert plain_report(report, LIMIT) is None
    told = pickle.loads(pack_report(report, LIMIT))
    full, short = report.segments[3], told.segments[3]
    assert short.attempts == full.attempts
    assert short.state(0).name == full.state(0).name
    assert short.state(0).message == full.state(0).message


def test_a_value_of_a_class_of_a_script_is_told_in_full(monkeypatch):
    class Row:
        size = 3

    # As in a script that is run: found by its name there, and nowhere else.
    Row.__module__, Row.__qualname__ = "__main__", "Row"
    monkeypatch.setattr(sys.modules["__main__"], "Row", Row, raising=False)
    report = report_of(Row())
    assert plain_report(report, LIMIT) is None
    assert plain_report(report_of([Row]), LIMIT) is None
    blob = pack_report(report, LIMIT)
    monkeypatch.delattr(sys.modules["__main__"], "Row")
    told = pickle.loads(blob)
    assert told.segments[3].state(0).result().size == 3


def test_a_value_that_cannot_be_pickled_is_told_in_full():
    assert plain_report(report_of(iter([1])), LIMIT) is not None
    assert plain_report(report_of(lambda x: lambda: x), LIMIT) is None


@pytest.mark.parametrize("count", [1, 20_000])
def test_whether_a_number_comes_home_depends_on_no_block(count):
    task = Task(lambda x: x + 0.5, name="t")
    inputs = (StepInput("x", "", Items(list(range(count)), 0), None),)
    step = Step(3, task, "t-1", inputs, True)
    block = Block(7, (step,), 0, count, 0.0, frozenset({3}))
    _, report = run_block(block, [], {}, ThreadShell())
    travelled = pickle.loads(pack_report(report, LIMIT)).segments[3]
    assert travelled.state(count - 1).result() == count - 0.5
    at_home = trim(report, frozenset(), LIMIT).segments[3]
    assert at_home.state(count - 1).result() == count - 0.5


def test_nothing_comes_home_where_nothing_is_to():
    report = report_of(ValueError("no"), "yes", retries=1)
    travelled = pickle.loads(pack_report(report, 0)).segments[3]
    assert travelled.values is None


def test_what_was_flattened_on_a_worker_counts_for_its_memory():
    rows = [[n] for n in range(1_000)]
    for left in (BlockResult({3: Segment.of_value(rows)}, {3: rows}), PlainValue(rows)):
        before = sizeof(left)
        assert len(flat_items_in(left, 3)) == 1_000
        assert sizeof(left) > before + 8_000
        assert sizeof(left) < 3 * before
