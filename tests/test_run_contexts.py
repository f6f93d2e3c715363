"""Run contexts, loggers, runtime values and records, inside and outside of runs."""

import asyncio
import datetime
import logging
import re
import uuid
from dataclasses import replace

import pytest

from prefect_dask_core import (
    FlowRunContext,
    TaskRunContext,
    flow,
    get_run_context,
    get_run_logger,
    runtime,
    tags,
    task,
)
from prefect_dask_core.errors import MissingContextError
from prefect_dask_core.states import Pending, Running, Scheduled


def test_there_is_no_context_outside_of_runs():
    assert FlowRunContext.get() is None
    assert TaskRunContext.get() is None
    for ask in (get_run_context, get_run_logger):
        with pytest.raises(MissingContextError, match="there is no run here") as caught:
            ask()
        assert isinstance(caught.value, RuntimeError)


def test_runtime_values_are_empty_outside_of_runs():
    assert (runtime.task_run.id, runtime.flow_run.id) == (None, None)
    assert (runtime.task_run.tags, runtime.flow_run.tags) == ([], [])
    assert (runtime.task_run.parameters, runtime.flow_run.parameters) == ({}, {})
    assert (runtime.task_run.run_count, runtime.flow_run.run_count) == (0, 0)
    assert runtime.flow_run.scheduled_start_time is None
    assert runtime.flow_run.root_flow_run_id is None


@task(tags=["own"], retries=1)
def look(x, y=2):
    found = TaskRunContext.get()
    around = FlowRunContext.get()
    return (found.task.name, found.task_run, dict(found.parameters)), (
        around and (around.detached, around.flow_run.flow_name, around.flow_run.name)
    )


def test_a_task_knows_its_run_and_its_flows(flow_runner):
    @flow(task_runner=flow_runner, flow_run_name="the run")
    def body():
        context = FlowRunContext.get()
        future = look.submit(1)
        assert get_run_context() == context
        assert context.flow is body
        assert not context.detached
        assert isinstance(context.flow_run.state, Running)
        return future.task_run_id, future.result(), look(5), context.flow_run.id

    with tags("around"):
        run_id, submitted, called, flow_id = body()
    (name, record, parameters), around = submitted
    assert (name, parameters) == ("look", {"x": 1, "y": 2})
    assert (record.id, record.name) == (run_id, "look-0")
    assert (record.flow_run_id, record.tags) == (flow_id, {"own", "around"})
    assert (record.retries, record.run_count) == (1, 1)
    assert record.start_time.tzinfo is datetime.timezone.utc
    assert around == (True, "body", "the run")
    assert called[0][1].name == "look-1"
    assert called[0][2] == {"x": 5, "y": 2}


def test_a_task_alone_has_no_flow():
    (_, record, _), around = look(1)
    assert around is None
    assert isinstance(record.id, uuid.UUID)
    assert (record.name, record.flow_run_id) == ("look", None)


def test_a_record_lists_the_runs_above(flow_runner):
    @task
    def inputs(x, y):
        return TaskRunContext.get().task_run.task_inputs

    @flow(task_runner=flow_runner)
    def body():
        one, two = look.submit(1), look.submit(2)
        found = inputs.submit(one, {"a": two}, wait_for=[one]).result()
        return found, one.task_run_id, two.task_run_id

    found, one, two = body()
    assert found == {"x": {one}, "y": {two}, "wait_for": {one}}


def test_a_record_lists_the_runs_that_were_called(flow_runner):
    @task
    def numbers():
        return [1, 2]

    @task
    def note(given, other=None):
        return TaskRunContext.get().task_run.task_inputs, runtime.task_run.id

    @flow(task_runner=flow_runner)
    def body():
        found = numbers()
        first, called = note(found)
        second = note.submit(found, other=first).result()[0]
        small = note(3, other=None)[0]
        return first, second, small, note.submit(numbers.submit()).result()[0], called

    first, second, small, submitted, called = body()
    ids = {key: {str(run) for run in runs} for key, runs in second.items()}
    assert set(first) == {"given"}
    assert ids["given"] == {str(run) for run in first["given"]}
    assert small == {}
    assert set(submitted) == {"given"}
    assert submitted != first
    assert called not in ids["given"]


def test_a_flow_in_a_task_hides_the_task(flow_runner):
    @flow
    def inner():
        return TaskRunContext.get(), get_run_context().flow_run.flow_name

    @task
    def middle():
        return inner(), TaskRunContext.get().task.name

    @flow(task_runner=flow_runner)
    def outer():
        return middle.submit().result()

    assert outer() == ((None, "inner"), "middle")


def test_runtime_values_are_those_of_the_run(flow_runner):
    @task
    def values(x):
        return [
            getattr(runtime.task_run, name)
            for name in ("name", "task_name", "tags", "parameters", "run_count")
        ] + [runtime.flow_run.name, runtime.flow_run.parameters]

    @flow(task_runner=flow_runner, version="3", flow_run_name="run of {n}")
    def body(n):
        own = runtime.flow_run
        return values.submit(1), own.flow_version, own.run_count, own.id, own.tags

    with tags("t"):
        found, version, count, run_id, of_flow = body(4)
    assert found == ["values-0", "values", ["t"], {"x": 1}, 1, "run of 4", {"n": 4}]
    assert (version, count, of_flow) == ("3", 1, ["t"])
    assert uuid.UUID(run_id)


def test_a_run_has_a_logger(flow_runner, caplog):
    @task
    def speak():
        get_run_logger().info("hello")

    @flow(task_runner=flow_runner)
    def body():
        get_run_logger().warning("begin")
        speak.submit().wait()

    with caplog.at_level(logging.INFO):
        body()
    assert any(re.match("Flow run 'body-.{6}': begin", m) for m in caplog.messages)
    assert "Task 'speak-0': hello" in caplog.messages


# -- records -----------------------------------------------------------------------


def test_a_run_is_recorded_without_running(flow_runner):
    given = uuid.uuid4()

    @flow(task_runner=flow_runner)
    def body():
        one = look.submit(1)
        record = asyncio.run(
            look.create_run(id=given, parameters={"x": one}, wait_for=[one])
        )
        return record, one.task_run_id, FlowRunContext.get().flow_run.id

    record, above, flow_id = body()
    assert (record.id, record.name, record.flow_run_id) == (given, "look-1", flow_id)
    assert record.task_inputs == {"x": {above}, "wait_for": {above}}
    assert record.task_key.startswith("look-")
    assert isinstance(record.state, Pending)
    assert (record.run_count, record.total_run_time) == (0, 0.0)


def test_a_deferred_run_is_scheduled():
    record = asyncio.run(look.create_local_run(deferred=True))
    assert isinstance(record.state, Scheduled)
    assert (record.name, record.flow_run_id, record.tags) == ("look", None, {"own"})


class NoServer:
    def __getattr__(self, name):
        raise AssertionError(f"the record asked its client for {name}")


def test_a_record_asks_no_server():
    record = asyncio.run(look.create_run(client=NoServer(), parameters={"x": 1}))
    assert isinstance(record.state, Pending)


def test_a_local_record_takes_what_the_other_takes(flow_runner):
    given, other = uuid.uuid4(), uuid.uuid4()

    @task
    def middle():
        return asyncio.run(
            look.create_local_run(
                client=NoServer(),
                id=given,
                parameters={"x": 1},
                flow_run_context=FlowRunContext.get(),
                parent_task_run_context=TaskRunContext.get(),
                wait_for=[look.submit(1)],
                extra_task_inputs={"z": {other}},
                deferred=True,
            )
        )

    @flow(task_runner=flow_runner)
    def body():
        future = middle.submit()
        return future.result(), future.task_run_id, FlowRunContext.get().flow_run.id

    record, parent, flow_id = body()
    assert (record.id, record.flow_run_id) == (given, flow_id)
    assert record.task_inputs["__parents__"] == {parent}
    assert record.task_inputs["z"] == {other}
    assert len(record.task_inputs["wait_for"]) == 1
    assert isinstance(record.state, Scheduled)


def of_another_flow(flow_id):
    found = FlowRunContext.get()
    return replace(found, flow_run=replace(found.flow_run, id=flow_id))


def test_a_record_takes_contexts_and_more_inputs(flow_runner):
    other = uuid.uuid4()

    @task
    def middle():
        return asyncio.run(
            look.create_run(
                flow_run_context=of_another_flow(other),
                parent_task_run_context=TaskRunContext.get(),
                extra_task_inputs={"z": {other}},
            )
        )

    @flow(task_runner=flow_runner)
    def body():
        future = middle.submit()
        return future.result(), future.task_run_id

    record, parent = body()
    assert record.flow_run_id == other
    assert record.task_inputs == {"__parents__": {parent}, "z": {other}}
