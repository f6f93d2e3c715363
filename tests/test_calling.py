"""Calls of tasks in function flows, in bodies and elsewhere; submit and map."""

import asyncio
import contextvars
import functools
import threading
import time
import uuid
from collections import namedtuple
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dask
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import (
    Flow,
    FutureList,
    PrefectFuture,
    SequentialTaskRunner,
    Task,
    allow_failure,
    context,
    flatten,
    flow,
    mapped,
    opaque,
    quote,
    runtime,
    tags,
    task,
    triggers,
    unmapped,
)
from prefect_dask_core.cache_validators import all_inputs
from prefect_dask_core.errors import (
    InputError,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
    TaskTimeoutError,
    UnfinishedRun,
    UpstreamTaskError,
)
from prefect_dask_core.signals import PAUSE, SKIP
from prefect_dask_core.states import Completed, Crashed, Failed, Skipped, TriggerFailed
from prefect_dask_core.testing import fails
from tests.small_tasks import double, fail


@task
def same(x):
    return x


@task
def both(x, y):
    return x, y


def run(function, runner, *args, **options):
    return flow(lambda: function(*args), task_runner=runner, **options)()


def end_of(future):
    """State of a run that has ended; states of children one by one."""
    future.wait()
    if isinstance(future, FutureList) and not future.is_single():
        return future.states
    state = future.state
    return list(state.states) if state.is_mapped() else state


# -- by place ----------------------------------------------------------------------


def test_a_call_means_what_its_place_says(flow_runner):
    @task
    def inside():
        return double(4)

    with Flow("graph") as graph:
        bound = double(3)
    assert isinstance(bound, Task)
    assert bound in graph
    assert double(3) == 6
    assert run(lambda: double(3), flow_runner) == 6
    assert run(inside, flow_runner) == 8
    assert run(lambda: inside.submit().result(), flow_runner) == 8


def test_a_graph_can_be_built_in_a_running_flow(flow_runner):
    def body():
        with Flow("graph") as graph:
            bound = double(3)
        return graph.run(task_runner=flow_runner)[bound].result()

    assert run(body, flow_runner) == 6


@pytest.mark.parametrize("method", ["submit", "map"])
def test_there_is_nothing_to_submit_to_elsewhere(method):
    said = "outside of a flow; do it inside a function with @flow"
    with pytest.raises(MissingContextError, match=said) as caught:
        getattr(double, method)([1])
    assert isinstance(caught.value, RuntimeError)


def test_a_graph_that_is_built_takes_no_submissions():
    with Flow("graph"), pytest.raises(MissingContextError, match="call it there"):
        double.submit(1)


@pytest.mark.parametrize("method", ["delay", "apply_async", "serve", "aserve"])
def test_task_servers_are_refused_with_what_to_do_instead(method, flow_runner):
    def ask():
        asked = getattr(double, method)()
        return asyncio.run(asked) if method == "aserve" else asked

    for call in (ask, lambda: run(ask, flow_runner)):
        with pytest.raises(MissingContextError, match=r"use \.submit\(\) or \.map\(\)"):
            call()


def test_deferred_runs_are_refused(flow_runner):
    with pytest.raises(OptionValueError, match="deferred=True is not supported yet"):
        run(lambda: double.map([1], deferred=True), flow_runner)


def test_a_call_runs_the_whole_task():
    seen = []
    slow = Task(lambda x: time.sleep(x), name="slow", timeout_seconds=0.05)
    with pytest.raises(TaskTimeoutError, match=r"slow ran longer than 0\.05 s"):
        slow(0.3)
    twice = fails(2, then="ok", retries=2, on_completion=[lambda *a: seen.append(a)])
    assert twice() == "ok"
    (seen_task, record, state) = seen[0]
    assert seen_task.name == "fails"
    assert (record.run_count, record.name, state.result()) == (3, "fails", "ok")


def test_a_call_gives_its_state_if_asked(flow_runner):
    def body():
        good, bad = double(1, return_state=True), fail("x", return_state=True)
        return quote((good, bad, double.submit(2, return_state=True)))

    good, bad, submitted = run(body, flow_runner)
    assert good.result() == 2
    assert isinstance(bad, Failed)
    assert submitted.result() == 4
    states = run(lambda: quote(double.map([1, 2], return_state=True)), flow_runner)
    assert [state.result() for state in states] == [2, 4]


def test_a_skipped_call_has_no_value():
    @task
    def skipped():
        raise SKIP("not today")

    assert skipped() is None
    assert isinstance(skipped(return_state=True), Skipped)


def test_a_state_that_is_returned_is_that_of_the_run():
    made = Task(lambda: Failed("by hand"), name="made")
    assert made(return_state=True).message == "by hand"
    assert Task(lambda: Completed("by hand"), name="made")() is None


def test_an_exit_in_a_submitted_run_is_a_crash(flow_runner):
    @task
    def leave():
        raise SystemExit(3)

    def body():
        future = leave.submit()
        with pytest.raises(SystemExit):
            future.result()
        return isinstance(future.state, Crashed)

    assert run(body, flow_runner)


def test_a_paused_run_has_ended_for_now(flow_runner):
    @task
    def wait_for_somebody():
        raise PAUSE("ask")

    def body():
        future = wait_for_somebody.submit()
        future.wait()
        with pytest.raises(UnfinishedRun):
            future.result()
        return future.state.is_paused(), end_of(double.submit(future)).name

    assert run(body, flow_runner) == (True, "WaitingForUpstream")


def test_a_call_below_a_paused_child_waits_too(flow_runner):
    @task
    def ask(x):
        if x == 2:
            raise PAUSE("ask")
        return x

    def body():
        futures = ask.map([1, 2])
        return [
            double(future, return_state=True).name
            for future in (futures, futures[1], [futures[1]])
        ]

    assert run(body, flow_runner) == ["WaitingForUpstream"] * 3


# -- arguments ---------------------------------------------------------------------

Point = namedtuple("Point", "x y")


@dataclass
class Row:
    name: str
    cells: list


class Model(pydantic.BaseModel):
    name: str
    cell: Any
    cells: dict = {}


def test_futures_are_found_wherever_they_are(flow_runner):
    def body():
        one, two = double.submit(1), double.submit(2)
        given = [
            [one, 3],
            (one, [two]),
            Point(one, 0),
            {"a": {"b": one}},
            {one: "key"},
            {one, two},
            Row("r", [one, two]),
            [allow_failure(one)],
            Model(name="m", cell=one, cells={"b": [two]}),
        ]
        return [same.submit(value).result() for value in given]

    assert run(body, flow_runner) == [
        [2, 3],
        (2, [4]),
        Point(2, 0),
        {"a": {"b": 2}},
        {2: "key"},
        {2, 4},
        Row("r", [2, 4]),
        [2],
        Model(name="m", cell=2, cells={"b": [4]}),
    ]


def test_futures_are_found_in_a_call_too(flow_runner):
    def body():
        one = double.submit(1)
        return same({"a": [one]}), same(double.map([1, 2])), same(x=one)

    assert run(body, flow_runner) == ({"a": [2]}, [2, 4], 2)


def test_what_is_quoted_is_not_looked_into(flow_runner):
    def body():
        one = double.submit(1)
        kept = same(quote([one]))
        return kept[0] == one, isinstance(kept[0], PrefectFuture)

    assert run(body, flow_runner) == (True, True)


def test_what_is_opaque_is_a_value_or_not_looked_into(flow_runner):
    def body():
        one = double.submit(1)
        kept = same(opaque([one]))
        state = double(2, return_state=True)
        return (
            same.submit(opaque(one)).result(),
            same(opaque(one)),
            same(opaque(state)),
            same.map([1, 2], wait_for=[opaque(one)]).result(),
            isinstance(kept[0], PrefectFuture),
        )

    assert run(body, flow_runner) == (2, 2, 4, [1, 2], True)


def test_completed_states_are_replaced_by_their_values(flow_runner):
    def body():
        state = double.submit(1, return_state=True)
        return same.submit([state]).result(), double(state), double.submit(state)

    assert run(lambda: quote(body()), flow_runner)[:2] == ([2], 4)


def test_a_failed_state_refuses_what_reads_it(flow_runner):
    def body():
        bad = fail.submit("x", return_state=True)
        with pytest.raises(UpstreamTaskError):
            double(bad)
        with pytest.raises(UpstreamTaskError, match="is mapped over x"):
            double.map(bad)
        states = [
            end_of(double.submit(bad)),
            end_of(same.submit([bad])),
            end_of(double.submit(1, wait_for=[bad])),
        ]
        return [type(state) for state in states]

    assert run(body, flow_runner) == [TriggerFailed] * 3


def test_a_value_that_cannot_stand_there_fails_the_run(flow_runner):
    def body():
        future = same.submit({same.submit([1])})
        return quote(end_of(future))

    state = run(body, flow_runner)
    assert isinstance(state, Failed)
    with pytest.raises(InputError, match="cannot be put together: TypeError"):
        state.result()


def test_methods_and_variable_arguments_are_submitted(flow_runner):
    class Owner:
        @task
        def method(self, x, *rest, **more):
            return x, rest, more

    def body():
        owner = Owner()
        one = double.submit(1)
        return owner.method.submit(one, one, 3, z=one).result()

    assert run(body, flow_runner) == (2, (2, 3), {"z": 2})


def test_arguments_that_do_not_fit_are_refused_at_once(flow_runner):
    for call in (double, double.submit, double.map):
        with pytest.raises(ParameterBindError, match="task 'double'"):
            run(functools.partial(call, 1, 2, 3), flow_runner)


def test_two_spellings_of_what_comes_first_are_refused():
    with pytest.raises(OptionTypeError, match="two spellings of one option"):
        double(1, wait_for=[], upstream_tasks=[])


def test_options_of_one_call(flow_runner):
    def body():
        args = {"name": "other"}
        return double.submit(1, task_args=args).name, double.map([1], task_args=args)

    assert run(body, flow_runner) == ("other-0", [2])


# -- upstream ----------------------------------------------------------------------


def test_what_reads_a_failure_does_not_run(flow_runner):
    seen = []
    note = Task(seen.append, name="note")

    def body():
        bad = fail.submit("x")
        states = [end_of(note.submit(bad)), end_of(note.submit(1, wait_for=bad))]
        with pytest.raises(UpstreamTaskError) as caught:
            note(bad)
        return [*map(type, states)], repr(caught.value.__cause__)

    assert run(body, flow_runner) == ([TriggerFailed] * 2, "ValueError('no x')")
    assert not seen


def test_a_failure_is_allowed_by_name(flow_runner):
    def body():
        bad = fail.submit("x")
        below = same.submit(bad)
        return (
            repr(same.submit(allow_failure(bad)).result()),
            repr(same.submit([allow_failure(bad), 1]).result()),
            repr(same(allow_failure(bad))),
            type(same.submit(allow_failure(below)).result()).__name__,
            same.submit(3, wait_for=[allow_failure(bad)]).result(),
            type(end_of(both.submit(allow_failure(bad), bad))).__name__,
        )

    assert run(body, flow_runner) == (
        "ValueError('no x')",
        "[ValueError('no x'), 1]",
        "ValueError('no x')",
        "FailedRun",
        3,
        "TriggerFailed",
    )


def test_a_trigger_decides_in_function_flows_too(flow_runner):
    clean_up = Task(lambda x: repr(x), name="clean", trigger=triggers.all_finished)
    seen = Task(
        lambda x: x, name="seen", trigger=lambda up: [s.name for s in up.values()]
    )

    def body():
        bad = fail.submit("x")
        calls = clean_up.submit(bad).result(), clean_up(bad)
        return calls, seen.submit([bad, double.submit(2)]).result()[1]

    assert run(body, flow_runner) == (("ValueError('no x')",) * 2, 4)


def test_a_skip_is_passed_on(flow_runner):
    @task
    def skipped():
        raise SKIP("not today")

    def body():
        future = skipped.submit()
        lenient = double.with_options(skip_on_upstream_skip=False)
        return end_of(double.submit(future)).is_skipped(), lenient.submit(1).result()

    assert run(body, flow_runner) == (True, 2)


# -- map ---------------------------------------------------------------------------


def test_map_runs_once_per_item(flow_runner):
    def body():
        futures = double.map([1, 2, 3])
        again = double.map(futures)
        return futures, again.result(), same(futures), sum(f.result() for f in again)

    assert run(body, flow_runner) == ([2, 4, 6], [4, 8, 12], [2, 4, 6], 24)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        (range(2), [0, 1]),
        ({5}, [5]),
        ([], []),
    ],
)
def test_collections_are_mapped_over(given, values, flow_runner):
    assert run(lambda: same.map(given), flow_runner) == values


def test_a_generator_is_mapped_over(flow_runner):
    assert run(lambda: same.map(x for x in range(3)), flow_runner) == [0, 1, 2]


def test_what_is_no_collection_is_the_same_for_all(flow_runner):
    def body():
        one = double.submit(1)
        return (
            both.map([1, 2], "ab").result(),
            both.map(unmapped([7]), y=[1, 2]).result(),
            both.map([1, 2], unmapped(one)).result(),
            both.map([1, 2], allow_failure(unmapped(one))).result(),
            both.map([1, 2], one).result(),
        )

    assert run(body, flow_runner) == (
        [(1, "ab"), (2, "ab")],
        [([7], 1), ([7], 2)],
        [(1, 2), (2, 2)],
        [(1, 2), (2, 2)],
        [(1, 2), (2, 2)],
    )


def test_defaults_are_not_mapped_over(flow_runner):
    @task
    def scale(x, factors=(1, 10)):
        return [x * factor for factor in factors]

    assert run(lambda: scale.map([1, 2]), flow_runner) == [[1, 10], [2, 20]]


def test_lengths_that_cannot_be_are_refused_at_once(flow_runner):
    with pytest.raises(MappingLengthMismatch, match="x has 2, y has 3"):
        run(lambda: both.map([1, 2], [1, 2, 3]), flow_runner)
    with pytest.raises(MappingMissingIterable):
        run(lambda: both.map(1, "ab"), flow_runner)


def test_a_length_only_the_run_can_tell_fails_there(flow_runner):
    def body():
        futures = both.map(same.submit([1, 2]), [1, 2, 3])
        assert isinstance(end_of(futures), Failed)
        with pytest.raises(MappingLengthMismatch):
            len(futures)
        with pytest.raises(MappingLengthMismatch):
            futures.result()

    run(body, flow_runner)


def test_a_future_can_be_mapped_over_whatever_it_gives(flow_runner):
    def body():
        lists = same.map([[1, 2], [3]])
        return (
            double.map(same.submit([1, 2])).result(),
            double.map(same.submit({"a": 1})).result(),
            double.map(lists[0]).result(),
            double.map(flatten(lists)).result(),
            double.map([same.submit(5), 6]).result(),
            same.map([[same.submit(5)], [6]]).result(),
            same.map(lists[:1]).result(),
            same.submit(mapped([1, 2])).result(),
        )

    assert run(body, flow_runner) == (
        [2, 4],
        ["aa"],
        [2, 4],
        [2, 4, 6],
        [10, 12],
        [[5], [6]],
        [[1, 2]],
        [1, 2],
    )


def test_a_failure_refuses_only_the_children_that_read_it(flow_runner):
    def body():
        bad = fail.submit("x")
        over_list = double.map([1, bad, 3])
        over_children = double.map(fail.map([1]) + double.map([2]))
        over_none = double.map(bad)
        return (
            [type(state).__name__ for state in end_of(over_list)],
            [type(state).__name__ for state in end_of(over_children)],
            type(end_of(over_none)).__name__,
            [f.result(raise_on_failure=False) for f in (over_list[0], over_list[2])],
        )

    assert run(body, flow_runner) == (
        ["Completed", "TriggerFailed", "Completed"],
        ["TriggerFailed", "Completed"],
        "TriggerFailed",
        [2, 6],
    )


def test_a_child_is_allowed_to_have_failed(flow_runner):
    def body():
        bad = fail.submit("x")
        return [repr(v) for v in same.map([allow_failure(bad), 1]).result()]

    assert run(body, flow_runner) == ["ValueError('no x')", "1"]


def test_children_wait_for_what_comes_first(flow_runner):
    def body():
        bad = fail.submit("x")
        return [type(s).__name__ for s in end_of(double.map([1, 2], wait_for=[bad]))]

    assert run(body, flow_runner) == ["TriggerFailed"] * 2


# -- generators and coroutines -----------------------------------------------------


@task
def count(n):
    yield from range(n)
    return "end"


def test_a_called_generator_hands_out_values_and_a_submitted_one_a_list(flow_runner):
    def body():
        return list(count(3)), count.submit(3).result(), count.map([1, 2]).result()

    assert run(body, flow_runner) == ([0, 1, 2], [0, 1, 2], [[0], [0, 1]])


def test_a_generator_that_fails_starts_again():
    begun = []

    @task(retries=1)
    def flaky():
        begun.append(1)
        yield 1
        if len(begun) == 1:
            raise ValueError("again")
        yield 2

    assert list(flaky()) == [1, 1, 2]


def test_a_generator_runs_in_its_context_only_while_it_is_read():
    @task
    def names():
        yield context.task_name
        yield context.task_name

    found = names()
    assert next(found) == "names"
    assert context.get("task_name") is None
    assert next(found) == "names"


def test_an_asynchronous_generator_is_read():
    @task
    async def numbers():
        yield 1
        await asyncio.sleep(0)
        yield 2

    async def read():
        return [n async for n in numbers()]

    assert asyncio.run(read()) == [1, 2]


def test_coroutines_and_asynchronous_generators_are_submitted(flow_runner):
    @task
    async def plus(x):
        await asyncio.sleep(0)
        return x + 1

    @task
    async def numbers():
        yield 1
        yield 2

    def body():
        return plus.submit(1), numbers.submit(), plus.map([1, 2])

    assert run(lambda: list(body()), flow_runner) == [2, [1, 2], [2, 3]]


def test_a_coroutine_is_cancelled_at_its_limit():
    ended = []

    @task(timeout_seconds=0.05)
    async def slow():
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(1)

    with pytest.raises(TaskTimeoutError):
        asyncio.run(slow())
    assert ended == [1]


# -- nesting -----------------------------------------------------------------------


def test_a_task_can_submit_others_and_return_their_futures(flow_runner):
    @task
    def fan_out(n):
        return double.map(range(n))

    def body():
        return fan_out.submit(3).result(), fan_out(2)

    assert run(body, flow_runner) == ([0, 2, 4], [0, 2])
    # Outside of a flow the runner is the default one.
    with context(_task_runner=flow_runner):
        assert fan_out(2) == [0, 2]


def test_what_a_task_submitted_is_waited_for(local_flow_runner):
    seen = []
    note = Task(seen.append, name="note")

    @task
    def leave_it():
        note.submit(1)

    run(leave_it, local_flow_runner)
    assert seen == [1]


def test_runs_below_a_task_have_ids_of_their_own(flow_runner):
    @task
    def run_id():
        return str(double.submit(1).task_run_id)

    def body():
        own = str(double.submit(1).task_run_id)
        return [run_id.submit().result(), run_id.submit().result(), run_id(), own]

    assert len(set(run(body, flow_runner))) == 4


def test_asynchronous_and_generating_bodies_submit_too(local_flow_runner):
    seen = []
    note = Task(seen.append, name="note")

    @task
    async def asynchronous():
        note.submit("a")
        return double.submit(1)

    @task
    def generating():
        note.submit("b")
        yield 1
        note.submit("c")
        yield 2

    @task
    async def both_at_once():
        note.submit("d")
        yield 1

    @flow(task_runner=local_flow_runner)
    async def body():
        found = [n async for n in both_at_once()]
        return await asynchronous(), list(generating()), found

    assert asyncio.run(body()) == (2, [1, 2], [1])
    assert sorted(seen) == ["a", "b", "c", "d"]


def test_a_run_below_a_task_knows_its_own_id(flow_runner):
    @task
    def inner():
        return runtime.task_run.id

    @task
    def outer():
        future = inner.submit()
        return str(future.task_run_id), future.result(), inner.map.__name__

    told, found, _ = run(lambda: outer.submit().result(), flow_runner)
    assert told == found


expressions = st.recursive(
    st.integers(-5, 5),
    lambda inner: st.one_of(
        st.tuples(st.just("double"), inner),
        st.tuples(st.just("same"), st.lists(inner, max_size=3)),
        st.tuples(st.just("map"), st.lists(inner, max_size=3)),
        st.tuples(st.just("call"), inner),
    ),
    max_leaves=8,
)


def evaluated(expression):
    if not isinstance(expression, tuple):
        return expression
    kind, inner = expression
    if kind in ("double", "call"):
        return 2 * evaluated(inner)
    found = [evaluated(item) for item in inner]
    return found if kind == "same" else [2 * item for item in found]


def submitted(expression):
    if not isinstance(expression, tuple):
        return expression
    kind, inner = expression
    if kind == "double":
        return double.submit(submitted(inner))
    if kind == "call":
        return double(submitted(inner))
    found = [submitted(item) for item in inner]
    return same.submit(found) if kind == "same" else double.map(found)


@given(expressions)
def test_a_flow_gives_what_a_plain_evaluation_gives(expression):
    found = run(lambda: [submitted(expression)], SequentialTaskRunner())
    assert found == [evaluated(expression)]


# -- context -----------------------------------------------------------------------


def test_tags_of_the_block_are_those_of_the_run(flow_runner):
    @task(tags=["own"])
    def found():
        return sorted(context.task_tags)

    def body():
        with tags("block"):
            return found.submit().result(), found(), found.map.__name__

    with tags("around"):
        submitted, called, _ = run(body, flow_runner)
    assert submitted == called == ["around", "block", "own"]


def test_tags_of_the_block_are_those_of_what_the_run_runs(flow_runner):
    @task
    def found():
        return sorted(context.task_tags)

    @task
    def outer():
        with tags("within"):
            first = found.submit().result()
        return first, found(), found.submit().result()

    def body():
        with tags("block"):
            return outer(), outer.submit().result(), outer.map.__name__

    expected = (["block", "within"], ["block"], ["block"])
    assert run(body, flow_runner)[:2] == (expected, expected)


def test_submissions_from_threads_have_distinct_names(flow_runner):
    def body():
        names = []

        def submit():
            for _ in range(20):
                names.append(double.submit(1).name)

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(submit,))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(set(names))

    assert run(body, flow_runner) == 80


class Requests:
    """A runner that keeps what it was asked for."""

    def __init__(self, runner):
        self.runner = runner
        self.requests = []

    def run(self, flow_run):
        return self.runner.run(flow_run)

    def session(self, name, variables, run_id):
        session = self.runner.session(name, variables, run_id)
        add = session.add

        def noted(request):
            self.requests.append(request)
            return add(request)

        session.add = noted
        return session


def test_annotations_reach_the_runner(local_flow_runner):
    runner = Requests(local_flow_runner)
    heavy = double.with_options(annotations={"resources": {"GPU": 1}, "priority": 1})

    def body():
        with dask.annotate(priority=5, retries=2, color="blue"):
            double.submit(1)
            heavy.submit(1)

    run(body, runner)
    assert [request.annotations for request in runner.requests] == [
        {"priority": 5, "retries": 2},
        {"resources": {"GPU": 1}, "priority": 1, "retries": 2},
    ]


def test_a_flow_that_submits_nothing_opens_no_session():
    class Closed:
        def run(self, flow_run): ...

    assert run(lambda: double(1), Closed()) == 2
    with pytest.raises(OptionTypeError, match="is no task runner for function flows"):
        run(lambda: double.submit(1), Closed())


def test_a_mapped_list_is_a_list_of_futures(flow_runner):
    def body():
        return quote(isinstance(double.map([1]), FutureList))

    assert run(body, flow_runner)


def test_values_are_cached_between_runs_and_calls(local_flow_runner):
    begun = []

    @task(cache_for=timedelta(hours=1), cache_key=uuid.uuid4().hex)
    def costly(x):
        begun.append(x)
        return x + 1

    def body():
        return costly.submit(1), costly.map([2, 3])

    with pytest.warns(UserWarning, match="'costly' is mapped with cache_for and no"):
        assert run(lambda: [*body()], local_flow_runner) == [2, [3, 4]]
    validated = costly.with_options(cache_validator=all_inputs)
    assert validated(1) == 2
    assert run(lambda: validated.submit(3), local_flow_runner) == 4
    assert validated(9) == 10
    assert validated(9) == 10
    assert begun == [1, 2, 3, 9]
