"""Function flows: what a call does, and what a function may be."""

import asyncio
import contextvars
import logging
import pickle
import threading
import time

import cloudpickle
import pytest

from prefect_dask_core import (
    Flow,
    FunctionFlow,
    SequentialTaskRunner,
    as_completed,
    flow,
    get_run_context,
    runtime,
    task,
)
from prefect_dask_core.errors import (
    FailedRun,
    FlowTimeoutError,
    FutureOfAnotherRun,
    InvalidNameError,
    MissingContextError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
    PausedRun,
    ReservedArgumentError,
    UnknownOptionError,
    UpstreamTaskError,
)
from prefect_dask_core.signals import FAIL, SKIP
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Skipped,
    StateType,
    TimedOut,
    TriggerFailed,
)
from tests.small_tasks import double, fail


def run(function, runner, *args, **options):
    return flow(function, task_runner=runner, **options)(*args)


def state_of(function, runner, *args, **options):
    made = flow(function, task_runner=runner, **options)
    return made(*args, return_state=True)


# -- calls -------------------------------------------------------------------------


def test_a_flow_is_called_like_its_function():
    @flow
    def add(x, y=1, *rest, **more):
        """Add."""
        return x, y, rest, more

    assert add(1) == (1, 1, (), {})
    assert add(1, 2, 3, z=4) == (1, 2, (3,), {"z": 4})
    assert (add.name, add.description, add.__name__) == ("add", "Add.", "add")


def test_a_tasks_value_is_that_of_its_call(flow_runner):
    assert run(lambda: double(double(3)), flow_runner) == 12


def test_submitted_runs_hand_their_values_on(flow_runner):
    assert run(lambda: double.submit(double.submit(3)).result(), flow_runner) == 12


def test_arguments_that_do_not_fit_make_no_run():
    seen = []
    made = flow(lambda x: x, on_running=[lambda *_: seen.append(1)])
    with pytest.raises(ParameterBindError, match="flow 'unknown-lambda': missing a"):
        made(return_state=True)
    assert not seen


def test_a_flow_of_a_callable_is_a_function_flow():
    made = Flow(len, name="length")
    assert isinstance(made, FunctionFlow)
    assert made([1, 2]) == 2
    assert isinstance(Flow("graph"), Flow)
    assert isinstance(Flow(fn=len), FunctionFlow)


def test_failures_are_raised_or_returned(flow_runner):
    with pytest.raises(ValueError, match="no luck"):
        run(lambda: fail("luck"), flow_runner)
    state = state_of(lambda: fail("luck"), flow_runner)
    assert isinstance(state, Failed)
    assert (state.type, state.message) == (StateType.FAILED, "ValueError: no luck")


def test_the_state_of_a_run_has_those_of_its_runs(flow_runner):
    def body():
        double(1)
        double.submit(2)
        double.map([3, 4])

    states = state_of(body, flow_runner).states
    assert set(states) == {"double-0", "double-1", "double-2"}
    assert states["double-0"].result() == 2
    assert len(states["double-2"]) == 2
    with pytest.raises(KeyError, match=r"no run of this flow is called 'x', but"):
        states["x"]


def test_an_asynchronous_flow_is_awaited(flow_runner):
    @task
    async def wait_a_little(x):
        await asyncio.sleep(0.001)
        return x + 1

    @flow(task_runner=flow_runner)
    async def body():
        first = await wait_a_little(1)
        return first, await wait_a_little.submit(first), double(5)

    assert asyncio.run(body()) == (2, 3, 10)


def test_many_asynchronous_tasks_run_at_once_where_they_are_called():
    running = []
    most = []

    @task
    async def step():
        running.append(1)
        await asyncio.sleep(0.01)
        most.append(len(running))
        running.pop()

    @flow
    async def body():
        await asyncio.gather(*(step() for _ in range(20)))

    asyncio.run(body())
    assert max(most) == 20


def test_a_generator_flow_hands_out_values_as_they_come(flow_runner):
    seen = []

    @flow(task_runner=flow_runner, on_completion=[lambda *_: seen.append("end")])
    def numbers():
        for n in range(3):
            seen.append(n)
            yield double(n)

    found = numbers()
    assert seen == []
    assert next(found) == 0
    assert seen == [0]
    assert list(found) == [2, 4]
    assert seen == [0, 1, 2, "end"]


def test_a_generator_flow_that_is_closed_completes():
    seen = []

    @flow(on_completion=[lambda f, r, state: seen.append(state.name)])
    def numbers():
        yield from range(3)

    found = numbers()
    next(found)
    found.close()
    assert seen == ["Completed"]


def test_a_generator_has_no_state_to_return():
    with pytest.raises(OptionValueError, match="yields its values"):
        flow(lambda: (yield 1))(return_state=True)


def test_an_asynchronous_generator_flow_is_read():
    @flow
    async def numbers():
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    async def read():
        return [n async for n in numbers()]

    assert asyncio.run(read()) == [0, 1, 2]


class Owner:
    def __init__(self, factor):
        self.factor = factor

    @flow
    def method(self, x):
        return self.factor * x

    @flow
    @classmethod
    def on_class(cls, x):
        return cls.__name__, x

    @classmethod
    @flow
    def under_class(cls, x):
        return cls.__name__, x

    @staticmethod
    @flow
    def static(x):
        return x

    @flow
    @staticmethod
    def over_static(x):
        return x


def test_methods_are_flows():
    owner = Owner(3)
    assert owner.method(2) == 6
    assert Owner(5).method(2) == 10
    assert Owner.on_class(1) == ("Owner", 1)
    assert Owner.under_class(1) == ("Owner", 1)
    assert (Owner.static(1), owner.static(2)) == (1, 2)
    assert (Owner.over_static(1), owner.over_static(2)) == (1, 2)
    assert Owner.method.ismethod is False
    assert owner.method.ismethod is True


@flow
def of_module(x):
    return x + 1


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_a_flow_pickles_like_a_function(module):
    assert pickle.loads(module.dumps(of_module)) is of_module
    local = flow(lambda x: x + 1, name="local")
    assert pickle.loads(cloudpickle.dumps(local))(1) == 2


# -- options -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["return_state", "wait_for"])
def test_names_of_call_options_are_no_parameters(name):
    with pytest.raises(ReservedArgumentError, match=f"flow .* a parameter '{name}'"):
        exec(f"def body({name}): ...\nflow(body)", {"flow": flow})


@pytest.mark.parametrize("name", ["a/b", "a%", "&", "<a", "a>"])
def test_some_characters_are_no_name(name):
    with pytest.raises(InvalidNameError, match="cannot have"):
        flow(len, name=name)


def test_unknown_options_are_refused_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean 'retries'"):
        flow(len, retires=1)
    with pytest.raises(UnknownOptionError, match="did you mean 'retries'"):
        flow(len).with_options(retires=1)


def test_options_of_the_wrong_type_are_refused_as_a_flows():
    with pytest.raises(OptionTypeError, match="flow 'len': retries='2'"):
        flow(len, retries="2")
    with pytest.raises(OptionTypeError, match="flow 'len': flow_run_name=3"):
        flow(len, flow_run_name=3)
    with pytest.raises(OptionTypeError, match="flow 'len': on_failure"):
        flow(len, on_failure=print)
    with pytest.raises(OptionTypeError, match="task_runner=3"):
        flow(len, task_runner=3)
    with pytest.raises(OptionTypeError, match="write @flow\\(name='a'\\)"):
        flow("a")


def test_a_runner_is_given_as_an_object_or_a_class():
    assert flow(len, task_runner=SequentialTaskRunner).task_runner == (
        SequentialTaskRunner()
    )


def test_with_options_changes_what_is_given_and_keeps_the_rest():
    first = flow(len, name="a", retries=2, version="1")
    second = first.with_options(name="b", retries=None)
    assert (second.name, second.retries, second.version) == ("b", 2, "1")
    assert first.name == "a"
    assert second([1]) == 1


def test_a_run_has_a_name_from_a_template_or_a_callable():
    names = []

    def note(flow, flow_run, state):
        names.append(flow_run.name)

    options = {"on_completion": [note]}
    flow(lambda x: x, flow_run_name="run of {x}", **options)(3)
    flow(lambda x: x, flow_run_name=lambda: "called", **options)(3)
    flow(lambda x: x, name="plain", **options)(3)
    assert names[:2] == ["run of 3", "called"]
    assert names[2].startswith("plain-")


def test_a_name_that_is_no_text_fails_the_run():
    state = flow(lambda x: x, flow_run_name=lambda: 3)(3, return_state=True)
    assert isinstance(state, Failed)
    assert "flow_run_name callable <lambda> returned 3" in state.message


def test_a_wrong_name_fails_the_run():
    state = flow(lambda x: x, flow_run_name="{y}")(3, return_state=True)
    assert isinstance(state, Failed)
    assert "names 'y', which is unknown" in state.message


# -- what is returned --------------------------------------------------------------


def test_returned_futures_are_replaced_by_results(flow_runner):
    assert run(lambda: double.submit(1), flow_runner) == 2
    assert run(lambda: [double.submit(1), double.submit(2)], flow_runner) == [2, 4]
    assert run(lambda: double.map([1, 2]), flow_runner) == [2, 4]
    assert run(lambda: {"a": [double.submit(1), 7]}, flow_runner) == {"a": [2, 7]}


def test_returned_futures_alone_decide_together(flow_runner):
    def body():
        return [double.submit(1), fail.submit("x"), fail.submit("y")]

    state = state_of(body, flow_runner)
    message = "2 of 3 runs did not succeed: 2 failed. fail-0: ValueError: no x"
    assert state.message == message
    with pytest.raises(ValueError, match="no x"):
        run(body, flow_runner)


def test_in_anything_else_a_failure_is_a_state(flow_runner, caplog):
    found = run(lambda: {"a": fail.submit("x"), "b": double.submit(1)}, flow_runner)
    assert found["b"] == 2
    assert isinstance(found["a"], Failed)


def test_in_anything_else_children_that_failed_are_states(flow_runner):
    def body():
        bad = fail.submit("x")
        some = double.map([1, bad])
        return {"some": some, "part": [some[:1], 3], "none": double.map(bad)}

    found = run(body, flow_runner)
    assert found["some"][0] == 2
    assert isinstance(found["some"][1], TriggerFailed)
    assert found["part"] == [[2], 3]
    assert isinstance(found["none"], TriggerFailed)


def test_the_state_of_a_mapped_run_is_decided_by_its_children(flow_runner):
    def returned(values):
        futures = double.map(values)
        futures.wait()
        return futures.state

    good = state_of(lambda: returned([1, 2]), flow_runner)
    assert (type(good), good.result()) == (Completed, [2, 4])
    assert list(good.states) == ["double-0"]
    bad = state_of(lambda: [returned([1, {}])], flow_runner)
    assert (type(bad), bad.message) == (
        Failed,
        "1 of 2 runs did not succeed: 1 failed.",
    )


def test_a_failure_that_nobody_asks_about_is_told(flow_runner, caplog):
    def body():
        fail.submit("x")

    with caplog.at_level(logging.WARNING):
        assert isinstance(state_of(body, flow_runner), Completed)
    assert "fail-0 ended as Failed('ValueError: no x'), and nobody" in caplog.text
    caplog.clear()

    def asks():
        fail.submit("x").wait()
        future = fail.submit("y")
        future.wait()
        return future.state.is_failed()

    with caplog.at_level(logging.WARNING):
        assert run(asks, flow_runner) is True
    assert "fail-0" in caplog.text
    assert "fail-1" not in caplog.text


def test_a_state_is_returned_as_it_is(flow_runner):
    state = state_of(lambda: Completed("by hand"), flow_runner)
    assert (state.name, state.message) == ("Completed", "by hand")
    assert run(lambda: Completed("by hand"), flow_runner) is None
    with pytest.raises(FailedRun, match="by hand"):
        run(lambda: Failed("by hand"), flow_runner)
    with pytest.raises(PausedRun):
        run(lambda: Paused("by hand"), flow_runner)
    assert state_of(lambda: Cancelled("by hand"), flow_runner).is_cancelled()


def test_none_is_a_success_whatever_failed(flow_runner):
    def body():
        fail.submit()

    assert isinstance(state_of(body, flow_runner), Completed)


def test_signals_end_a_flow(flow_runner):
    def skip():
        raise SKIP("not today")

    def refuse():
        raise FAIL("never")

    assert isinstance(state_of(skip, flow_runner), Skipped)
    assert isinstance(state_of(refuse, flow_runner), Failed)


def test_an_exit_is_a_crash(flow_runner):
    def leave():
        raise SystemExit(3)

    assert isinstance(state_of(leave, flow_runner), Crashed)
    with pytest.raises(SystemExit):
        run(leave, flow_runner)


# -- retries, limits, hooks --------------------------------------------------------


def test_a_failed_flow_is_attempted_again(flow_runner):
    attempts = []
    hooks = []

    def body():
        attempts.append(double(1))
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    options = {
        "on_running": [lambda f, r, s: hooks.append((s.name, r.run_count))],
        "on_failure": [lambda f, r, s: hooks.append(s.name)],
        "on_completion": [lambda f, r, s: hooks.append(s.name)],
    }
    assert run(body, flow_runner, retries=2, **options) == 3
    assert hooks == [("Running", 1), ("Retrying", 2), ("Retrying", 3), "Completed"]


def test_a_flow_that_fails_for_good_calls_its_hooks_once(flow_runner):
    hooks = []
    state = state_of(
        fail.fn,
        flow_runner,
        retries=1,
        on_failure=[lambda f, r, s: hooks.append((f.name, r.run_count, s.message))],
    )
    assert state.is_failed()
    assert hooks == [("fail", 2, "ValueError: no None")]


def test_hooks_are_methods_too_and_their_errors_change_nothing(caplog):
    seen = []

    @flow
    def body():
        return 1

    @body.on_completion
    def broken(flow, flow_run, state):
        raise ValueError("broken hook")

    @body.on_completion
    async def works(flow, flow_run, state):
        await asyncio.sleep(0)
        seen.append((flow_run.flow_name, state.name))

    assert body() == 1
    assert seen == [("body", "Completed")]
    assert "hook broken raised ValueError('broken hook')" in caplog.text


@pytest.mark.parametrize(
    ("end", "hook"),
    [(SystemExit, "on_crashed"), (KeyboardInterrupt, "on_cancellation")],
)
def test_crashes_and_stops_have_their_hooks(end, hook, flow_runner):
    seen = []

    def body():
        raise end()

    with pytest.raises(end):
        run(body, flow_runner, **{hook: [lambda f, r, s: seen.append(s.name)]})
    assert seen == ["Crashed" if hook == "on_crashed" else "Cancelled"]


def test_a_flow_that_takes_too_long_is_ended(flow_runner):
    def body():
        while True:
            pass

    state = state_of(body, flow_runner, timeout_seconds=0.1)
    assert isinstance(state, TimedOut)
    with pytest.raises(FlowTimeoutError, match=r"ran longer than 0\.1 s"):
        state.result()


def test_an_asynchronous_flow_that_takes_too_long_is_cancelled():
    ended = []

    @flow(timeout_seconds=0.05)
    async def body():
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(1)

    with pytest.raises(FlowTimeoutError):
        asyncio.run(body())
    assert ended == [1]


def test_a_cancelled_flow_is_cancelled():
    seen = []

    @flow(on_cancellation=[lambda f, r, s: seen.append(s.name)])
    async def body():
        await asyncio.sleep(30)

    async def stop():
        running = asyncio.ensure_future(body())
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(stop())
    assert seen == ["Cancelled"]


# -- flows in flows ----------------------------------------------------------------


def test_a_flow_in_a_flow_has_its_own_run_and_its_parents_runner(flow_runner):
    records = []

    @flow(on_completion=[lambda f, r, s: records.append(r)])
    def inner(x):
        return double.submit(x)

    @flow(task_runner=flow_runner, on_completion=[lambda f, r, s: records.append(r)])
    def outer():
        return inner(double.submit(2))

    assert outer() == 8
    below, above = records
    assert below.parent_flow_run_id == above.id == below.root_flow_run_id
    assert below.id != above.id
    assert below.parameters == {"x": 4}
    assert above.parent_flow_run_id is None
    assert above.root_flow_run_id == above.id


def test_a_flow_in_a_flow_is_one_of_its_runs(flow_runner):
    @flow
    def inner(x):
        return double.submit(x)

    @flow
    async def later():
        return 1

    @flow
    def numbers():
        yield 1

    def body():
        inner(1)
        inner(fail.submit("x"), return_state=True)
        asyncio.run(later())
        list(numbers())

    states = state_of(body, flow_runner).states
    told = {name: type(state) for name, state in states.items()}
    assert told == {
        "fail-0": Failed,
        "inner-0": Completed,
        "inner-1": TriggerFailed,
        "later-0": Completed,
        "numbers-0": Completed,
    }
    assert states["inner-0"].states["double-0"].result() == 2


def test_a_flow_has_the_version_of_its_file():
    made = flow(lambda: runtime.flow_run.flow_version, name="versioned")
    assert made() == made.version
    assert len(made.version) == 32
    assert flow(len).version is None
    assert made.with_options(version="2")() == "2"


def test_a_flow_in_a_task_knows_both_its_parents(local_flow_runner):
    records = []

    @flow(on_completion=[lambda f, r, s: records.append(r)])
    def inner(x):
        return double.submit(x).result()

    @task
    def middle(x):
        return inner(x)

    @flow(task_runner=local_flow_runner)
    def outer():
        future = middle.submit(4)
        return future.task_run_id, future.result()

    run_id, value = outer()
    assert value == 8
    assert records[0].parent_task_run_id == run_id


def test_a_failure_below_can_be_caught(flow_runner):
    below = flow(lambda: fail("x"), name="below")

    def body():
        state = below(return_state=True)
        try:
            below()
        except ValueError as error:
            return state.name, str(error)

    assert run(body, flow_runner) == ("Failed", "no x")


def test_a_flow_below_a_failure_does_not_run(flow_runner):
    seen = []
    below = flow(lambda x: seen.append(x), name="below", on_failure=[seen.append])

    def body():
        state = below(fail.submit("x"), return_state=True)
        assert isinstance(state, TriggerFailed)
        below(1, wait_for=[fail.submit("y")])

    with pytest.raises(UpstreamTaskError, match="flow 'below' did not run") as caught:
        run(body, flow_runner)
    assert repr(caught.value.__cause__) == "ValueError('no y')"
    assert not seen


def test_a_future_of_another_run_is_refused(flow_runner):
    kept = []

    def leak():
        kept.append(double.submit(1))

    run(leak, flow_runner)
    with pytest.raises(FutureOfAnotherRun, match=r"give its \.result\(\) instead"):
        run(lambda: double.submit(kept[0]), flow_runner)
    assert run(lambda: double(kept[0]), flow_runner) == 4


def test_a_flow_runs_where_an_event_loop_runs_already():
    async def notebook():
        return flow(lambda: double(2))()

    assert asyncio.run(notebook()) == 4


def test_prints_are_logged_if_the_flow_says_so(caplog, capsys):
    @task
    def loud():
        print("from the task")

    @task(log_prints=False)
    def to_the_terminal():
        print("on the terminal")

    @flow(log_prints=True)
    def body():
        print("from the flow")
        loud()
        to_the_terminal()

    with caplog.at_level(logging.INFO):
        body()
    told = [m for m in caplog.messages if m.endswith(": from the flow")]
    assert len(told) == 1
    assert told[0].startswith("Flow run 'body-")
    assert "Task 'loud-0': from the task" in caplog.messages
    assert capsys.readouterr().out == "on the terminal\n"


@pytest.mark.parametrize("last", [double, fail])
def test_values_of_what_is_returned_stay_with_the_states(flow_runner, last):
    state = state_of(lambda: [double.submit(1), last.submit(2)], flow_runner)
    assert state.states["double-0"].result() == 2


def test_the_state_of_a_flow_keeps_the_values_of_children(flow_runner):
    @task
    def half(x):
        return x / 2

    @flow(task_runner=flow_runner)
    def halves():
        return half.map([1, 2, 3])

    state = halves(return_state=True)

    assert state.result() == [0.5, 1.0, 1.5]
    assert state["half-0"][1].result() == 1.0


def test_a_callback_may_wait_submit_and_fail(flow_runner, caplog):
    seen = []

    def submit(future):
        seen.append(double.submit(future.result()).result())

    def wrong(future):
        raise KeyError(future.name)

    def body():
        future, children = double.submit(1), double.map([1, 2])
        future.add_done_callback(wrong)
        future.add_done_callback(submit)
        children[1].add_done_callback(submit)
        children[0].add_done_callback(wrong)
        return children.result()

    assert run(body, flow_runner) == [2, 4]
    assert sorted(seen) == [4, 8]
    assert caplog.text.count("done callback") == 2


def test_children_come_in_the_order_in_which_they_end(flow_runner):
    def body():
        futures = double.map(range(50))
        found = [future.result() for future in as_completed(futures, timeout=30)]
        return len(found), sorted(found)

    assert run(body, flow_runner) == (50, [2 * n for n in range(50)])


# -- what a run is called ----------------------------------------------------------


def test_children_of_two_maps_of_one_task_are_told_apart(flow_runner, caplog):
    @task(log_prints=True)
    def load(x):
        print("item", x)
        if x == 3:
            raise ValueError("no three")
        return get_run_context().task_run.name

    @flow(task_runner=flow_runner)
    def body():
        first, second = load.map([1, 2]), load.map([3])
        stopped = double.submit(second)
        stopped.wait()
        return (
            [future.name for future in (*first, *second)],
            first.result(),
            stopped.state.message,
        )

    with caplog.at_level(logging.INFO):
        state = body(return_state=True)
    names, of_records, message = state.result()
    assert names == ["load-0[0]", "load-0[1]", "load-1[0]"]
    assert of_records == names[:2]
    assert message == "trigger 'all_successful' refused: load-1[0] failed"
    assert [name for name, _ in state.states.failures()] == ["load-1[0]", "double-0"]
    logged = {m for m in caplog.messages if m.startswith("Task ")}
    assert logged == {f"Task '{name}': item {n}" for n, name in enumerate(names, 1)}


def test_hooks_and_limits_name_the_run(local_flow_runner):
    told = []

    @task(timeout_seconds=0.05, on_failure=[lambda t, run, s: told.append(run.name)])
    def slow():
        while True:
            pass

    @flow(task_runner=local_flow_runner)
    def body():
        slow.submit().wait()
        return slow.submit()

    state = body(return_state=True)
    assert told == ["slow-0", "slow-1"]
    assert state["slow-1"].message.startswith("slow-1 ran longer than 0.05 s")


def test_the_states_of_a_run_are_counted_as_those_of_a_graph_flow(flow_runner):
    def body():
        double.map([1, 2])
        fail(return_state=True)
        double.submit(fail.submit("x"))

    states = state_of(body, flow_runner).states
    assert states.counts() == {"Completed": 2, "Failed": 2, "TriggerFailed": 1}
    names = [name for name, _ in states.failures()]
    assert sorted(names) == ["double-1", "fail-0", "fail-1"]


def test_a_wrong_name_is_answered_with_some_of_those_there_are():
    state = flow(lambda: [double(n) for n in range(30)])(return_state=True)
    with pytest.raises(KeyError, match=r"but: double-0, .*double-19 and 10 more\."):
        state["x"]


# -- why a run did not start -------------------------------------------------------


def test_what_is_refused_raises_with_the_first_failure_as_its_cause(
    flow_runner, caplog
):
    def body():
        return double.submit(double.submit(fail.submit("luck")))

    with pytest.raises(UpstreamTaskError, match="double-1 did not run: trig") as caught:
        run(body, flow_runner)
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "no luck"
    assert "nobody has asked" not in caplog.text


def test_the_state_of_a_flow_says_what_failed_first_however_far_above(flow_runner):
    def body():
        return double.submit(double.submit(fail.submit("luck")))

    assert state_of(body, flow_runner).message == (
        "1 of 1 run did not succeed: 1 failed. double-1: trigger 'all_successful' "
        "refused: double-0 failed; it began with fail-0: ValueError: no luck"
    )


@pytest.mark.parametrize("called", [True, False])
def test_what_is_refused_in_the_function_says_what_failed_first(flow_runner, called):
    @task
    def first(items):
        return items[0]

    def body():
        half = double.map(fail.map([1, 2]))
        return first(half) if called else first.submit(half).result()

    state = state_of(body, flow_runner)
    assert state.message.endswith("; it began with fail-0[0]: ValueError: no 1")
    error = state.result(raise_on_failure=False)
    while not isinstance(error, ValueError):
        assert isinstance(error, UpstreamTaskError)
        error = error.__cause__


def test_a_child_is_refused_because_of_the_child_above_it(flow_runner):
    @task
    def invert(x):
        if x < 2:
            raise ValueError(f"no {x}")
        return x

    def body():
        below = double.map(invert.map([2, 1, 0]))
        below.wait()
        causes = [
            str(future.result(raise_on_failure=False).__cause__) for future in below[1:]
        ]
        with pytest.raises(UpstreamTaskError) as caught:
            below.result()
        return causes, str(caught.value.__cause__)

    assert run(body, flow_runner) == (["no 1", "no 0"], "no 1")


def test_a_map_over_what_failed_tells_why(flow_runner):
    def body():
        below = double.map(fail.submit("list"))
        with pytest.raises(UpstreamTaskError) as caught:
            below.result()
        with pytest.raises(UpstreamTaskError):
            len(below)
        return str(caught.value.__cause__)

    assert run(body, flow_runner) == "no list"


# -- what nobody looked at ---------------------------------------------------------


def test_children_that_failed_unseen_are_counted(flow_runner, caplog):
    @task
    def odd(x):
        if x % 2:
            raise ValueError(f"no {x}")

    run(lambda: odd.map([0, 1, 2, 3]) and None, flow_runner)
    (told,) = [m for m in caplog.messages if "nobody has asked" in m]
    assert "2 of 4 children did not succeed, odd-0[1] ended as Failed(" in told


def test_many_runs_that_failed_unseen_are_told_in_short(caplog):
    run(lambda: [fail.submit(n) for n in range(14)] and None, SequentialTaskRunner())
    told = [m for m in caplog.messages if "nobody has asked" in m]
    assert len(told) == 11
    assert "4 more did not succeed" in told[-1]


def test_what_was_stopped_with_its_flow_is_no_failure_unseen(flow_runner, caplog):
    def body():
        double.map([1, 2])
        double.submit(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(body, flow_runner)
    assert not [m for m in caplog.messages if "nobody has asked" in m]


# -- stops, limits and attempts ----------------------------------------------------


def test_a_run_that_is_stopped_here_ends_as_cancelled():
    @task
    def stop(x):
        raise KeyboardInterrupt

    for body in (lambda: stop.map([1, 2]), lambda: stop.submit(1)):
        ended = []
        hook = {"on_cancellation": [lambda f, r, s, e=ended: e.append(s)]}
        with pytest.raises(KeyboardInterrupt):
            run(body, SequentialTaskRunner(), **hook)
        (state,) = ended
        assert isinstance(state["stop-0"], Cancelled)


def test_a_limit_that_passes_while_a_task_runs_here_leaves_no_run_without_state():
    @task
    def slow(x=None):
        time.sleep(0.3)

    for body in (lambda: slow.map([1, 2]), lambda: slow.submit(1), lambda: slow()):
        state = state_of(body, SequentialTaskRunner(), timeout_seconds=0.05)
        assert isinstance(state, TimedOut)
        assert isinstance(state["slow-0"], Cancelled)


@task
def nap(seconds):
    time.sleep(seconds)


def test_the_limit_holds_for_what_was_submitted_too(flow_runner):
    if isinstance(flow_runner, SequentialTaskRunner):
        pytest.skip("what is submitted there ends before the function does")

    @flow(task_runner=flow_runner, timeout_seconds=0.3)
    def body():
        nap.submit(0)
        return nap.submit(5)

    state = body(return_state=True)
    assert isinstance(state, TimedOut)
    assert state.message.endswith(
        "longer than 0.3 s, waiting for what it had submitted."
    )
    assert isinstance(state["nap-0"], Completed)
    assert isinstance(state["nap-1"], Cancelled)


def test_an_attempt_begins_when_what_the_last_one_submitted_has_ended(flow_runner):
    ended = []

    @flow(task_runner=flow_runner, retries=1)
    def body():
        if ended:
            return ended[0].done()
        ended.append(nap.submit(0.3))
        raise ValueError("again")

    state = body(return_state=True)
    assert state.result() is True
    assert isinstance(state["nap-0"], Completed)


def test_an_attempt_after_one_that_took_too_long_can_submit(flow_runner):
    attempts = []

    @flow(task_runner=flow_runner, retries=1, timeout_seconds=1)
    def body():
        attempts.append(nap.submit(0).wait())
        if len(attempts) == 1:
            while True:
                pass
        return double.submit(4)

    state = body(return_state=True)
    assert state.result() == 8
    assert list(state.states) == ["nap-0", "nap-1", "double-0"]
    assert all(one.is_successful() for one in state.states.values())


def test_a_flow_is_cancelled_while_it_waits_for_what_it_submitted(flow_runner):
    ended = []

    @flow(
        task_runner=flow_runner,
        on_cancellation=[lambda f, r, s: ended.append(s["nap-0"].is_final())],
    )
    async def body():
        nap.submit(0.5)

    async def stop():
        running = asyncio.ensure_future(body())
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(stop())
    assert ended == [True]


# -- small things ------------------------------------------------------------------


def test_a_parameter_may_be_called_self(flow_runner):
    @task
    def show(self):
        return self

    @flow(task_runner=flow_runner)
    def body(self):
        return show(self=self), show.submit(self=2), show.map(self=[3])

    assert body(self=1) == (1, 2, [3])


def test_a_coroutine_that_nobody_awaits_has_the_name_of_its_task():
    @task
    async def fetch():
        """Do nothing."""

    @flow(name="fetch all")
    async def body():
        """Do nothing."""

    for call, name in ((fetch, "fetch"), (body, "fetch all")):
        forgotten = [call()]
        with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never"):
            forgotten.clear()


def test_a_thread_of_a_flow_is_in_it_with_its_context(flow_runner):
    def body():
        found = []
        around = contextvars.copy_context()

        def beside():
            with pytest.raises(MissingContextError, match="copy_context"):
                double.submit(1)
            found.append(around.run(lambda: double.submit(2).result()))

        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
        return found

    assert run(body, flow_runner) == [4]


def test_lists_of_futures_refuse_what_makes_no_sense():
    def body():
        futures = double.map([1, 2])
        with pytest.raises(TypeError, match="is read by an int or a slice, not by 'x'"):
            futures["x"]
        with pytest.raises(TypeError, match="unsupported operand"):
            futures + 1
        more = [double.submit(1)]
        return len(futures + more)

    assert run(body, SequentialTaskRunner()) == 3


def test_what_a_callback_submits_at_the_end_is_a_part_of_the_run(flow_runner):
    def submit_more(future):
        more = double.submit(future.result())
        more.add_done_callback(lambda last: double.submit(last.result()))

    def body():
        double.submit(1).add_done_callback(submit_more)

    for _ in range(20):
        states = state_of(body, flow_runner).states
        assert [type(state) for state in states.values()] == [Completed] * 3
