"""What the reference pages of the function generations (3.0, 3.8) show and say.

Each example and each statement of the pages on tasks, in our own words. Storage,
caching by policy, transactions and deferred runs are not part of it yet.
"""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest

from prefect_dask_core import (
    Asset,
    MaterializingTask,
    Task,
    TaskRunNameCallbackWithParameters,
    exponential_backoff,
    flow,
    materialize,
    tags,
    task,
    unmapped,
)
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.whole import run_node
from prefect_dask_core.errors import OptionTypeError, OptionValueError, TaskTimeoutError
from prefect_dask_core.states import Completed, State
from prefect_dask_core.testing import FakeShell, fails


def waits_of(made):
    """Seconds that a task waits between its attempts."""
    shell = FakeShell()
    node = Node(0, "x", made, made.identity, (), mapped=False, constant=False)
    run_node(node, {}, {}, shell, measured=False)
    return shell.waits


# -- the decorator -----------------------------------------------------------------


def test_a_function_becomes_a_task():
    @task
    def add(x, y):
        return x + y

    assert isinstance(add, Task)
    assert add(1, y=2) == 3
    assert add.fn(1, 2) == 3
    assert add.name == "add"


def test_a_coroutine_function_becomes_a_task():
    @task
    async def add(x, y):
        return x + y

    assert add.isasync
    assert asyncio.run(add(1, 2)) == 3


def test_a_task_has_tags_and_a_description():
    @task(tags={"a", "b"}, description="This task is empty but it is the first!")
    def first(): ...

    assert first.tags == {"a", "b"}
    assert first.description == "This task is empty but it is the first!"

    @task
    def documented():
        """What it does."""

    assert documented.description == "What it does."


def test_tags_of_the_block_join_those_of_the_task(local_flow_runner):
    seen = []

    @task(tags=["a"], on_completion=[lambda t, run, s: seen.append(run.tags)])
    def first(): ...

    @flow(task_runner=local_flow_runner)
    def body():
        with tags("b"):
            first.submit()
            first()

    body()
    assert seen == [{"a", "b"}] * 2


def test_a_task_has_a_name_and_a_version():
    @task(name="The Ultimate Task", version="7")
    def my_task(): ...

    assert (my_task.name, my_task.version) == ("The Ultimate Task", "7")


def test_a_task_is_attempted_again_after_a_delay():
    made = fails(3, then=1, retries=3, retry_delay_seconds=5)
    assert waits_of(made) == [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    "delays", [[1, 10, 100], exponential_backoff(10), lambda retries: [1] * retries]
)
def test_delays_are_a_list_or_a_callable(delays):
    made = fails(3, then=1, retries=3, retry_delay_seconds=delays)
    expected = delays(3) if callable(delays) else delays
    assert waits_of(made) == expected


def test_at_most_fifty_delays():
    with pytest.raises(OptionValueError, match="at most 50"):
        Task(len, retries=60, retry_delay_seconds=[1] * 51)
    assert exponential_backoff(1)(60) == [float(2**n) for n in range(50)]


def test_delays_can_be_jittered():
    made = fails(1, then=1, retries=1, retry_delay_seconds=100, retry_jitter_factor=1)
    assert 30 < waits_of(made)[0] <= 200


def test_a_condition_stops_retries():
    made = fails(3, then=1, retries=3, retry_condition_fn=lambda t, run, state: False)
    assert made(return_state=True).is_failed()
    assert waits_of(made.with_options(retry_delay_seconds=5)) == []


def test_an_attempt_has_a_limit_in_fractions_of_seconds():
    @task(timeout_seconds=0.05)
    def endless():
        while True:
            pass

    with pytest.raises(TaskTimeoutError):
        endless()
    assert Task(len, timeout_seconds=0).timeout_seconds is None


def test_prints_are_logged_as_the_task_says(caplog):
    @task(log_prints=True)
    def loud():
        print("hello")

    with caplog.at_level("INFO"):
        loud()
    assert "Task 'loud': hello" in caplog.messages
    assert Task(len).log_prints is None


@pytest.mark.parametrize(
    "name",
    [
        "{x} of {y}",
        lambda: "1 of 2",
        lambda parameters: "{x} of {y}".format(**parameters),
    ],
)
def test_a_run_has_a_name_in_three_ways(name, local_flow_runner):
    seen = []

    @task(task_run_name=name, on_completion=[lambda t, r, s: seen.append(r.name)])
    def named(x, y=2): ...

    @flow(task_runner=local_flow_runner)
    def body():
        named.submit(1)

    body()
    assert seen == ["1 of 2"]


def test_a_callable_that_names_runs_says_whether_it_wants_arguments():
    asks = TaskRunNameCallbackWithParameters.is_callback_with_parameters
    assert asks(lambda parameters: "")
    assert not asks(lambda: "")
    assert not asks(str)


def test_a_task_is_called_with_options_of_the_call(local_flow_runner):
    seen = []

    @task
    def first():
        time.sleep(0.1)  # for whoever would not wait
        seen.append(1)

    @task
    def second():
        seen.append(2)

    @flow(task_runner=local_flow_runner)
    def body():
        state = second(wait_for=[first.submit()], return_state=True)
        return isinstance(state, Completed), seen

    assert body() == (True, [1, 2])


def test_a_run_name_is_a_template_or_a_callable():
    with pytest.raises(OptionTypeError, match="task_run_name=3"):
        Task(len, task_run_name=3)


def test_a_value_stands_in_for_a_task_in_drawings():
    @task(viz_return_value=[1])
    def rows(): ...

    @task
    def use(row): ...

    @flow
    def body():
        for row in rows():
            use(row)

    with pytest.warns(UserWarning, match="do not run"):
        text = body.generate_mermaid_graph()
    assert '"use-0"' in text


def test_assets_that_a_task_depends_on():
    made = Task(len, asset_deps=["s3://b/x", Asset("s3://b/y")])
    assert made.asset_deps == (Asset("s3://b/x"), Asset("s3://b/y"))


# -- submit ------------------------------------------------------------------------


@task
def my_task():
    return "hello"


def test_a_task_is_submitted_in_a_flow(flow_runner):
    @flow(task_runner=flow_runner)
    def my_flow():
        my_task.submit()

    assert my_flow() is None


def test_a_submitted_task_is_waited_for(flow_runner):
    @flow(task_runner=flow_runner)
    def my_flow():
        return my_task.submit().wait()

    assert my_flow() is None


def test_the_value_of_a_submitted_task_is_used(flow_runner, capsys):
    @flow(task_runner=flow_runner)
    def my_flow():
        print(my_task.submit().result())

    my_flow()
    assert capsys.readouterr().out == "hello\n"


def test_tasks_of_both_kinds_are_submitted_in_an_asynchronous_flow(flow_runner):
    @task
    async def my_async_task():
        return "bye"

    @flow(task_runner=flow_runner)
    async def my_flow():
        return my_task.submit(), my_async_task.submit()

    assert asyncio.run(my_flow()) == ("hello", "bye")


def test_order_without_data(local_flow_runner):
    seen = []

    @task
    def task_1():
        time.sleep(0.1)  # for whoever would not wait
        seen.append(1)

    @task
    def task_2():
        seen.append(2)

    @flow(task_runner=local_flow_runner)
    def my_flow():
        x = task_1.submit()
        task_2.submit(wait_for=[x])

    my_flow()
    assert seen == [1, 2]


def test_a_submission_gives_its_state_if_asked(flow_runner):
    @flow(task_runner=flow_runner)
    def my_flow():
        state = my_task.submit(return_state=True)
        assert isinstance(state, State)
        return state

    assert isinstance(my_flow(return_state=True), Completed)


# -- map ---------------------------------------------------------------------------


@task
def add_one(x):
    return x + 1


def test_a_mapped_task_is_returned(flow_runner):
    @flow(task_runner=flow_runner)
    def my_flow():
        return add_one.map([1, 2, 3])

    assert my_flow() == [2, 3, 4]


def test_a_mapped_task_is_waited_for(flow_runner):
    @flow(task_runner=flow_runner)
    def my_flow():
        futures = add_one.map([1, 2, 3])
        futures.wait()
        return add_one(10)

    assert my_flow() == 11


def test_the_values_of_a_mapped_task_are_used(flow_runner, capsys):
    @flow(task_runner=flow_runner)
    def my_flow():
        futures = add_one.map([1, 2, 3])
        for x in futures.result():
            print(x)

    my_flow()
    assert capsys.readouterr().out == "2\n3\n4\n"


def test_order_without_data_for_all_children(local_flow_runner):
    seen = []

    @task
    def task_1():
        time.sleep(0.1)  # for whoever would not wait
        seen.append(0)

    @task
    def task_2(y):
        seen.append(y)

    @flow(task_runner=local_flow_runner)
    def my_flow():
        x = task_1.submit()
        return task_2.map([1, 2, 3], wait_for=[x])

    assert my_flow() == [None] * 3
    assert (seen[0], sorted(seen[1:])) == (0, [1, 2, 3])


def test_what_is_no_collection_is_a_constant(flow_runner, capsys):
    @task
    def display(prefix, item):
        print(prefix, item)

    @flow(task_runner=flow_runner)
    def my_flow():
        return display.map("Check it out:", [1, 2, 3])

    assert my_flow() == [None] * 3
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [f"Check it out: {n}" for n in (1, 2, 3)]


def test_an_unmapped_collection_is_a_constant(flow_runner):
    @task
    def add_n_to_items(items, n):
        return [item + n for item in items]

    @flow(task_runner=flow_runner)
    def my_flow():
        return add_n_to_items.map(unmapped([10, 20]), n=[1, 2, 3])

    assert my_flow() == [[11, 21], [12, 22], [13, 23]]


# -- variants ----------------------------------------------------------------------


def test_a_variant_has_another_name_and_other_retries(flow_runner):
    first = my_task.with_options(name="My new task", retries=5, retry_delay_seconds=2)
    assert (first.name, first.retries, first.retry_delay_seconds) == (
        "My new task",
        5,
        2.0,
    )
    assert (my_task.name, my_task.retries) == ("my_task", 0)

    @flow(task_runner=flow_runner)
    def my_flow():
        return my_task.with_options(name="My new task")()

    assert my_flow() == "hello"


@pytest.mark.parametrize(
    "option",
    [
        {"name": ""},
        {"description": ""},
        {"tags": []},
        {"on_completion": []},
        {"on_failure": []},
        {"on_running": []},
        {"retry_condition_fn": None},
        {"viz_return_value": None},
        {"asset_deps": []},
        {"timeout_seconds": None},
    ],
)
def test_an_empty_value_keeps_the_old_one(option):
    (name,) = option
    made = Task(
        len,
        name="a",
        description="b",
        tags=["c"],
        on_completion=[print],
        on_failure=[print],
        on_running=[print],
        retry_condition_fn=print,
        viz_return_value=3,
        asset_deps=["s3://b/x"],
        timeout_seconds=3,
    )
    changed = made.with_options(**option)
    assert getattr(changed.options, name) == getattr(made.options, name)


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("name", "b", "b"),
        ("description", "b", "b"),
        ("tags", ["b"], {"b"}),
        ("task_run_name", "b", "b"),
        ("retries", 2, 2),
        ("retry_delay_seconds", [1, 2], (1.0, 2.0)),
        ("retry_jitter_factor", 0.5, 0.5),
        ("persist_result", False, False),
        ("timeout_seconds", 2, 2.0),
        ("log_prints", False, False),
        ("on_completion", [repr], (repr,)),
        ("on_failure", [repr], (repr,)),
        ("on_running", [repr], (repr,)),
        ("retry_condition_fn", repr, repr),
        ("viz_return_value", 4, 4),
        ("asset_deps", ["s3://b/y"], (Asset("s3://b/y"),)),
    ],
)
def test_a_given_value_takes_the_place_of_the_old_one(name, given, found):
    made = Task(
        len,
        name="a",
        description="a",
        tags=["a"],
        task_run_name="a",
        retries=1,
        retry_delay_seconds=9,
        retry_jitter_factor=9,
        persist_result=True,
        timeout_seconds=9,
        log_prints=True,
        on_completion=[print],
        on_failure=[print],
        on_running=[print],
        retry_condition_fn=print,
        viz_return_value=9,
        asset_deps=["s3://b/x"],
    )
    assert getattr(made.with_options(**{name: given}).options, name) == found
    assert getattr(made.options, name) != found


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("task_run_name", None),
        ("retries", 0),
        ("retry_delay_seconds", 0.0),
        ("retry_jitter_factor", None),
        ("log_prints", None),
        ("persist_result", None),
    ],
)
def test_none_clears_what_it_can_clear(option, default):
    given = {
        "task_run_name": "a",
        "retries": 1,
        "retry_delay_seconds": 1,
        "retry_jitter_factor": 1,
        "log_prints": True,
        "persist_result": True,
    }
    changed = Task(len, **given).with_options(**{option: None})
    assert getattr(changed.options, option) == default


def test_a_variant_keeps_its_version():
    assert Task(len, version="7").with_options(name="b").version == "7"


# -- methods -----------------------------------------------------------------------


class Owner:
    def __init__(self, factor):
        self.factor = factor

    @task
    def method(self, x):
        return self.factor * x

    @task
    @classmethod
    def on_class(cls, x):
        return cls.__name__, x

    @staticmethod
    @task
    def static(x):
        return x

    @task
    @staticmethod
    def over_static(x):
        return x


def test_methods_of_all_kinds_are_tasks(flow_runner):
    owner, other = Owner(2), Owner(3)

    @flow(task_runner=flow_runner)
    def body():
        return [
            owner.method(1),
            other.method.submit(1).result(),
            owner.method.map([1, 2]).result(),
            Owner.on_class.submit(1).result(),
            Owner.static(1),
            owner.over_static(1),
        ]

    assert body() == [2, 3, [2, 4], ("Owner", 1), 1, 1]
    assert Owner.__dict__["on_class"].isclassmethod
    assert Owner.__dict__["over_static"].isstaticmethod
    assert owner.method.ismethod
    assert not Owner.method.ismethod
    assert Owner.__dict__["method"].fn is Owner.__dict__["method"].fn


def test_a_task_has_a_key_of_its_code():
    @task
    def first():
        return 1

    second = first.with_options(name="other")
    assert first.task_key == second.task_key
    assert first.task_key.startswith("first-")
    assert len(first.task_key) == len("first-") + 8


def test_generators_are_known():
    @task
    def numbers():
        yield 1

    assert numbers.isgenerator
    assert not numbers.isasync
    assert list(numbers()) == [1]
    assert not my_task.isgenerator


# -- assets ------------------------------------------------------------------------


def test_a_materializing_task_has_assets():
    @materialize("s3://b/x", by="dbt", retries=1)
    def made(): ...

    assert isinstance(made, MaterializingTask)
    assert (made.materialized_by, made.retries) == ("dbt", 1)
    other = made.with_options(assets=["s3://b/y"], retries=2)
    assert (other.assets, other.retries) == ((Asset("s3://b/y"),), 2)


def test_records_are_made_by_coroutines():
    assert inspect.iscoroutinefunction(my_task.create_run)
    record = asyncio.run(my_task.create_local_run())
    assert record.name == "my_task"
