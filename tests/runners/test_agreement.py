"""The same flows, run in five ways: every way ends in the same states and values."""

import asyncio
import pickle
import threading
import time

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    context,
    tags,
    task,
    unmapped,
)
from prefect_dask_core.edges import Edge, flatten, mapped
from prefect_dask_core.errors import (
    FailedRun,
    MappingLengthMismatch,
    MappingMissingIterable,
    RemoteTaskError,
    TaskTimeoutError,
)
from prefect_dask_core.signals import (
    ENDRUN,
    FAIL,
    LOOP,
    PAUSE,
    RETRY,
    SKIP,
    SUCCESS,
    TRIGGERFAIL,
    VALIDATIONFAIL,
    WAIT,
)
from prefect_dask_core.states import Completed, Failed, Skipped
from prefect_dask_core.testing import fails, scripted, scripted_children
from prefect_dask_core.triggers import (
    all_failed,
    all_finished,
    all_successful,
    any_failed,
    any_successful,
    manual_only,
    not_all_skipped,
    some_failed,
    some_successful,
)


@task
def give(value=1):
    return value


@task
def inc(x):
    return x + 1


@task
def add(x, y):
    return x + y


@task
def pair(x, y):
    return (x, y)


@task
def total(numbers):
    return sum(numbers)


@task
def as_list(values):
    return list(values)


@task
def lists(values):
    return [list(value) for value in values]


@task
def kinds_of(values):
    return [type(value).__name__ for value in values]


@task
def boom(x=None):
    raise ValueError(f"no {x}")


@task
def skip(x=None):
    raise SKIP("not today")


def kind(state):
    return type(state).__name__


def kinds(state):
    return [kind(child) for child in state]


def values(state, *tasks):
    return [state[task].result() for task in tasks]


# -- plain nodes -------------------------------------------------------------------


def test_a_chain_hands_values_down(run):
    with Flow("chain") as flow:
        a = give(1)
        b = inc(a)
        c = inc(b)
    state = run(flow)
    assert kind(state) == "Completed"
    assert values(state, a, b, c) == [1, 2, 3]
    assert state.result() == {c: 3}


def test_a_long_chain_ends(run):
    with Flow("long chain") as flow:
        last = give(0)
        for _ in range(300):
            last = inc(last)
    assert run(flow)[last].result() == 300


def test_a_diamond_joins_both_ways(run):
    #      top
    #     /   \
    #  left   right
    #     \   /
    #     bottom
    with Flow("diamond") as flow:
        top = give(1)
        left = inc(top)
        right = inc(inc(top))
        bottom = pair(left, right)
    assert run(flow)[bottom].result() == (2, 3)


def test_an_empty_flow_completes(run):
    assert kind(run(Flow("nothing"))) == "Completed"


def test_a_task_alone_runs(run):
    flow = Flow("alone", tasks=[give])
    assert run(flow)[give].result() == 1


def test_an_edge_without_a_key_only_orders(run):
    with Flow("order") as flow:
        first = boom("a")
        second = give(2, upstream_tasks=[first])
    state = run(flow)
    assert kind(state[second]) == "TriggerFailed"
    assert state[second].message == "trigger 'all_successful' refused: boom failed"


def test_wait_for_means_upstream_tasks(run):
    with Flow("order") as flow:
        first = give(1)
        second = give(2, wait_for=[first])
    assert values(run(flow), first, second) == [1, 2]


def test_one_task_may_feed_two_inputs(run):
    with Flow("twice") as flow:
        number = give(3)
        both = pair(number, y=number)
    assert run(flow)[both].result() == (3, 3)


def test_constants_of_any_kind_arrive(run):
    given = [1, "a", b"b", None, (1, [2]), {"k": {3}}, 1.5, b"x" * 10_000]
    with Flow("constants") as flow:
        given_back = [give(value) for value in given]
    assert values(run(flow), *given_back) == given


def test_defaults_of_the_body_are_used(run):
    with Flow("defaults") as flow:
        number = give()
    assert run(flow)[number].result() == 1


def test_nested_collections_of_tasks_are_collected(run):
    with Flow("collections") as flow:
        one, two = give(1), give(2)
        found = give([one, {"two": two, "both": (one, two)}, [{one, two}, 5]])
    expected = [1, {"two": 2, "both": (1, 2)}, [{1, 2}, 5]]
    assert run(flow)[found].result() == expected


def test_operators_are_tasks(run):
    with Flow("operators") as flow:
        one, two = give(1), give({"k": 4})
        result = (one + 2) * two["k"] - one
    assert run(flow)[result].result() == 11


def test_several_outputs_are_unpacked(run):
    with Flow("outputs") as flow:
        first, second = Task(lambda: (1, 2), name="two", nout=2)()
        result = pair(second, first)
    assert run(flow)[result].result() == (2, 1)


def test_none_is_a_value_like_any_other(run):
    with Flow("none") as flow:
        nothing = give(None)
        got = pair(nothing, 1)
    state = run(flow)
    assert kind(state[nothing]) == "Completed"
    assert values(state, nothing, got) == [None, (None, 1)]


def test_a_parameter_is_a_task_with_a_value(run):
    with Flow("parameters") as flow:
        x, y = Parameter("x"), Parameter("y", default=10)
        both = add(x, y)
    state = run(flow, x=1)
    assert values(state, x, y, both) == [1, 10, 11]
    assert run(flow, x=1, y=2)[both].result() == 3


def test_a_subclass_runs_with_its_attributes(run):
    class Scale(Task):
        def __init__(self, factor, **options):
            self.factor = factor
            super().__init__(**options)

        def run(self, x):
            return self.factor * x

    with Flow("subclass") as flow:
        double, triple = Scale(2), Scale(3, name="triple")
        a = double(5)
        b = triple(a)
        many = Scale(10).map([1, 2])
    state = run(flow)
    assert values(state, a, b) == [10, 30]
    assert state[many].result() == [10, 20]


class Labelled(Task):
    def __init__(self, fn, label, **options):
        self.label = label
        super().__init__(fn, **options)


def test_copies_of_a_subclass_keep_their_attributes(run):
    def tell_label(task, old, new):
        return new.replace(message=task.label) if new.is_successful() else None

    with Flow("subclass") as flow:
        first = Labelled(lambda: 1, "first", name="a", state_handlers=[tell_label])()
        second = first.copy(label="second").bind()
    state = run(flow)
    assert [state[t].message for t in (first, second)] == ["first", "second"]


def test_closures_and_lambdas_are_bodies_too(run):
    offset = 100

    def shift(x):
        return x + offset

    with Flow("closures") as flow:
        shifted = Task(shift)(1)
        doubled = Task(lambda x: 2 * x, name="double").map([1, 2])
    state = run(flow)
    assert values(state, shifted, doubled) == [101, [2, 4]]


def test_a_positional_only_body_gets_its_arguments(run):
    @task
    def power(base, exponent=2, /, *, plus=0, **more):
        return base**exponent + plus + sum(more.values())

    with Flow("signature") as flow:
        result = power(3, 3, plus=give(1), extra=give(10))
    assert run(flow)[result].result() == 38


def test_a_coroutine_function_is_awaited(run):
    @task
    async def later(x):
        await asyncio.sleep(0)
        return x + 1

    with Flow("async") as flow:
        one = later(1)
        many = later.map([1, 2, 3])
    state = run(flow)
    assert values(state, one, many) == [2, [2, 3, 4]]


def test_an_exception_in_a_coroutine_fails_the_task(run):
    @task
    async def later():
        await asyncio.sleep(0)
        raise KeyError("gone")

    with Flow("async") as flow:
        failed = later()
    state = run(flow)
    assert kind(state[failed]) == "Failed"
    assert state[failed].message == "KeyError: 'gone'"


# -- how a run of a body ends ------------------------------------------------------


def test_an_exception_fails_the_task_and_those_below(run):
    with Flow("failure") as flow:
        bad = boom("luck")
        below = inc(bad)
        further = inc(below)
    state = run(flow)
    assert [kind(state[t]) for t in (bad, below, further)] == [
        "Failed",
        "TriggerFailed",
        "TriggerFailed",
    ]
    assert state[bad].message == "ValueError: no luck"
    with pytest.raises(ValueError, match="no luck"):
        state[bad].result()
    assert state[further].message == (
        "trigger 'all_successful' refused: increment failed"
    ).replace("increment", "inc")


def test_system_exit_is_a_crash(run):
    @task
    def leave():
        raise SystemExit(3)

    with Flow("exit") as flow:
        gone = leave()
        below = inc(gone)
        cleanup = Task(lambda: "clean", name="cleanup", trigger=all_finished)(
            upstream_tasks=[below]
        )
    state = run(flow)
    assert kind(state[gone]) == "Crashed"
    assert state[gone].message == "SystemExit: 3"
    assert kind(state[below]) == "TriggerFailed"
    assert state[cleanup].result() == "clean"


class CannotPickle(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()


class CannotUnpickle(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize(
    ("error", "text"),
    [(CannotPickle, "locked"), (lambda: CannotUnpickle("a", "b"), "a and b")],
    ids=["cannot be pickled", "cannot be unpickled"],
)
def test_an_exception_that_cannot_travel_has_a_stand_in(run, error, text):
    @task
    def fail():
        raise error()

    with Flow("exceptions") as flow:
        failed = fail()
        below = inc(failed)
        seen = Task(lambda x: str(x), name="seen", trigger=all_finished)(failed)
        # A child's, through a fan-out and its reduce.
        child = Task(lambda x: fail.run(), name="child").map([1])
        all_seen = Task(lambda x: str(x[0]), name="all", trigger=all_finished)(child)
    state = run(flow)
    name = type(error()).__name__
    assert kind(state[failed]) == "Failed"
    assert state[failed].message == f"{name}: {text}"
    found = state[failed].result(raise_on_failure=False)
    assert isinstance(found, RemoteTaskError | CannotPickle | CannotUnpickle)
    assert text in str(found)
    assert kind(state[below]) == "TriggerFailed"
    assert kinds(state[child]) == ["Failed"]
    assert text in state[seen].result()
    assert text in state[all_seen].result()


def test_large_results_travel(run):
    with Flow("large") as flow:
        large = Task(lambda: b"x" * 1_000_000, name="large")()
        doubled = Task(lambda x: x + x, name="double")(large)
        many = Task(lambda n: b"y" * n, name="many").map([1_000_000, 10])
        size = Task(lambda x, y: len(x) + sum(map(len, y)), name="size")(doubled, many)
        flow.set_reference_tasks([doubled, many, size])
    state = run(flow)
    assert len(state[doubled].result()) == 2_000_000
    assert list(map(len, state[many].result())) == [1_000_000, 10]
    assert state[size].result() == 3_000_010


# -- signals -----------------------------------------------------------------------


def test_fail_fails(run):
    with Flow("signal") as flow:
        failed = scripted(FAIL("no such file"))()
    state = run(flow)
    assert kind(state[failed]) == "Failed"
    assert state[failed].message == "no such file"
    assert kind(state) == "Failed"


@pytest.mark.parametrize(
    ("signal", "name"),
    [(TRIGGERFAIL("a"), "TriggerFailed"), (VALIDATIONFAIL("b"), "ValidationFailed")],
)
def test_the_signals_below_fail_have_their_states(run, signal, name):
    with Flow("signal") as flow:
        failed = scripted(signal)()
        many = scripted(signal).map([1])
        below = inc(many)
    state = run(flow)
    assert kind(state[failed]) == name
    assert state[failed].message == signal.message
    assert kinds(state[many]) == [name]
    assert kind(state[below]) == "TriggerFailed"


def test_fail_is_retried(run):
    with Flow("signal") as flow:
        task = scripted(FAIL("first"), "second", retries=1)()
    assert run(flow)[task].result() == "second"


def test_fail_may_carry_what_cannot_be_pickled(run):
    @task
    def fail():
        raise FAIL("with a lock", data=threading.Lock())

    with Flow("signal") as flow:
        failed = fail()
    state = run(flow)
    assert kind(state[failed]) == "Failed"
    assert state[failed].message == "with a lock"


def test_success_ends_with_a_value(run):
    with Flow("signal") as flow:
        early = scripted(SUCCESS("found it", data=7))()
        below = inc(early)
    state = run(flow)
    assert kind(state[early]) == "Completed"
    assert state[early].message == "found it"
    assert values(state, early, below) == [7, 8]


def test_a_skip_passes_down(run):
    with Flow("skip") as flow:
        skipped = skip()
        below = inc(skipped)
        stays = Task(lambda x: x, name="stays", skip_on_upstream_skip=False)(below)
    state = run(flow)
    assert kind(state[skipped]) == kind(state[below]) == "Skipped"
    assert state[skipped].message == "not today"
    assert "skip_on_upstream_skip=False" in state[below].message
    assert kind(state[stays]) == "Completed"
    assert values(state, skipped, below, stays) == [None, None, None]
    assert kind(state) == "Completed"


def test_a_skip_hands_its_data_to_those_that_run_nevertheless(run):
    with Flow("skip") as flow:
        skipped = scripted(SKIP("no", data=5))()
        stays = Task(lambda x: x + 1, name="stays", skip_on_upstream_skip=False)(
            skipped
        )
    assert values(run(flow), skipped, stays) == [5, 6]


def test_retry_goes_beyond_the_retries_of_the_task(run):
    with Flow("retry") as flow:
        many = scripted(RETRY("again"), RETRY("and again"), "done").map([0])
    state = run(flow)
    assert state[many].result() == ["done"]
    assert state[many].states.attempts(0) == 3


def test_each_state_tells_its_attempts_and_times(run):
    began = time.time()
    with Flow("facts") as flow:
        many = scripted(RETRY("again"), "done").map([0, 1])
        one = inc(1)
        never = scripted(SKIP("no"))()
        below = inc(never)
    state = run(flow)
    assert [child.run.attempts for child in state[many]] == [2, 2]
    assert [state[task].run.attempts for task in (one, never, below)] == [1, 1, 0]
    for found in (*state[many], state[one]):
        assert began <= found.run.begin <= found.run.end <= time.time()
        assert found.run.seconds == found.run.end - found.run.begin
        assert found.replace(message="told").run == found.run
        assert pickle.loads(pickle.dumps(found)).run == found.run
    assert state.run is None
    assert state[many].run is None


def test_runs_that_never_began_have_an_end_alone(run):
    began = time.time()
    with Flow("facts") as flow:
        below = inc.map(boom.map([1]))
        skipped = inc(scripted(SKIP("no"))())
    state = run(flow)
    for found in (state[below][0], state[skipped]):
        assert found.run.attempts == 0
        assert found.run.begin is None
        assert found.run.seconds is None
        assert began <= found.run.end <= time.time()


def test_each_state_tells_its_worker(client):
    with Flow("places") as flow:
        many = inc.map(range(10))
        one = inc(1)
        lost = Task(lambda: 1 / 0, name="lost")()
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    workers = set(client.nthreads())
    for found in (*state[many], state[one], state[lost]):
        assert found.run.worker in workers
    state = flow.run(task_runner=SequentialTaskRunner())
    assert {child.run.worker for child in state[many]} == {None}


def test_retry_waits_until_its_start_time(run):
    @task
    def at(begin):
        if context.task_run_count == 1:
            raise RETRY(start_time=begin + 0.2)
        return time.time() - begin

    with Flow("retry") as flow:
        waited = at(Parameter("begin"))
    assert run(flow, begin=time.time())[waited].result() >= 0.2


def test_loop_runs_again_with_its_data(run):
    @task
    def factorial(n):
        count = context.get("task_loop_count", 1)
        product = count * context.get("task_loop_result", 1)
        if count < n:
            raise LOOP(data=product)
        return product

    with Flow("loop") as flow:
        one = factorial(5)
        many = factorial.map([1, 2, 3])
        below = inc(one)
    state = run(flow)
    assert values(state, one, many, below) == [120, [1, 2, 6], 121]


def test_a_failure_in_a_loop_retries_its_pass(run):
    @task(retries=1)
    def loop():
        done = context.get("task_loop_result", ())
        count = context.get("task_loop_count", 1)
        done = (*done, (count, context.task_run_count))
        if count == 2 and context.task_run_count == 1:
            raise ValueError("second pass")
        if count < 3:
            raise LOOP(data=done)
        return done

    with Flow("loop") as flow:
        looped = loop()
    assert run(flow)[looped].result() == ((1, 1), (2, 2), (3, 1))


@pytest.mark.parametrize(("signal", "name"), [(PAUSE, "Paused"), (WAIT, "Waiting")])
def test_a_pause_makes_those_below_wait(run, signal, name):
    with Flow("pause") as flow:
        paused = scripted(signal("for you"))()
        below = inc(paused)
        further = inc(below)
        apart = inc(1)
    state = run(flow)
    assert kind(state[paused]) == "Paused"
    assert state[paused].name == name
    assert state[paused].message == "for you"
    assert [kind(state[t]) for t in (below, further)] == ["Pending", "Pending"]
    assert state[below].name == "WaitingForUpstream"
    assert state[apart].result() == 2
    assert kind(state) == "Paused"


def test_a_paused_child_pauses_the_flow(run):
    with Flow("pause") as flow:
        many = scripted_children({1: [PAUSE("here")]}, "done").map([0, 1, 2])
        below = Task(lambda x: x, name="same").map(many)
        all_of = as_list(below)
    state = run(flow)
    assert kinds(state[many]) == ["Completed", "Paused", "Completed"]
    assert kinds(state[below]) == ["Completed", "Pending", "Completed"]
    assert kind(state[all_of]) == "Pending"
    assert kind(state) == "Paused"


def test_manual_only_pauses(run):
    with Flow("manual") as flow:
        asks = Task(lambda: 1, name="asks", trigger=manual_only)()
        below = inc(asks)
    state = run(flow)
    assert kind(state[asks]) == "Paused"
    assert kind(state[below]) == "Pending"
    assert kind(state) == "Paused"


def test_endrun_ends_in_its_state(run):
    with Flow("endrun") as flow:
        done = scripted(ENDRUN(Completed("enough", data=4)))()
        skipped = scripted(ENDRUN(Skipped("left")))()
    state = run(flow)
    assert state[done].message == "enough"
    assert state[done].result() == 4
    assert kind(state[skipped]) == "Skipped"


def test_endrun_is_not_retried(run):
    with Flow("endrun") as flow:
        many = scripted(ENDRUN(Failed("over")), "second", retries=3).map([0])
    state = run(flow)
    assert kinds(state[many]) == ["Failed"]
    assert state[many].states.attempts(0) == 1


def test_a_returned_state_is_the_state_of_the_task(run):
    with Flow("states") as flow:
        done = scripted(Completed("mine", data=2))()
        failed = scripted(Failed("returned"))()
        below = inc(done)
    state = run(flow)
    assert state[done].message == "mine"
    assert values(state, done, below) == [2, 3]
    assert kind(state[failed]) == "Failed"
    with pytest.raises(FailedRun, match="returned"):
        state[failed].result()


# -- retries and limits ------------------------------------------------------------


def test_attempts_are_counted(run):
    with Flow("retries") as flow:
        many = scripted_children(
            {0: ["at once"], 1: [OSError(), "second"], 2: [OSError("never")]},
            retries=2,
        ).map([0, 1, 2])
        one = fails(2, then="third", retries=2)()
    state = run(flow)
    assert kinds(state[many]) == ["Completed", "Completed", "Failed"]
    assert [state[many].states.attempts(i) for i in range(3)] == [1, 2, 3]
    assert state[many][2].message == "OSError: never"
    assert state[one].result() == "third"


@pytest.mark.parametrize(
    ("retry_on", "attempts"),
    [
        (None, 2),
        (ValueError, 2),
        (OSError, 1),
        ([OSError, ValueError], 2),
        (Exception, 2),
        ([], 1),
    ],
)
def test_only_named_failures_are_retried(run, retry_on, attempts):
    made = scripted(ValueError("no"), "done", retries=1, retry_on=retry_on)
    with Flow("f") as flow:
        result = made()
    state = run(flow)[result]
    assert state.is_successful() == (attempts == 2)


def test_a_timeout_is_a_failure_that_can_be_named(run):
    @task(timeout_seconds=0.05, retries=1, retry_on=TimeoutError)
    def slow():
        while context.task_run_count == 1:
            time.sleep(0.005)
        return "done"

    with Flow("f") as flow:
        result = slow()
    assert run(flow)[result].result() == "done"


def test_a_body_asks_for_an_attempt_whatever_is_named(run):
    with Flow("f") as flow:
        result = scripted(RETRY("again"), "done", retries=1, retry_on=OSError)()
    assert run(flow)[result].result() == "done"


def test_the_body_knows_its_attempt(run):
    @task(retries=2)
    def count():
        if context.task_run_count < 3:
            raise ValueError
        return context.task_run_count

    with Flow("retries") as flow:
        counted = count()
    assert run(flow)[counted].result() == 3


def test_children_wait_for_their_retries_together(run):
    with Flow("delays") as flow:
        many = fails(1, "done", retries=1, retry_delay_seconds=0.8).map(range(20))
    begin = time.monotonic()
    state = run(flow)
    assert state[many].result() == ["done"] * 20
    # One after the other they would wait sixteen seconds.
    assert 0.8 <= time.monotonic() - begin < 14


def test_delays_are_taken_in_turn(run):
    @task(retries=2, retry_delay_seconds=[0.2, 0])
    def times():
        if context.task_run_count < 3:
            raise ValueError
        return time.time()

    with Flow("delays") as flow:
        ended = times()
    begin = time.time()
    assert run(flow)[ended].result() - begin >= 0.2


def test_a_body_over_its_limit_times_out(run):
    @task(timeout_seconds=0.2)
    def forever():
        while True:
            time.sleep(0.01)

    @task(timeout_seconds=0.2)
    async def forever_async():
        await asyncio.sleep(60)

    with Flow("limits") as flow:
        sync, coroutine = forever(), forever_async()
        quick = inc.with_options(timeout_seconds=60)(1)
        below = inc(sync)
    state = run(flow)
    assert kind(state[sync]) == kind(state[coroutine]) == "TimedOut"
    assert state[sync].message == "forever ran longer than 0.2 s."
    assert state[coroutine].message == "forever_async ran longer than 0.2 s."
    with pytest.raises(TaskTimeoutError, match="longer than"):
        state[sync].result()
    assert state[quick].result() == 2
    assert kind(state[below]) == "TriggerFailed"


def test_a_timeout_is_retried(run):
    @task(timeout_seconds=0.1, retries=1)
    def slow_at_first(x):
        while context.task_run_count == 1:
            time.sleep(0.01)
        return x

    with Flow("limits") as flow:
        many = slow_at_first.map([7])
    state = run(flow)
    assert state[many].result() == [7]
    assert state[many].states.attempts(0) == 2


def test_a_timeout_error_of_the_body_is_a_failure(run):
    with Flow("limits") as flow:
        failed = scripted(TimeoutError("mine"), timeout_seconds=60)()
    assert kind(run(flow)[failed]) == "Failed"


# -- state handlers ----------------------------------------------------------------


def test_a_handler_may_replace_a_state(run):
    def rescue(task, old, new):
        if isinstance(new, Failed):
            return Completed("rescued", data=0)
        return None

    with Flow("handlers") as flow:
        rescued = boom.with_options(state_handlers=[rescue])("a")
        below = inc(rescued)
        many = boom.with_options(state_handlers=[rescue]).map([1, 2])
    state = run(flow)
    assert state[rescued].message == "rescued"
    assert values(state, rescued, below, many) == [0, 1, [0, 0]]


def test_a_handler_sees_each_change(run):
    def tell(task, old, new):
        if isinstance(new, Completed):
            seen = context.get("task_loop_result", "")
            return new.replace(message=f"{type(old).__name__}{seen}")
        return None

    with Flow("handlers") as flow:
        told = fails(1, retries=1, state_handlers=[tell])()
        at_once = give.with_options(state_handlers=[tell])(1)
    state = run(flow)
    assert state[told].message == "Retrying"
    assert state[at_once].message == "Running"


def test_a_handler_that_raises_fails_the_run_without_a_retry(run):
    def bad(task, old, new):
        if isinstance(new, Completed):
            raise ZeroDivisionError("in the handler")

    with Flow("handlers") as flow:
        many = give.with_options(state_handlers=[bad], retries=3).map([1])
    state = run(flow)
    assert kinds(state[many]) == ["Failed"]
    assert state[many][0].message == (
        "state handler bad raised ZeroDivisionError: in the handler"
    )
    assert state[many].states.attempts(0) == 1


def test_a_handler_that_returns_no_state_fails_the_run(run):
    def bad(task, old, new):
        return 5

    with Flow("handlers") as flow:
        failed = give.with_options(state_handlers=[bad])(1)
    assert run(flow)[failed].message == (
        "state handler bad of task 'give' returned 5; a handler returns a State or "
        "None."
    )


def test_signals_of_a_handler_count(run):
    def fail_first(task, old, new):
        if isinstance(new, Completed) and context.task_run_count == 1:
            raise FAIL("not good enough")

    def pause(task, old, new):
        if new.is_running():
            raise PAUSE("by the handler")

    with Flow("handlers") as flow:
        again = give.with_options(state_handlers=[fail_first], retries=1).map([1])
        paused = give.with_options(state_handlers=[pause])(1)
        flow.set_reference_tasks([again])
    state = run(flow)
    assert state[again].result() == [1]
    assert state[again].states.attempts(0) == 2
    assert kind(state[paused]) == "Paused"
    assert state[paused].message == "by the handler"


def test_on_failure_is_called_with_the_task_and_its_state(run):
    seen = []

    def note(task, state):
        seen.append((task.name, type(state).__name__))

    with Flow("handlers") as flow:
        Task(boom.fn, name="bad", on_failure=note, retries=1)("a")
    state = run(flow)
    assert kind(state) == "Failed"
    # In this process all workers are threads, so the list is one.
    assert seen in ([("bad", "Failed")] * 2, [])


# -- triggers ----------------------------------------------------------------------


def upstream_of(*ends):
    """Tasks that succeed, fail or skip, one per letter."""
    made = {"s": lambda: give(1), "f": lambda: boom("x"), "k": lambda: skip()}
    return [made[end]() for end in ends]


SHIPPED = [
    (all_successful, "sk", "Completed"),
    (all_successful, "sf", "TriggerFailed"),
    (all_failed, "ff", "Completed"),
    (all_failed, "fs", "TriggerFailed"),
    (any_successful, "fs", "Completed"),
    (any_successful, "ff", "TriggerFailed"),
    (any_failed, "fs", "Completed"),
    (any_failed, "ss", "TriggerFailed"),
    (all_finished, "fsk", "Completed"),
    (not_all_skipped, "ks", "Completed"),
    (not_all_skipped, "kk", "Skipped"),
    (not_all_skipped, "kf", "TriggerFailed"),
    (some_failed(at_least=2), "ffs", "Completed"),
    (some_failed(at_least=2), "fss", "TriggerFailed"),
    (some_successful(at_least=0.5), "fs", "Completed"),
    (some_successful(at_least=0.6), "fs", "TriggerFailed"),
    (manual_only, "ss", "Paused"),
]


@pytest.mark.parametrize(
    ("trigger", "ends", "expected"), SHIPPED, ids=lambda v: getattr(v, "name", str(v))
)
def test_a_shipped_trigger_judges_plain_upstreams(run, trigger, ends, expected):
    with Flow("triggers") as flow:
        judged = Task(
            lambda: "ran", name="judged", trigger=trigger, skip_on_upstream_skip=False
        )(upstream_tasks=upstream_of(*ends))
    assert kind(run(flow)[judged]) == expected


@pytest.mark.parametrize(
    ("trigger", "ends", "expected"), SHIPPED, ids=lambda v: getattr(v, "name", str(v))
)
def test_a_shipped_trigger_judges_the_children_of_a_fan_out(
    run, trigger, ends, expected
):
    outcome = {"s": ["ok"], "f": [ValueError("x")], "k": [SKIP()]}
    scripts = {index: outcome[end] for index, end in enumerate(ends)}
    with Flow("triggers") as flow:
        many = scripted_children(scripts).map(list(ends))
        judged = Task(
            lambda x: len(x),
            name="judged",
            trigger=trigger,
            skip_on_upstream_skip=False,
        )(many)
    state = run(flow)
    assert kind(state[judged]) == expected
    if expected == "Completed":
        assert state[judged].result() == len(ends)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (all_successful, "Completed"),
        (all_failed, "TriggerFailed"),
        (any_successful, "Completed"),
        (any_failed, "TriggerFailed"),
        (all_finished, "Completed"),
        (not_all_skipped, "Completed"),
        (some_failed(at_least=1), "TriggerFailed"),
        (some_successful(at_least=1), "Completed"),
        (manual_only, "Paused"),
    ],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_an_empty_fan_out_stands_as_one_success(run, trigger, expected):
    with Flow("triggers") as flow:
        many = inc.map(give([]))
        judged = Task(lambda x: x, name="judged", trigger=trigger)(many)
    state = run(flow)
    assert kind(state[judged]) == expected
    if expected == "Completed":
        assert state[judged].result() == []


def describe(upstream):
    """Names, indices and states a trigger of one's own was given, as a message."""
    parts = []
    for key, state in upstream.items():
        edge, index = key if isinstance(key, tuple) else (key, None)
        assert isinstance(edge, Edge), edge
        told = f"{edge.upstream_task.name}>{edge.downstream_task.name}.{edge.key}"
        parts.append(f"{told}[{index}]={type(state).__name__}")
    raise FAIL(", ".join(sorted(parts)))


def test_a_trigger_of_ones_own_sees_edges_and_indices(run):
    with Flow("triggers") as flow:
        judged = Task(lambda x, y: 0, name="judged", trigger=describe)(
            give(1), scripted_children({1: [ValueError()]}, name="many").map([0, 1])
        )
    state = run(flow)
    assert state[judged].message == (
        "give>judged.x[None]=Completed, many>judged.y[0]=Completed, "
        "many>judged.y[1]=Failed"
    )


def test_a_trigger_of_ones_own_is_put_to_each_child(run):
    with Flow("triggers") as flow:
        many = scripted_children({1: [ValueError()]}, name="many").map([0, 1])
        judged = Task(lambda x, y: 0, name="judged", trigger=describe).map(
            many, unmapped(give(1))
        )
    state = run(flow)
    assert [child.message for child in state[judged]] == [
        "give>judged.y[None]=Completed, many>judged.x[0]=Completed",
        "give>judged.y[None]=Completed, many>judged.x[1]=Failed",
    ]


def test_a_trigger_of_ones_own_sees_an_empty_fan_out_as_one_success(run):
    with Flow("triggers") as flow:
        judged = Task(lambda x: 0, name="judged", trigger=describe)(inc.map(give([])))
    assert run(flow)[judged].message == "inc>judged.x[None]=Completed"


def test_a_trigger_of_ones_own_sees_copies_of_one_task_apart(run):
    def three(upstream):
        if len(upstream) != 3:
            raise FAIL(f"{len(upstream)} states")
        return True

    with Flow("triggers") as flow:
        judged = Task(lambda: 0, name="judged", trigger=three)(
            upstream_tasks=[give(1), give(2), give(3)]
        )
    state = run(flow)
    assert state[judged].message is None
    assert kind(state[judged]) == "Completed"


def test_constants_are_left_out_of_triggers(run):
    with Flow("triggers") as flow:
        judged = Task(lambda x, y: y, name="judged", trigger=all_failed)(boom("a"), 3)
        own = Task(lambda x, y: 0, name="own", trigger=describe)(boom("a"), 3)
    state = run(flow)
    assert state[judged].result() == 3
    assert state[own].message == "boom>own.x[None]=Failed"


def test_a_trigger_that_returns_false_refuses(run):
    def never(upstream):
        return False

    with Flow("triggers") as flow:
        refused = give.with_options(trigger=never)(1)
    state = run(flow)
    assert kind(state[refused]) == "TriggerFailed"
    assert state[refused].message == "trigger never returned False."


def test_a_trigger_that_raises_refuses(run):
    def broken(upstream):
        raise KeyError("oops")

    with Flow("triggers") as flow:
        refused = give.with_options(trigger=broken, retries=2).map([1])
    state = run(flow)
    assert kinds(state[refused]) == ["TriggerFailed"]
    assert state[refused][0].message == "trigger broken raised KeyError: 'oops'."
    assert state[refused].states.attempts(0) == 0


def test_a_failed_input_is_handed_over_as_its_exception(run):
    with Flow("triggers") as flow:
        seen = Task(lambda x: f"{x!r}", name="seen", trigger=all_finished)(boom("a"))
        all_seen = Task(kinds_of.fn, name="all", trigger=all_finished)(
            scripted_children({1: [OSError()]}, 1).map([0, 1])
        )
        mapped_seen = Task(
            lambda x: type(x).__name__, name="each", trigger=all_finished
        ).map(scripted_children({1: [OSError()]}, 1).map([0, 1]))
    state = run(flow)
    assert state[seen].result() == "ValueError('no a')"
    assert state[all_seen].result() == ["int", "OSError"]
    assert state[mapped_seen].result() == ["int", "OSError"]


# -- fan-outs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3], [2, 3, 4]),
        ((1, 2), [2, 3]),
        (range(4), [1, 2, 3, 4]),
        ({1: "a", 2: "b"}, [2, 3]),
        ({5}, [6]),
        (frozenset([5]), [6]),
        ([], []),
        ((), []),
        ({}, []),
        (range(0), []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("when", ["beforehand", "at run time"])
def test_a_task_is_mapped_over(run, given, expected, when):
    with Flow("map") as flow:
        many = inc.map(given if when == "beforehand" else give(given))
        summed = total(many)
    state = run(flow)
    assert kind(state[many]) == "Mapped"
    assert len(state[many]) == len(expected)
    assert state[many].result() == expected
    assert state[summed].result() == sum(expected)


def test_a_generator_is_mapped_over_and_read_as_a_list(run):
    @task
    def generate(n):
        return (x * x for x in range(n))

    @task
    def count(n):
        yield from range(n)

    with Flow("map") as flow:
        squares = generate(4)
        runtime = inc.map(squares)
        summed = total(squares)
        counted = inc.map(count(2))
        beforehand = inc.map(x * x for x in range(3))
    state = run(flow)
    assert state[squares].result() == [0, 1, 4, 9]
    assert values(state, runtime, summed) == [[1, 2, 5, 10], 14]
    assert values(state, counted, beforehand) == [[1, 2], [1, 2, 5]]


def test_a_generator_that_raises_is_a_body_that_raises(run):
    @task(retries=1)
    def generate(attempts):
        yield 1
        if context.task_run_count <= attempts:
            raise ValueError("halfway")
        yield 2

    with Flow("map") as flow:
        failed, again = generate(2), generate(1)
        many, more = inc.map(failed), inc.map(again)
        cleanup = Task(lambda: "clean", name="cleanup", trigger=all_finished)(
            upstream_tasks=[many]
        )
    state = run(flow)
    assert state[failed].message == "ValueError: halfway"
    assert kind(state[many]) == "TriggerFailed"
    assert values(state, more, cleanup) == [[2, 3], "clean"]


class Unreadable:
    def __iter__(self):
        yield 1
        raise ValueError("halfway")


def test_what_cannot_be_iterated_to_its_end_fails_its_task(run):
    with Flow("map") as flow:
        given = Task(Unreadable, name="unreadable")()
        many = inc.map(given)
        whole = Task(lambda x: 0, name="whole")(given)
    state = run(flow)
    assert state[given].message == (
        "its value cannot be iterated over: ValueError('halfway')"
    )
    assert kind(state[many]) == kind(state[whole]) == "TriggerFailed"


@pytest.mark.parametrize("when", ["beforehand", "at run time"])
@pytest.mark.parametrize("static", ["ab", b"ab", 7, None], ids=repr)
def test_strings_bytes_and_what_cannot_be_iterated_are_static(run, static, when):
    with Flow("map") as flow:
        many = pair.map([1, 2], static if when == "beforehand" else give(static))
    assert run(flow)[many].result() == [(1, static), (2, static)]


@pytest.mark.parametrize("when", ["beforehand", "at run time"])
def test_unmapped_inputs_are_the_same_for_every_child(run, when):
    whole = [10, 20, 30]
    with Flow("map") as flow:
        given = whole if when == "beforehand" else give(whole)
        many = pair.map([1, 2], unmapped(given))
    assert run(flow)[many].result() == [(1, whole), (2, whole)]


def test_one_input_may_be_mapped_in_a_plain_call(run):
    with Flow("map") as flow:
        many = pair(mapped([1, 2]), [3, 4])
    assert run(flow)[many].result() == [(1, [3, 4]), (2, [3, 4])]


def test_two_mapped_inputs_go_in_step(run):
    with Flow("map") as flow:
        both = add.map([1, 2, 3], give([10, 20, 30]))
        children = add.map(inc.map(give([1, 2, 3])), both)
    state = run(flow)
    assert values(state, both, children) == [[11, 22, 33], [13, 25, 37]]


def test_two_fan_outs_of_equal_length_are_read_in_step(run):
    with Flow("map") as flow:
        left = inc.map(give([1, 2, 3]))
        right = inc.map(give([10, 20, 30]))
        both = pair.map(left, right)
        ends = as_list(both)
    expected = [(2, 11), (3, 21), (4, 31)]
    assert values(run(flow), both, ends) == [expected, expected]


def test_a_fan_out_is_read_both_by_element_and_as_a_whole(run):
    with Flow("map") as flow:
        many = inc.map(give([1, 2, 3]))
        shares = Task(lambda x, of: x / sum(of), name="share").map(many, unmapped(many))
        beforehand = inc.map([0, 1])
        known = pair.map(beforehand, unmapped(beforehand))
    state = run(flow)
    assert state[shares].result() == [2 / 9, 3 / 9, 4 / 9]
    assert state[known].result() == [(1, [1, 2]), (2, [1, 2])]


def test_a_plain_list_is_read_both_by_element_and_as_a_whole(run):
    with Flow("map") as flow:
        numbers = give([1, 2])
        many = pair.map(numbers, unmapped(numbers))
        both = pair.map(numbers, numbers)
    state = run(flow)
    assert state[many].result() == [(1, [1, 2]), (2, [1, 2])]
    assert state[both].result() == [(1, 1), (2, 2)]


def test_children_can_be_mapped_over_again_as_a_list(run):
    with Flow("map") as flow:
        many = inc.map([1, 2])
        reduced = Task(lambda xs: [*xs, *xs], name="twice")(many)
        again = inc.map(reduced)
    assert run(flow)[again].result() == [3, 4, 3, 4]


def test_a_fan_out_of_many_children(run):
    with Flow("map") as flow:
        many = inc.map(give(range(3_000)))
        again = inc.map(many)
        summed = total(again)
    state = run(flow)
    assert state[summed].result() == sum(range(2, 3_002))
    assert len(state[again]) == 3_000
    assert state[again][2_999].result() == 3_001


def test_a_failure_concerns_only_the_same_child_below(run):
    #  0     1     2      3
    #  ok    bad   skip   ok      first
    #  ok    -     -      bad     second
    #  ok    -     -      -       third
    with Flow("lane") as flow:
        first = scripted_children({1: [ValueError("one")], 2: [SKIP("two")]}, "ok").map(
            give([0, 1, 2, 3])
        )
        second = scripted_children({3: [OSError("three")]}, str).map(first)
        third = Task(lambda x: x, name="third").map(second)
        sure = Task(
            lambda x: type(x).__name__,
            name="sure",
            trigger=all_finished,
            skip_on_upstream_skip=False,
        ).map(third)
    state = run(flow)
    assert kinds(state[first]) == ["Completed", "Failed", "Skipped", "Completed"]
    assert kinds(state[second]) == ["Completed", "TriggerFailed", "Skipped", "Failed"]
    assert kinds(state[third]) == [
        "Completed",
        "TriggerFailed",
        "Skipped",
        "TriggerFailed",
    ]
    assert state[third][1].message == (
        "trigger 'all_successful' refused: scripted[1] failed"
    )
    assert kinds(state[sure]) == ["Completed"] * 4
    assert state[sure].result() == [
        "str",
        "FailedRun",
        "NoneType",
        "FailedRun",
    ]
    assert kind(state) == "Completed"


def test_children_are_retried_alone(run):
    with Flow("lane") as flow:
        first = scripted_children({1: [OSError(), "b"]}, "a", retries=1).map([0, 1, 2])
        second = scripted_children({2: [OSError(), str]}, str, retries=1).map(first)
    state = run(flow)
    assert state[second].result() == ["a", "b", "a"]
    assert [state[first].states.attempts(i) for i in range(3)] == [1, 2, 1]
    assert [state[second].states.attempts(i) for i in range(3)] == [1, 1, 2]


def test_a_parent_is_mapped_though_all_children_fail(run):
    with Flow("map") as flow:
        many = boom.map([1, 2])
    state = run(flow)
    assert kind(state[many]) == "Mapped"
    assert [str(error) for error in state[many].result()] == ["no 1", "no 2"]
    assert kind(state) == "Failed"
    assert state.message == (
        "reference tasks failed: boom[0], boom[1]; it began with boom[0]: "
        "ValueError: no 1"
    )


def test_a_failed_unmapped_input_is_judged_by_each_child(run):
    with Flow("map") as flow:
        many = pair.map([1, 2], unmapped(boom("a")))
        sure = Task(lambda x, y: f"{x} {y}", name="sure", trigger=all_finished).map(
            [1, 2], unmapped(boom("a"))
        )
    state = run(flow)
    assert kinds(state[many]) == ["TriggerFailed", "TriggerFailed"]
    assert state[sure].result() == ["1 no a", "2 no a"]


@pytest.mark.parametrize("source", ["failed", "skipped", "not iterable", "none"])
@pytest.mark.parametrize(
    "trigger", [all_successful, all_finished], ids=lambda t: t.name
)
def test_nothing_to_map_over_is_judged_as_one(run, source, trigger):
    made = {
        "failed": lambda: boom("a"),
        "skipped": skip,
        "not iterable": lambda: give(5),
        "none": lambda: give(None),
    }
    with Flow("map") as flow:
        above = made[source]()
        many = inc.with_options(trigger=trigger).map(above)
        again = inc.map(many)
        summed = total(many)
        cleanup = Task(lambda: "clean", name="cleanup", trigger=all_finished)(
            upstream_tasks=[summed, again]
        )
    state = run(flow)
    expected = {
        ("failed", "all_successful"): "TriggerFailed",
        ("skipped", "all_successful"): "Skipped",
        ("skipped", "all_finished"): "Skipped",
    }.get((source, trigger.name), "Failed")
    assert kind(state[many]) == expected
    below = "Skipped" if expected == "Skipped" else "TriggerFailed"
    assert kind(state[again]) == kind(state[summed]) == below
    if below != "Skipped":
        assert state[cleanup].result() == "clean"
    if expected == "Failed":
        with pytest.raises(MappingMissingIterable):
            state[many].result()


def test_what_cannot_be_mapped_says_why(run):
    with Flow("map") as flow:
        failed = inc.with_options(trigger=all_finished).map(boom("a"))
        static = pair.map(give(5), give("ab"))
    state = run(flow)
    assert state[failed].message == (
        "task 'inc' has nothing to map over: 'boom' ended as "
        "Failed('ValueError: no a')."
    )
    assert "none of its mapped inputs (x, y) can be iterated over" in (
        state[static].message
    )


def test_unequal_lengths_fail_the_task(run):
    with Flow("map") as flow:
        many = pair.map(give([1, 2, 3]), give([1, 2]))
        fan_out = pair.map(inc.map(give([1, 2])), [1, 2, 3])
        below = total(many)
        again = inc.map(many)
    state = run(flow)
    assert kind(state[many]) == kind(state[fan_out]) == "Failed"
    assert "x has 3, y has 2" in state[many].message
    assert "x has 2, y has 3" in state[fan_out].message
    with pytest.raises(MappingLengthMismatch):
        state[many].result()
    assert kind(state[below]) == kind(state[again]) == "TriggerFailed"


def test_mapped_upstream_tasks_count_for_the_length_and_go_in_step(run):
    with Flow("map") as flow:
        first = scripted_children({1: [ValueError()]}).map([0, 1])
        second = inc.map([10, 20], upstream_tasks=[first])
        third = inc.map([10, 20, 30], upstream_tasks=[unmapped(first)])
        wrong = inc.with_options(trigger=all_finished).map(
            [10, 20, 30], upstream_tasks=[first]
        )
        judged = inc.map([10, 20, 30], upstream_tasks=[first])
    state = run(flow)
    assert kinds(state[second]) == ["Completed", "TriggerFailed"]
    assert kinds(state[third]) == ["TriggerFailed"] * 3
    assert kind(state[wrong]) == "Failed"
    assert kind(state[judged]) == "TriggerFailed"


def test_a_skipped_child_skips_the_reduce(run):
    with Flow("map") as flow:
        many = scripted_children({1: [SKIP()]}, 1).map([0, 1])
        summed = total(many)
        sure = Task(lambda xs: list(xs), name="sure", skip_on_upstream_skip=False)(many)
    state = run(flow)
    assert kind(state[summed]) == "Skipped"
    assert state[sure].result() == [1, None]


def test_two_reduces_read_one_fan_out_and_one_another(run):
    with Flow("map") as flow:
        many = inc.map(give([1, 2, 3]))
        low = Task(lambda xs: min(xs), name="low")(many)
        high = Task(lambda xs: max(xs), name="high")(many)
        spread = pair(low, high)
    assert run(flow)[spread].result() == (2, 4)


def test_a_reduce_may_not_change_what_another_reads(run):
    @task
    def drain(xs):
        xs.clear()
        return len(xs)

    with Flow("map") as flow:
        many = inc.map([1, 2])
        drained = drain(many)
        summed = total(many, upstream_tasks=[drained])
    assert values(run(flow), drained, summed) == [0, 5]


def test_fan_out_of_a_fan_out_of_unknown_length(run):
    with Flow("map") as flow:
        rows = Task(lambda n: list(range(n)), name="row").map(give([1, 2, 3]))
        sizes = Task(len, name="size").map(rows)
        flat = Task(lambda rows: [x for row in rows for x in row], name="flat")(rows)
        again = inc.map(flat)
    state = run(flow)
    assert values(state, rows, sizes, again) == [
        [[0], [0, 1], [0, 1, 2]],
        [1, 2, 3],
        [1, 1, 2, 1, 2, 3],
    ]


def test_a_flattened_value_is_mapped_over_item_by_item(run):
    with Flow("flatten") as flow:
        nested = give([[1, 2], [], [3]])
        many = inc.map(flatten(nested))
        whole = as_list(flatten(nested))
        flat_already = inc.map(flatten(give([1, 2])))
        constant = inc.map(flatten([[1], [2, 3]]))
    state = run(flow)
    assert values(state, many, whole) == [[2, 3, 4], [1, 2, 3]]
    assert values(state, flat_already, constant) == [[2, 3], [2, 3, 4]]


def test_flattened_children_are_mapped_over_item_by_item(run):
    #  row:   [0]  -  [0, 1, 2]  [0, 1, 2, 3] failed  5
    with Flow("flatten") as flow:
        rows = scripted_children(
            {1: [SKIP("empty")], 3: [ValueError("bad")], 4: [5]},
            lambda n: list(range(n)),
        ).map(give([1, 2, 3, 4, 5]))
        many = inc.map(flatten(rows))
        seen = kinds_of.with_options(trigger=all_finished, skip_on_upstream_skip=False)(
            flatten(rows)
        )
    state = run(flow)
    assert kinds(state[many]) == [
        "Completed",
        "Skipped",
        *["Completed"] * 3,
        "TriggerFailed",
        "Completed",
    ]
    assert [child.result() for child in state[many] if kind(child) == "Completed"] == [
        *[1, 1, 2, 3],
        6,
    ]
    assert state[seen].result() == [
        "int",
        "NoneType",
        *["int"] * 3,
        "ValueError",
        "int",
    ]


def test_what_can_be_iterated_over_once_is_there_for_every_reader(run):
    each, rows = as_list.map, [[1, 2], [], [3]]
    with Flow("once") as flow:
        # Those that read child by child are in the lane, before anybody flattens.
        made = Task(lambda x: iter(x), name="iterate").map(give(rows))
        early, many, whole = each(made), inc.map(flatten(made)), lists(made)
        plain = Task(lambda x: iter(x), name="iterate")(give([1, 2]))
        first, over, last = as_list(plain), inc.map(plain), as_list(plain)
        nested = Task(lambda x: iter(x), name="iterate")(give(rows))
        flat_whole, flat = as_list(flatten(nested)), inc.map(flatten(nested))
        nested_whole = as_list(nested)
    state = run(flow)
    assert values(state, early, many, whole) == [rows, [2, 3, 4], rows]
    assert values(state, first, over, last) == [[1, 2], [2, 3], [1, 2]]
    assert values(state, flat_whole, flat, nested_whole) == [
        [1, 2, 3],
        [2, 3, 4],
        rows,
    ]


def halfway(rows):
    """An iterator of the user's own, that cannot be iterated over to its end."""

    class Halfway:
        def __iter__(self):
            return self

        def __next__(self):
            if not rows:
                raise ValueError("halfway")
            return rows.pop()

    return Halfway()


@pytest.mark.parametrize("retries", [0, 1])
def test_an_iterator_that_raises_fails_its_child_alone(run, retries):
    with Flow("once") as flow:
        body = Task(lambda x: halfway([x]) if x else [7], name="b", retries=retries)
        made = body.map(give([0, 1, 0]))
        many = inc.map(flatten(made))
    state = run(flow)
    assert kinds(state[made]) == ["Completed", "Failed", "Completed"]
    assert state[made].states[1].message == (
        "its value cannot be iterated over: ValueError('halfway')"
    )
    assert kinds(state[many]) == ["Completed", "TriggerFailed", "Completed"]
    assert [state[many].states[n].result() for n in (0, 2)] == [8, 8]


# -- context -----------------------------------------------------------------------


@task
def read_context(x=None):
    names = (
        "map_index",
        "task_name",
        "task_full_name",
        "task_slug",
        "task_run_count",
        "parameters",
        "flow_name",
    )
    return {name: context.get(name) for name in names}


def test_a_body_reads_its_context(run):
    with Flow("context") as flow:
        Parameter("p", default=1)()
        plain = read_context()
        many = read_context.map([5, 6])
        renamed = read_context.with_options(name="other")()
    state = run(flow)
    common = {"task_run_count": 1, "parameters": {"p": 1}, "flow_name": "context"}
    assert state[plain].result() == {
        **common,
        "map_index": None,
        "task_name": "read_context",
        "task_full_name": "read_context",
        "task_slug": flow.slugs[plain],
    }
    assert state[many].result() == [
        {
            **common,
            "map_index": i,
            "task_name": "read_context",
            "task_full_name": f"read_context[{i}]",
            "task_slug": flow.slugs[many],
        }
        for i in (0, 1)
    ]
    assert state[renamed].result()["task_name"] == "other"


def test_all_tasks_of_a_run_share_its_id(run):
    @task
    def run_id(x=None):
        return context.flow_run_id

    with Flow("context") as flow:
        one, two, many = run_id(), run_id(), run_id.map([1, 2])
    state = run(flow)
    found = {*values(state, one, two), *state[many].result()}
    assert len(found) == 1
    assert run(flow)[one].result() not in found


def test_a_body_and_its_trigger_and_handlers_share_the_context(run):
    def trigger(upstream):
        return context.task_name == "mine"

    def handler(task, old, new):
        assert context.task_name == task.name

    with Flow("context") as flow:
        mine = Task(
            lambda: context.task_name,
            name="mine",
            trigger=trigger,
            state_handlers=[handler],
        )()
    assert run(flow)[mine].result() == "mine"


def test_a_coroutine_and_a_limited_body_read_their_context(run):
    @task
    async def later(x):
        await asyncio.sleep(0)
        return context.map_index

    @task(timeout_seconds=60)
    def limited(x):
        return context.map_index

    with Flow("context") as flow:
        coroutines, bodies = later.map(["abc"] * 2), limited.map([7, 8])
    state = run(flow)
    assert values(state, coroutines, bodies) == [[0, 1], [0, 1]]


def test_a_task_calls_another_as_a_function(run):
    @task
    def outer(x):
        return inc(inc(x))

    with Flow("nested") as flow:
        result = outer(1)
    assert run(flow)[result].result() == 3


def test_a_flow_runs_inside_a_task(run):
    @task
    def outer(x):
        with Flow("inner") as inner:
            many = inc.map([x, x + 1])
            summed = total(many)
        state = inner.run(task_runner=SequentialTaskRunner())
        return state[summed].result()

    with Flow("outer") as flow:
        results = outer.map([1, 2])
    assert run(flow)[results].result() == [5, 7]


def test_tags_arrive(run):
    @task
    def my_tags():
        return sorted(context.task_tags)

    with Flow("tags") as flow, tags("db"):
        tagged = my_tags.with_options(tags=["slow"])()
    assert run(flow)[tagged].result() == ["db", "slow"]


# -- the state of the flow ---------------------------------------------------------


def test_reference_tasks_decide(run):
    with Flow("reference") as flow:
        good, bad = give(1), boom("a")
        flow.set_reference_tasks([good])
    state = run(flow)
    assert kind(state) == "Completed"
    assert kind(state[bad]) == "Failed"
    assert state.result() == {good: 1}
    flow.set_reference_tasks([good, bad])
    state = run(flow)
    assert kind(state) == "Failed"
    with pytest.raises(ValueError, match="no a"):
        state.result()


def test_tasks_without_any_below_are_the_reference(run):
    with Flow("reference") as flow:
        bad = boom("a")
        good = Task(lambda: 1, name="good", trigger=all_finished)(upstream_tasks=[bad])
    state = run(flow)
    assert kind(state) == "Completed"
    assert state.result() == {good: 1}


def test_a_skipped_reference_task_is_a_success(run):
    with Flow("reference") as flow:
        skip()
    assert kind(run(flow)) == "Completed"


def test_one_failed_child_fails_the_flow(run):
    with Flow("reference") as flow:
        many = scripted_children({2: [ValueError("two")]}).map(give([0, 1, 2]))
    state = run(flow)
    assert kind(state) == "Failed"
    assert state.message == (
        "reference tasks failed: scripted[2]; it began with scripted[2]: "
        "ValueError: two"
    )
    with pytest.raises(ValueError, match="two"):
        state.result()
    assert kind(state[many]) == "Mapped"


def test_a_state_finds_tasks_by_name_and_slug(run):
    with Flow("names") as flow:
        one, two = give(1), give(2)
        alone = inc(one)
    state = run(flow)
    assert state["inc"] is state[alone]
    assert state["give-2"].result() == 2
    assert set(state) == {one, two, alone}
    with pytest.raises(KeyError, match="2 tasks of this flow run are called 'give'"):
        state["give"]


def test_a_flow_runs_again_and_again(run):
    with Flow("again") as flow:
        many = inc.map(give([1, 2]))
    assert [run(flow)[many].result() for _ in range(3)] == [[2, 3]] * 3


def test_a_fan_out_that_is_skipped_as_a_whole_counts_once(run):
    with Flow("skipped as a whole") as flow:
        first = scripted(SKIP(), skip_on_upstream_skip=False).map([0, 1, 2])
        second = Task(lambda x, whole: x, name="second").map(first, unmapped(first))
        last = Task(
            lambda x: x,
            name="last",
            trigger=all_failed,
            skip_on_upstream_skip=False,
        )(second)

    state = run(flow)

    assert state[second].is_skipped()
    assert state[last].message == ("trigger 'all_failed' refused: 1 of 1 did not fail")
