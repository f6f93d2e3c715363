"""Mistakes: each ends in a message that names it, and never in a hang."""

import threading

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    switch,
    task,
)
from prefect_dask_core import flow as function_flow
from prefect_dask_core.errors import (
    CycleError,
    DuplicateSlugError,
    FlowParameterError,
    GraphError,
    MappingLengthMismatch,
    MappingMissingIterable,
    OptionTypeError,
    ParameterBindError,
    UnknownOptionError,
    UnpicklableTaskError,
)
from prefect_dask_core.signals import PAUSE, WAIT
from prefect_dask_core.states import Completed
from prefect_dask_core.triggers import all_finished, some_failed, some_successful

pytestmark = pytest.mark.timeout(120)

LOCK = threading.Lock()


@task
def inc(x):
    return x + 1


@task
def pair(x, y):
    return x, y


# -- declarations ------------------------------------------------------------------


@pytest.mark.parametrize("make", [Task, lambda **o: task(**o)(lambda: 1)])
def test_an_unknown_option_is_named_with_the_nearest_one(make):
    with pytest.raises(UnknownOptionError, match=r"'retrys'.*'retries'"):
        make(retrys=2)
    with pytest.raises(TypeError):
        make(retrys=2)


def test_two_spellings_that_disagree_are_both_named():
    with pytest.raises(UnknownOptionError, match=r"(?s)timeout.*timeout_seconds|"):
        Task(lambda: 1, timeout_seconds=1, timeout=2)
    assert Task(lambda: 1, timeout_seconds=2, timeout=2).timeout_seconds == 2


def test_a_trigger_that_cannot_be_called_is_refused():
    with pytest.raises(OptionTypeError, match=r"trigger='all_done'.*all_finished"):
        Task(lambda: 1, trigger="all_done")


@pytest.mark.parametrize("trigger", [some_failed, some_successful])
def test_a_trigger_that_has_to_be_called_first_is_refused(trigger):
    with pytest.raises(OptionTypeError, match=rf"{trigger.__name__}\(at_least=1\)"):
        Task(lambda: 1, trigger=trigger)


@pytest.mark.parametrize("cases", [[1], inc, None])
def test_switch_refuses_cases_that_are_no_mapping(cases):
    with Flow("f"), pytest.raises(OptionTypeError, match=r"switch\(.*a mapping of"):
        switch(Parameter("x")(), cases)


@pytest.mark.parametrize("signal", [PAUSE, WAIT])
def test_a_pause_with_a_duration_points_to_pause_task(signal):
    with pytest.raises(TypeError, match=r"pause_task\(message, duration=\.\.\.\)"):
        signal("later", duration=5)


def test_a_cycle_is_told_when_the_block_ends():
    first, second = Task("first"), Task("second")
    flow = Flow("circle")
    flow.add_edge(first, second)
    flow.add_edge(second, first)
    with pytest.raises(CycleError, match=r"first-1 -> second-1 -> first-1"):
        flow.validate()
    with pytest.raises(CycleError, match="form a cycle"), flow:
        pass


@pytest.mark.parametrize("how", ["run", "compile"])
def test_a_flow_with_a_cycle_neither_runs_nor_compiles(how):
    first, second = Task("first"), Task("second")
    flow = Flow("circle")
    flow.chain(first, second, first)
    with pytest.raises(CycleError, match=r"remove one of them"):
        getattr(flow, how)()


def test_a_slug_that_is_taken_is_named():
    flow = Flow("slugs", tasks=[Task("a", slug="mine")])
    with pytest.raises(DuplicateSlugError, match="slug 'mine' already"):
        flow.add_task(Task("b", slug="mine"))


def test_two_parameters_of_one_name_are_refused():
    flow = Flow("parameters", tasks=[Parameter("x")])
    with pytest.raises(DuplicateSlugError, match="parameter with the slug 'x'"):
        flow.add_task(Parameter("x"))


@pytest.mark.parametrize("value", [5, "abc", None], ids=repr)
def test_mapping_over_what_has_no_length_is_told_beforehand(value):
    with (
        pytest.raises(MappingMissingIterable, match=r"none of its inputs \(x\) can be"),
        Flow("mapping"),
    ):
        inc.map(value)


def test_constants_of_unequal_length_are_told_before_anything_runs():
    seen = []
    with Flow("lengths") as flow:
        Task(lambda: seen.append(1), name="first")()
        pair.map([1, 2], [1, 2, 3])
    with pytest.raises(MappingLengthMismatch, match="x has 2, y has 3"):
        flow.run(task_runner=SequentialTaskRunner())
    with pytest.raises(MappingLengthMismatch, match="x has 2, y has 3"):
        flow.compile()
    assert not seen


# -- runs --------------------------------------------------------------------------


@pytest.fixture
def flow():
    with Flow("etl") as made:
        inc(Parameter("x"))
        Parameter("y", default=1)()
    return made


@pytest.mark.parametrize("how", ["run", "compile"])
def test_a_missing_parameter_is_named(flow, how):
    with pytest.raises(FlowParameterError, match=r"'etl' needs the parameter 'x'"):
        getattr(flow, how)(y=2)


@pytest.mark.parametrize("how", ["run", "compile"])
def test_an_unexpected_parameter_is_named_with_those_there_are(flow, how):
    with pytest.raises(FlowParameterError, match=r"no parameter 'z'.*: x, y\."):
        getattr(flow, how)({"x": 1, "z": 2})


@pytest.mark.parametrize("how", ["run", "compile"])
def test_a_parameter_that_is_given_twice_is_named(flow, how):
    with pytest.raises(TypeError, match="the parameter 'x' twice"):
        getattr(flow, how)({"x": 1}, x=2)


@pytest.mark.parametrize("how", ["run", "compile"])
@pytest.mark.parametrize("given", ["x", 5, [1]])
def test_parameters_that_are_no_mapping_are_refused(flow, how, given):
    with pytest.raises(OptionTypeError, match=r"parameters=.*expected a mapping.*x=1"):
        getattr(flow, how)(given)


@pytest.mark.parametrize("option", ["context", "task_states", "task_contexts"])
def test_an_option_of_a_run_that_is_no_mapping_is_refused(flow, option):
    with pytest.raises(OptionTypeError, match=rf"{option}=5, but expected a mapping"):
        flow.run(x=1, **{option: 5})
    if option == "context":
        with pytest.raises(OptionTypeError, match="context=5"):
            flow.compile(x=1, context=5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("task_runer", "task_runner"), ("return_task", "return_tasks")],
)
def test_an_option_of_a_run_that_is_written_wrongly_is_recognised(flow, written, meant):
    with pytest.raises(
        FlowParameterError, match=rf"{written!r}.*the option {meant}=\?"
    ):
        flow.run(x=1, **{written: 1})


def test_a_parameter_may_be_called_nearly_as_an_option():
    with Flow("names") as flow:
        found = inc(Parameter("contexts"))
    assert flow.run(contexts=1, task_runner=SequentialTaskRunner())[found].result() == 2


@pytest.mark.parametrize("how", ["run", "compile"])
def test_a_task_whose_call_was_forgotten_is_named(how):
    with Flow("etl") as flow:
        pair(inc, 1)
    with pytest.raises(TypeError, match=r"'inc-1'.*'x': no call in this flow.*copy"):
        getattr(flow, how)()


def test_a_task_that_was_called_in_another_flow_is_named():
    with Flow("first"):
        early = inc(1)
    with Flow("etl") as flow:
        late = inc(early)
    with pytest.raises(ParameterBindError, match="nor what a call in another flow"):
        flow.run()
    given = flow.run(
        task_states={early: Completed(data=2)}, task_runner=SequentialTaskRunner()
    )
    assert given[late].result() == 3


def test_an_argument_that_was_not_bound_is_named():
    flow = Flow("etl")
    flow.add_edge(Task(lambda: 1), pair, key="y")
    with pytest.raises(ParameterBindError, match=r"'x': bind it.*pair\(x=\.\.\.\)"):
        flow.run()


def test_a_state_of_another_flow_is_not_resumed(flow):
    with Flow("other") as other:
        inc(Parameter("z"))
    state = other.run(z=1, task_runner=SequentialTaskRunner())
    with pytest.raises(GraphError, match=r"another flow.*its tasks: 'z', 'inc'"):
        flow.run(resume=state)


def test_a_flow_does_not_run_inside_its_own_block():
    with Flow("open") as flow:
        inc(1)
        with pytest.raises(RuntimeError, match="cannot run inside its own `with`"):
            flow.run()
        with pytest.raises(RuntimeError, match="cannot compile inside its own `with`"):
            flow.compile()


def test_return_tasks_takes_tasks_of_the_flow_only(flow):
    with pytest.raises(GraphError, match=r"<Task: inc>, which is not a task of flow"):
        flow.run(x=1, return_tasks=[inc])


def test_a_state_does_not_know_a_foreign_task(flow, runner):
    state = flow.run(x=1, task_runner=runner)
    with pytest.raises(KeyError, match="is not a task of this flow run"):
        state[inc]
    with pytest.raises(KeyError, match="no task of this flow run is called 'nobody'"):
        state["nobody"]


def test_lengths_that_only_the_run_tells_fail_the_task(runner):
    with Flow("lengths") as flow:
        many = pair.map(Task(lambda: [1, 2], name="two")(), [1, 2, 3])
    state = flow.run(task_runner=runner)
    assert type(state[many]).__name__ == "Failed"
    assert "x has 2, y has 3" in state[many].message
    with pytest.raises(MappingLengthMismatch):
        state.result()


def test_a_runner_without_threads_is_refused():
    with pytest.raises(ValueError, match="max_workers=0 leaves no thread"):
        ThreadPoolTaskRunner(max_workers=0)


@pytest.mark.parametrize("given", ["2", 2.0, True])
def test_a_number_of_threads_that_is_no_int_is_refused(given):
    with pytest.raises(OptionTypeError, match="expected an int, the number of threads"):
        ThreadPoolTaskRunner(given)


def test_an_argument_of_the_cluster_is_shown_its_place():
    with pytest.raises(TypeError, match=r"cluster_kwargs=\{'n_workers': 2\}"):
        DaskTaskRunner(n_workers=2)


# -- what cannot travel ------------------------------------------------------------


def with_task():
    lock = LOCK
    Task(lambda: lock, name="bad")()


def with_argument():
    Task(lambda x: x, name="bad")([LOCK])


def with_item():
    Task(lambda x: x, name="bad").map([1, LOCK, 3])


def with_parameter():
    Task(lambda x: x, name="bad")(Parameter("p", default=LOCK))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (with_task, "closure variable 'lock' of task 'bad' cannot be pickled"),
        (with_argument, "argument 'x' of task 'bad' cannot be pickled"),
        (with_item, "item 1 of argument 'x' of task 'bad' cannot be pickled"),
        (with_parameter, "parameter 'p' of the run cannot be pickled"),
    ],
)
def test_what_cannot_be_pickled_is_named(client, build, told):
    with Flow("pickles") as flow:
        build()
    with pytest.raises(UnpicklableTaskError, match=told):
        flow.run(task_runner=DaskTaskRunner(cluster=client))
    # Nothing has to travel within a process.
    assert flow.run(task_runner=ThreadPoolTaskRunner(1)).is_successful()


def test_a_context_variable_that_cannot_be_pickled_is_named(client):
    with Flow("pickles") as flow:
        inc(1)
    runner = DaskTaskRunner(cluster=client)
    with pytest.raises(UnpicklableTaskError, match="context variable 'c' of the run"):
        flow.run(context={"c": LOCK}, task_runner=runner)


@pytest.mark.slow
@pytest.mark.parametrize("build", [with_task, with_argument, with_item])
def test_what_cannot_be_pickled_is_named_before_it_reaches_a_process(
    process_client, build
):
    with Flow("pickles") as flow:
        build()
    with pytest.raises(UnpicklableTaskError, match="task 'bad' cannot be pickled"):
        flow.run(task_runner=DaskTaskRunner(cluster=process_client))


@pytest.mark.slow
def test_a_value_that_cannot_be_pickled_stays_where_it_is(process_client):
    with Flow("pickles") as flow:
        lock = Task(lambda: threading.Lock(), name="lock")()
        below = Task(lambda x: type(x).__name__, name="below")(lock)
        apart = inc(1)
        flow.set_reference_tasks([apart])
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    # Fused with the task below, so it never has to travel.
    assert state[below].result() == "lock"
    assert state[apart].result() == 2


@pytest.mark.slow
def test_a_value_that_cannot_travel_to_its_readers_fails_its_task(process_client):
    with Flow("pickles") as flow:
        lock = Task(lambda: threading.Lock(), name="lock")()
        # On two workers: one of them is not where the lock is.
        readers = [Task(slowly, name=f"reader{i}")(lock) for i in range(4)]
        cleanup = Task(lambda: "clean", name="cleanup", trigger=all_finished)(
            upstream_tasks=readers
        )
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    assert type(state[lock]).__name__ == "Failed"
    assert "the value of lock cannot be pickled" in state[lock].message
    for reader in readers:
        assert type(state[reader]).__name__ == "TriggerFailed"
    assert state[cleanup].result() == "clean"


def slowly(x):
    threading.Event().wait(0.5)
    return 1


@pytest.mark.slow
def test_a_module_that_a_worker_does_not_have_is_named(
    process_client, tmp_path, monkeypatch
):
    (tmp_path / "only_here.py").write_text("def body(x=1):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    body = __import__("only_here").body
    with Flow("missing") as flow:
        missing = Task(body)()
        many = Task(body, name="many").map([1, 2, 3])
        apart = inc(1)
        cleanup = Task(lambda x, y: "clean", name="cleanup", trigger=all_finished)(
            missing, apart
        )
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    assert type(state[missing]).__name__ == "Crashed"
    assert "No module named 'only_here'" in state[missing].message
    assert [type(child).__name__ for child in state[many]] == ["Crashed"] * 3
    assert state[apart].result() == 2
    assert state[cleanup].result() == "clean"


@pytest.mark.slow
def test_a_module_that_is_missing_does_not_cost_a_look_per_child(
    process_client, tmp_path, monkeypatch
):
    (tmp_path / "also_only_here.py").write_text("def body(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    body = __import__("also_only_here").body
    with Flow("missing") as flow:
        # One by one they would take longer than a test may.
        many = Task(body).map(range(20_000))
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    assert {type(child).__name__ for child in state[many]} == {"Crashed"}


class LoadsNowhere:
    """An item that pickles, and cannot be unpickled."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ImportError("no such item here")


def test_an_item_that_cannot_be_unpickled_ends_in_a_state(client):
    with Flow("items") as flow:
        many = Task(lambda x: 1, name="many").map([1, LoadsNowhere()])
        apart = inc(1)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[apart].result() == 2
    assert [type(child).__name__ for child in state[many]] == ["Completed", "Crashed"]
    assert "no such item here" in state[many][1].message
    assert "what task 'many' is mapped over" in state[many][1].message


@pytest.mark.parametrize("bad", [range(700, 701), range(0, 2_000, 2), range(2_000)])
def test_items_that_cannot_be_unpickled_cost_no_other_its_run(client, bad):
    items = [LoadsNowhere() if n in bad else n for n in range(2_000)]
    with Flow("items") as flow:
        many = Task(lambda x: x, name="many").map(items)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    kinds = [type(child).__name__ for child in state[many]]
    assert kinds == ["Crashed" if n in bad else "Completed" for n in range(2_000)]


def test_items_with_futures_in_them_cost_no_other_its_run_either(client):
    @function_flow(task_runner=DaskTaskRunner(cluster=client))
    def run():
        one = inc.submit(1)
        items = [[LoadsNowhere() if n == 70 else n, one] for n in range(100)]
        many = Task(lambda x: x[0], name="many").map(items)
        many.wait()
        return [type(future.state).__name__ for future in many]

    kinds = run()
    assert kinds == ["Crashed" if n == 70 else "Completed" for n in range(100)]


def test_an_argument_that_cannot_be_unpickled_ends_in_a_state(client):
    with Flow("arguments") as flow:
        bad = Task(lambda x: 1, name="bad")(LoadsNowhere())
        large = Task(lambda x: 1, name="large")([LoadsNowhere(), b"x" * 10_000])
        apart = inc(1)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[apart].result() == 2
    for node in (bad, large):
        assert type(state[node]).__name__ == "Crashed"
        assert "no such item here" in state[node].message
