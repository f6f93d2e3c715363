"""Tracebacks of failed runs, as text."""

import pytest
from distributed import Client

from prefect_dask_core import DaskTaskRunner, Flow, flow, task
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.states import Completed, Failed
from prefect_dask_core.traces import trace_of


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not a word")


def invert(x):
    return [1 / (i - x) for i in range(3)]


def caught(x):
    try:
        try:
            return invert(x)
        except ZeroDivisionError as error:
            raise ValueError("no inverse") from error
    except ValueError as error:
        return error


def test_the_causes_of_an_exception_are_told():
    told = trace_of(Failed(data=caught(1)))
    assert told.startswith("Traceback (most recent call last):")
    assert "direct cause" in told
    assert told.index("ZeroDivisionError: division") < told.index("ValueError: no inv")
    assert "return [1 / (i - x)" in told


@pytest.mark.parametrize("state", [Completed(data=3), Failed("no"), Failed(data="no")])
def test_without_an_exception_there_is_nothing_to_tell(state):
    assert trace_of(state) == ""


def test_an_exception_that_cannot_be_told_does_no_harm():
    assert "Mute" in trace_of(Failed(data=Mute()))


@pytest.fixture(scope="module")
def processes():
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        yield client


def test_what_comes_from_a_worker_has_no_carets_at_wrong_places(processes, tmp_path):
    with Flow("inverses") as made:
        found = task(invert)(1)
    ledger = str(tmp_path / "ledger.sqlite")
    state = made.run(task_runner=DaskTaskRunner(cluster=processes), ledger=ledger)
    for told in (trace_of(state[found]), told_by_ledger(ledger)):
        assert "return [1 / (i - x) for i in range(3)]" in told
        assert "^" not in told
    assert "states.py" not in told


def told_by_ledger(url):
    ledger = Ledger(url)
    ((_, detail),) = ledger.run(ledger.runs()[0].id).failures()
    return detail.traceback


def test_what_a_flow_raised_by_asking_for_a_result_is_of_its_run():
    kept = {}

    @flow
    def asking():
        kept["inner"] = inner = task(invert).submit(1, return_state=True)
        return inner.result()

    outer = asking(return_state=True)
    for _ in range(2):
        for state in (outer, kept["inner"]):
            with pytest.raises(ZeroDivisionError):
                state.result()
    assert outer.data is kept["inner"].data
    assert "in asking" in trace_of(outer)
    assert "in asking" not in trace_of(kept["inner"])
    assert "test_what_a_flow_raised" not in trace_of(outer)
