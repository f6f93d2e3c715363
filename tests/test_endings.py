"""What the state and the log of a flow run that failed say of going on with it."""

import pickle

import pytest

from prefect_dask_core import Flow, SequentialTaskRunner, flow, task
from prefect_dask_core.ledger import Ledger


@task
def invert(x):
    return 1 / x


@task
def total(values):
    return sum(values)


def graph_flow(one=invert):
    with Flow("inverses") as made:
        total(one.map([1, 0]))
    return made


def function_flow(runner, one=invert, **options):
    @flow(name="inverses", task_runner=runner, **options)
    def inverses():
        return total.submit(one.map([1, 0]))

    return inverses


def stored(folder):
    return invert.with_options(persist_result=True, result_storage=folder)


def test_the_state_of_a_graph_flow_has_the_id_of_the_run(runner, tmp_path):
    ledger = Ledger(tmp_path / "runs.sqlite")
    state = graph_flow().run(task_runner=runner, ledger=ledger)
    assert [record.id for record in ledger.runs()] == [state.run_id]
    assert pickle.loads(pickle.dumps(state)).run_id == state.run_id
    assert state["total"].run_id is None
    assert state["invert"][0].run_id is None


def test_the_state_of_a_function_flow_has_the_id_of_the_run(flow_runner, tmp_path):
    ledger = Ledger(tmp_path / "runs.sqlite")
    state = function_flow(flow_runner, ledger=ledger)(return_state=True)
    assert [record.id for record in ledger.runs()] == [state.run_id]
    assert pickle.loads(pickle.dumps(state)).run_id == state.run_id
    assert state["total-0"].run_id is None


def test_a_flow_that_was_refused_has_an_id(tmp_path):
    @flow(validate_parameters=True, ledger=tmp_path / "runs.sqlite")
    def strict(x: int):
        return x

    state = strict("no", return_state=True)
    assert [run.id for run in Ledger(tmp_path / "runs.sqlite").runs()] == [state.run_id]


def test_a_run_that_is_resumed_has_the_id_it_had(tmp_path):
    made = graph_flow(stored(tmp_path))
    first = made.run(task_runner=SequentialTaskRunner())
    again = made.run(task_runner=SequentialTaskRunner(), resume=first.run_id)
    assert again.run_id == first.run_id


def test_the_last_line_of_a_graph_flow_says_how_it_goes_on(runner, tmp_path, caplog):
    state = graph_flow(stored(tmp_path)).run(task_runner=runner)
    assert caplog.messages[-1].startswith("flow 'inverses': Failed(")
    assert "it began with invert[1]: ZeroDivisionError" in caplog.messages[-1]
    assert caplog.messages[-1].endswith(f'; resume it with resume="{state.run_id}"')


def test_the_last_line_of_a_function_flow_says_how_it_goes_on(
    flow_runner, tmp_path, caplog
):
    state = function_flow(flow_runner, stored(tmp_path))(return_state=True)
    assert "it began with invert-0[1]: ZeroDivisionError" in caplog.messages[-1]
    assert caplog.messages[-1].endswith(f'; resume it with .resume("{state.run_id}")')


@pytest.mark.parametrize("kind", ["graph", "function"])
def test_the_last_line_of_a_recorded_run_says_that_it_is_recorded(
    kind, tmp_path, caplog
):
    runner, ledger = SequentialTaskRunner(), tmp_path / "runs.sqlite"
    if kind == "graph":
        graph_flow().run(task_runner=runner, ledger=ledger)
    else:
        function_flow(runner, ledger=ledger)(return_state=True)
    (record,) = Ledger(ledger).runs()
    assert f'{record.id}"' in caplog.messages[-1]
    assert caplog.messages[-1].endswith(" and its ledger")


def test_nothing_is_said_of_going_on_where_nothing_is_left_of_the_run(caplog):
    graph_flow().run(task_runner=SequentialTaskRunner())
    function_flow(SequentialTaskRunner())(return_state=True)
    assert "resume" not in caplog.text
    # The log says, too, how a function flow failed.
    assert "it began with invert-0[1]: ZeroDivisionError" in caplog.messages[-1]


def test_a_flow_inside_of_another_says_nothing_of_going_on_with_it(tmp_path, caplog):
    inner = function_flow(SequentialTaskRunner(), stored(tmp_path))

    @flow(task_runner=SequentialTaskRunner())
    def outer():
        return inner(return_state=True)

    outer(return_state=True)
    assert "resume" not in caplog.messages[-2]


@task
def interrupt(value):
    raise KeyboardInterrupt


def interrupted(kind, **options):
    """Run a flow that somebody stops."""
    runner = SequentialTaskRunner()
    kept = invert.with_options(**options.pop("task", {}))
    if kind == "graph":
        with Flow("inverses") as made:
            interrupt(kept(1))
        made.run(task_runner=runner, **options)
        return

    @flow(name="inverses", task_runner=runner, **options)
    def inverses():
        found = kept(1)
        raise KeyboardInterrupt(found)

    inverses()


def test_a_flow_that_is_interrupted_says_how_it_goes_on(tmp_path, caplog):
    ledger = Ledger(tmp_path / "runs.sqlite")
    for kind, call in (("graph", 'resume="{}"'), ("function", '.resume("{}")')):
        with pytest.raises(KeyboardInterrupt):
            interrupted(kind, ledger=ledger)
        (record, *_) = ledger.runs()
        said = caplog.messages[-1]
        assert "inverses" in said
        assert "stopped by KeyboardInterrupt" in said
        further = f"; resume it with {call.format(record.id)} and its ledger"
        assert said.endswith(further)


@pytest.mark.parametrize("kind", ["graph", "function"])
def test_an_interrupted_flow_says_so_too_if_only_values_are_left(
    kind, tmp_path, caplog
):
    keeps = {"persist_result": True, "result_storage": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        interrupted(kind, task=keeps)
    assert "; resume it with" in caplog.messages[-1]
    assert "ledger" not in caplog.messages[-1]
    caplog.clear()
    with pytest.raises(KeyboardInterrupt):
        interrupted(kind)
    assert "resume" not in caplog.text
