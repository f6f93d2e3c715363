"""Quick runs: what a body gives without its pipeline is what the pipeline gives."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import Task, signals, triggers
from prefect_dask_core.context import context
from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.block_results import BlockResult
from prefect_dask_core.engine.effects import Raised, Returned
from prefect_dask_core.engine.packing import Packer, unpack
from prefect_dask_core.engine.quick import is_quick
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import Each, Fixed, Items, Local, StepInput, Whole
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.states import Completed, Failed, Skipped
from prefect_dask_core.testing import Script


class SlowShell(ThreadShell):
    """Sends every call through the pipeline."""

    def quick_calls(self, task: Any, variables: Any, mapped: bool) -> None:
        return None


def numbers() -> Any:
    """A body that yields."""

    def generate(x: Any = None) -> Any:
        yield x
        yield context.task_full_name

    return generate


async def later(x: Any = None) -> Any:
    return x, context.map_index


def loops(x: Any = None) -> Any:
    count = context.get("task_loop_count", 1)
    if count < 3:
        raise signals.LOOP(result=(x, count))
    return count, context.task_loop_result, context.task_run_count


def yields_and_loops(x: Any = None) -> Any:
    yield x
    yield loops(x)


def yields_and_raises(error: BaseException) -> Any:
    """A body that yields, and raises before it is at its end."""

    def generate(x: Any = None) -> Any:
        yield x
        raise error.with_traceback(None)

    return generate


OUTCOMES: dict[str, Any] = {
    "value": Script(lambda x: (x, context.map_index, context.task_full_name)),
    "count": Script(lambda x: context.task_run_count),
    "none": Script(None),
    "error": Script(ValueError("no")),
    "answer": Script(Returned(5)),
    "answer of a failure": Script(Raised(ValueError("no"))),
    "loop": loops,
    "retry": Script(signals.RETRY("again", start_time=5.0), "yes"),
    "late error": yields_and_raises(ValueError("no")),
    "late skip": yields_and_raises(signals.SKIP("not today")),
    "late loop": yields_and_loops,
    "second attempt": Script(ValueError("no"), "yes"),
    "exit": Script(SystemExit(3)),
    "skip": Script(signals.SKIP("not today")),
    "fail signal": Script(signals.FAIL("no", data=4)),
    "pause": Script(signals.PAUSE("wait")),
    "state": Script(Completed("as said", data=5)),
    "failed state": Script(Failed("as said")),
    "generator": numbers(),
    "coroutine": Script(lambda x: later(x)),
    "async": later,
}
TRIGGERS = [
    triggers.all_successful,
    triggers.any_failed,
    triggers.all_finished,
    triggers.not_all_skipped,
    triggers.manual_only,
]


def told(segment: Segment) -> list[tuple[Any, ...]]:
    """What is known of each child, times left out."""
    found = []
    for offset in range(len(segment)):
        state = segment.state(offset)
        data = state.data  # two equal exceptions are told by their text
        found.append(
            (
                type(state),
                state.name,
                state.message,
                repr(data),
                segment.attempts_of(offset),
                segment.begins[offset] <= segment.ends[offset],
            )
        )
    return found


above = st.lists(
    st.sampled_from([Completed(data=1), Failed("no"), Skipped()]),
    min_size=3,
    max_size=3,
)


@given(
    first=st.sampled_from(sorted(OUTCOMES)),
    second=st.sampled_from(sorted(OUTCOMES)),
    trigger=st.sampled_from(TRIGGERS),
    retries=st.integers(0, 1),
    skips=st.booleans(),
    states=above,
    source=st.sampled_from(["items", "children"]),
)
def test_a_lane_ends_as_it_does_in_the_pipeline(
    first, second, trigger, retries, skips, states, source
):
    given_above = Segment(0)
    given_above.open(3)
    for offset, state in enumerate(states):
        given_above.put(offset, state, 1.0, 2.0)
    options = {
        "retries": retries,
        "trigger": trigger,
        "skip_on_upstream_skip": skips,
    }
    start = Items([7, 8, 9], 0) if source == "items" else Each(0, (0,), True)
    steps = (
        Step(
            1,
            Task(OUTCOMES[first], name="first", **options),
            "first-1",
            (StepInput("x", "above", start, None),),
            mapped=True,
        ),
        Step(
            2,
            Task(OUTCOMES[second], name="second", **options),
            "second-1",
            (StepInput("x", "first", Local(1), None),),
            mapped=True,
        ),
    )
    block = Block(0, steps, 0, 3, 0.0, frozenset({1, 2}))
    arguments = [BlockResult({0: given_above}, {})]

    quick, _ = run_block(block, arguments, {"flow_name": "f"}, ThreadShell())
    slow, _ = run_block(block, arguments, {"flow_name": "f"}, SlowShell())

    for node in (1, 2):
        assert told(quick.segments[node]) == told(slow.segments[node])


@given(
    first=st.sampled_from(sorted(OUTCOMES)),
    second=st.sampled_from(sorted(OUTCOMES)),
    retries=st.integers(0, 1),
    source=st.sampled_from([Fixed(7), Whole(0, (0,), False)]),
)
def test_a_plain_chain_ends_as_it_does_in_the_pipeline(first, second, retries, source):
    steps = (
        Step(
            1,
            Task(OUTCOMES[first], name="first", retries=retries),
            "first-1",
            (StepInput("x", "above", source, None),),
            mapped=False,
        ),
        Step(
            2,
            Task(OUTCOMES[second], name="second", retries=retries),
            "second-1",
            (StepInput("x", "first", Local(1), None),),
            mapped=False,
        ),
    )
    block = Block(0, steps, 0, 1, 0.0, frozenset({1, 2}))
    arguments = [BlockResult({0: Segment.of_value(7)}, {})]

    quick, _ = run_block(block, arguments, {"flow_name": "f"}, ThreadShell())
    slow, _ = run_block(block, arguments, {"flow_name": "f"}, SlowShell())

    for node in (1, 2):
        assert told(quick.segments[node]) == told(slow.segments[node])


class ToldShell(ThreadShell):
    """A shell whose clock moves when it is told."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wait(self, until: float) -> None:
        self.time = max(self.time, until)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("value", 105.0),
        ("error", 105.0),
        ("state", 105.0),
        ("late", 105.0),
        ("second attempt", 120.0),
        ("loop", 110.0),
    ],
)
def test_a_run_begins_before_its_body_though_the_pipeline_ends_it(kind, end, mapped):
    shell = ToldShell()

    def spend() -> Any:
        shell.time += 5.0
        if kind == "error" or (
            kind == "second attempt" and context.task_run_count == 1
        ):
            raise ValueError("no")
        if kind == "loop" and "task_loop_count" not in context:
            raise signals.LOOP
        return Completed(data=1) if kind == "state" else 1

    def late() -> Any:
        yield spend()

    retries = {"retries": 1, "retry_delay_seconds": 10} if "attempt" in kind else {}
    task = Task(late if kind == "late" else spend, name="t", **retries)
    step = Step(1, task, "t-1", (), mapped=mapped)
    result, report = run_block(
        Block(0, (step,), 0, 1, 0.0, frozenset({1})), [], {}, shell
    )

    segment = result.segments[1]
    assert (segment.begins[0], segment.ends[0]) == (100.0, end)
    assert report.busy == end - 100.0 - (10.0 if retries else 0.0)


@pytest.mark.parametrize("shell", [ThreadShell(), SlowShell()])
def test_a_body_may_return_any_record_of_the_engine(shell):
    for value in (Raised(ValueError("no")), Returned(5)):
        step = Step(1, Task(Script(value), name="t"), "t-1", (), mapped=False)
        block = Block(0, (step,), 0, 1, 0.0, frozenset({1}))
        result, _ = run_block(block, [], {}, shell)
        assert result.segments[1].state(0).result() is value


@pytest.mark.parametrize("shell", [ThreadShell(), SlowShell()])
def test_the_logger_of_a_run_is_one_object(shell):
    def body() -> bool:
        before = context.logger
        with context(color="blue"):
            return before is context.logger is context.get("logger")

    step = Step(1, Task(body), "t-1", (), mapped=False)
    block = Block(0, (step,), 0, 1, 0.0, frozenset({1}))
    result, _ = run_block(block, [], {}, shell)
    assert result.segments[1].state(0).result() is True


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout_seconds", 5),
        ("state_handlers", [lambda task, old, new: None]),
        ("cache_for", timedelta(hours=1)),
        ("task_run_name", "{x}"),
        ("log_prints", True),
        ("trigger", lambda upstream: True),
    ],
)
def test_an_option_that_decides_anything_wants_the_pipeline(option, value):
    assert is_quick(Task(len))
    assert not is_quick(Task(len, **{option: value}))


def test_a_variant_of_a_quick_task_is_judged_anew():
    task = Task(len)
    assert is_quick(task)
    assert not is_quick(task.with_options(timeout_seconds=4))


def test_what_surrounds_a_run_is_seen_by_a_quick_body():
    seen = []

    def body():
        seen.append((context.color, context.flow_name, sorted(context), len({**V()})))

    class V(dict):
        def __init__(self):
            super().__init__({name: context.get(name) for name in context})

    step = Step(0, Task(body), "body-1", (), mapped=False)
    block = Block(0, (step,), 0, 1, 0.0, frozenset({0}))
    with context(color="blue"):
        run_block(block, [], {"flow_name": "f"}, ThreadShell())

    (color, flow_name, names, count), *others = seen
    assert (color, flow_name, others) == ("blue", "f", [])
    assert {"map_index", "task_full_name", "task_run_count", "logger"} <= set(names)
    assert count == len(names)


def plain_block(*inputs: StepInput) -> Block:
    step = Step(4, Task(len, name="count"), "count-1", inputs, False, measured=True)
    return Block(9, (step,), 0, 1, 0.0, frozenset({4}))


@pytest.mark.parametrize(
    "inputs",
    [
        (),
        (StepInput("x", "a", Whole(1, (0,), False), None),),
        (
            StepInput("x", "a", Whole(1, (0,), False, True), None),
            StepInput(None, "b", Whole(2, (1,), False), None),
            StepInput("y", "", Fixed("text"), None),
        ),
        (StepInput("y", "", Fixed([1, 2]), None),),
        (StepInput("x", "a", Whole(1, (0,), True, False, ((0, 3),)), None),),
    ],
)
def test_a_plain_block_travels_unchanged(inputs):
    block = plain_block(*inputs)
    packed = Packer().pack(block, 2)

    back = unpack(packed.header, packed.inline, [None, None])

    assert back.steps[0].task.name == "count"
    assert back.steps[0]._replace(task=None) == block.steps[0]._replace(task=None)
    assert back._replace(steps=()) == block._replace(steps=())
