"""The pipeline, answered by literals: nothing runs, waits or reads a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import Task
from prefect_dask_core.engine.effects import Call, Overran, Raised, Returned, Wait
from prefect_dask_core.engine.pipeline import run_task
from prefect_dask_core.engine.task_run import TaskRun
from prefect_dask_core.errors import TaskTimeoutError
from prefect_dask_core.retries import exponential_backoff
from prefect_dask_core.signals import (
    ENDRUN,
    FAIL,
    LOOP,
    PAUSE,
    RETRY,
    SKIP,
    SUCCESS,
    WAIT,
)
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Failed,
    Pending,
    Skipped,
)
from prefect_dask_core.triggers import Tally, all_finished, any_failed, manual_only


def handler(task, old, new):
    """Stands for a state handler; the tests answer in its place."""


class Play:
    """A task run whose calls are answered from a script.

    Parameters
    ----------
    bodies : sequence of Answer
        Answers to the calls of the body, in order.
    handle : callable (old, new) -> Answer, optional
        Answer of the state handler.
    """

    def __init__(
        self, *bodies, upstream=None, handle=None, trigger=None, refusal=None, **options
    ):
        self.clock = 100.0
        self.seen, self.effects = [], []
        task = Task(
            lambda x=None: x,
            name="load",
            state_handlers=[handler],
            **({} if trigger is None else {"trigger": trigger}),
            **options,
        )
        self.task = task
        self.states = upstream or {}
        self.handle = handle or (lambda old, new: Returned(None))
        self.bodies = list(bodies)
        self.run = TaskRun(
            task=task,
            name="load[3]",
            tally=Tally.of(self.states),
            upstream=lambda: self.states,
            inputs=self.inputs,
            variables={"map_index": 3},
            now=lambda: self.clock,
            refusal=refusal,
        )
        self.state = self.play()

    def inputs(self):
        self.effects.append("inputs")
        return {"x": 5}

    def play(self):
        steps, answer = run_task(self.run), None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = self.answer(effect)

    def answer(self, effect):
        self.clock += 1.0
        if isinstance(effect, Wait):
            self.effects.append(("wait", effect.until - self.clock))
            self.clock = max(self.clock, effect.until)
            return None
        if effect.function is handler:
            _, old, new = effect.args
            self.seen.append(f"{type(old).__name__} > {type(new).__name__}")
            return self.handle(old, new)
        if effect.function is self.task.trigger:
            self.effects.append("trigger")
            return self.bodies.pop(0)
        assert isinstance(effect, Call)
        self.effects.append("body")
        self.variables = dict(effect.variables)
        self.timeout = effect.timeout
        return self.bodies.pop(0)


def repeat(number, answer):
    return [answer] * number


# -- order -------------------------------------------------------------------------


def test_a_plain_success():
    play = Play(Returned(7))
    assert play.state == Completed(data=7)
    assert play.seen == ["Pending > Running", "Running > Completed"]
    assert play.effects == ["inputs", "body"]
    assert (play.run.begin, play.run.attempts) == (100.0, 1)
    assert play.run.end == play.clock
    assert play.state.timestamp == pytest.approx(102.0)


def test_a_failure_without_retries():
    play = Play(Raised(ValueError("no")))
    assert type(play.state) is Failed
    assert play.state.message == "ValueError: no"
    assert play.seen == ["Pending > Running", "Running > Failed"]


def test_a_retry_after_a_wait():
    play = Play(
        Raised(ValueError("no")), Returned(1), retries=1, retry_delay_seconds=60
    )
    assert play.seen == [
        "Pending > Running",
        "Running > Failed",
        "Failed > AwaitingRetry",
        "AwaitingRetry > Retrying",
        "Retrying > Completed",
    ]
    kinds = [e if isinstance(e, str) else e[0] for e in play.effects]
    assert kinds == ["inputs", "body", "wait", "body"]
    assert play.run.attempts == 2
    assert play.variables["task_run_count"] == 2
    ((since, until),) = play.run.waits
    assert until - since >= 59  # this clock moves at each look


def test_delays_follow_the_backoff():
    error = Raised(ValueError())
    play = Play(
        *repeat(4, error), retries=3, retry_delay_seconds=exponential_backoff(10)
    )
    waits = [e[1] for e in play.effects if isinstance(e, tuple)]
    # A second passes between the failure and the wait, and one while it is asked for.
    assert waits == [pytest.approx(d - 2.0) for d in (10, 20, 40)]


@given(st.integers(0, 5), st.integers(0, 7))
def test_attempts_never_exceed_the_limit(retries, failures):
    answers = [*repeat(failures, Raised(ValueError())), *repeat(8, Returned(1))]
    play = Play(*answers, retries=retries)
    assert play.run.attempts == min(failures, retries) + 1
    assert play.state.is_successful() == (failures <= retries)
    assert play.effects.count("body") == play.run.attempts


def test_a_skip_upstream_comes_before_the_trigger():
    upstream = {"a": Skipped(), "b": Failed()}
    play = Play(upstream=upstream)
    assert type(play.state).__name__ == "Skipped"
    assert play.seen == ["Pending > Skipped"]
    assert play.effects == []


def test_without_skip_propagation_the_trigger_decides():
    play = Play(Returned(1), upstream={"a": Skipped()}, skip_on_upstream_skip=False)
    assert play.state.is_successful()
    play = Play(upstream={"a": Skipped(), "b": Failed()}, skip_on_upstream_skip=False)
    assert play.seen == ["Pending > TriggerFailed"]


def test_a_refused_run_reads_no_inputs_and_is_not_retried():
    play = Play(upstream={"a": Failed()}, retries=3)
    assert play.seen == ["Pending > TriggerFailed"]
    assert play.effects == []
    assert play.run.attempts == 1


def test_a_trigger_of_ones_own_is_called_before_the_inputs_are_read():
    play = Play(Returned(True), Returned(1), trigger=lambda states: True)
    assert play.effects == ["trigger", "inputs", "body"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Returned(False), "TriggerFailed"),
        (Returned(None), "TriggerFailed"),
        (Raised(SKIP("no")), "Skipped"),
        (Raised(FAIL("no")), "Failed"),
        (Raised(PAUSE("no")), "Paused"),
        (Raised(KeyError("no")), "TriggerFailed"),
    ],
)
def test_what_a_trigger_of_ones_own_may_answer(answer, expected):
    play = Play(answer, trigger=lambda states: True, retries=2)
    assert type(play.state).__name__ == expected
    assert play.effects == ["trigger"]


def test_a_refusal_is_put_to_the_trigger_first():
    error = ValueError("nothing to map over")
    play = Play(refusal=error, upstream={"a": Failed()})
    assert play.seen == ["Pending > TriggerFailed"]
    play = Play(refusal=error, upstream={"a": Failed()}, trigger=all_finished)
    assert play.seen == ["Pending > Failed"]
    assert play.state.data is error
    assert play.effects == []


def test_before_its_time_a_run_waits_for_its_upstream():
    play = Play(upstream={"a": Pending()})
    assert (type(play.state), play.state.name) == (Pending, "WaitingForUpstream")
    # Its trigger is content with what is known already.
    play = Play(
        Returned(1), upstream={"a": Pending(), "b": Failed()}, trigger=any_failed
    )
    assert play.state.is_successful()
    play = Play(upstream={"a": Pending()}, trigger=manual_only)
    assert play.state.is_paused()


def test_a_cancelled_upstream_refuses():
    assert type(Play(upstream={"a": Cancelled()}).state).__name__ == "TriggerFailed"


# -- the body ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Returned(None), "Completed"),
        (Returned(Completed("mine")), "Completed"),
        (Returned(Failed("mine")), "Failed"),
        (Raised(SUCCESS("yes", data=1)), "Completed"),
        (Raised(SKIP()), "Skipped"),
        (Raised(PAUSE()), "Paused"),
        (Raised(WAIT()), "Paused"),
        (Raised(FAIL()), "Failed"),
        (Raised(ENDRUN(Cancelled())), "Cancelled"),
        (Raised(SystemExit()), "Crashed"),
        (Raised(KeyboardInterrupt()), "Crashed"),
        (Raised(GeneratorExit()), "Crashed"),
        (Overran(2.0), "TimedOut"),
    ],
    ids=repr,
)
def test_what_a_body_may_answer(answer, expected):
    play = Play(answer)
    assert type(play.state).__name__ == expected
    assert play.seen == ["Pending > Running", f"Running > {expected}"]
    assert play.state.timestamp is not None


def test_a_timeout_says_how_long_and_whether_code_was_left_behind():
    play = Play(Overran(0.5), timeout_seconds=0.5)
    assert play.timeout == 0.5
    assert play.state.message == "load[3] ran longer than 0.5 s."
    assert isinstance(play.state.data, TaskTimeoutError)
    play = Play(Overran(0.5, left_behind=True))
    assert play.state.message.endswith("could not be stopped and is left behind.")


def test_endrun_stops_everything():
    play = Play(Raised(ENDRUN(Failed("over"))), retries=5)
    assert play.state.message == "over"
    assert play.effects.count("body") == 1


@pytest.mark.parametrize("signal", [SKIP, PAUSE])
def test_what_is_no_failure_is_not_retried(signal):
    assert Play(Raised(signal()), retries=5).run.attempts == 1


def test_a_crash_is_not_retried():
    assert Play(Raised(SystemExit(1)), retries=5).run.attempts == 1


def test_retry_ignores_the_delay_and_the_limit_of_retries():
    play = Play(Raised(RETRY()), Raised(RETRY()), Returned(1), retry_delay_seconds=60)
    assert play.run.attempts == 3
    assert play.effects == ["inputs", "body", "body", "body"]


def test_retry_at_a_time_waits_for_it():
    play = Play(Raised(RETRY(start_time=500.0)), Returned(1))
    assert [e for e in play.effects if isinstance(e, tuple)] == [
        ("wait", pytest.approx(500.0 - 105.0, abs=2))
    ]


def test_loop_hands_its_data_on_and_counts():
    play = Play(Raised(LOOP(data="a")), Raised(LOOP(data="b")), Returned("c"))
    assert play.state.data == "c"
    assert play.variables["task_loop_count"] == 3
    assert play.variables["task_loop_result"] == "b"
    assert play.seen == [
        "Pending > Running",
        "Running > Looped",
        "Looped > Running",
        "Running > Looped",
        "Looped > Running",
        "Running > Completed",
    ]


def test_a_failure_in_a_loop_keeps_the_loop():
    play = Play(Raised(LOOP(data="a")), Raised(ValueError()), Returned("b"), retries=1)
    assert play.state.data == "b"
    assert play.variables["task_loop_result"] == "a"
    assert play.variables["task_run_count"] == 2


# -- handlers ----------------------------------------------------------------------


def when(name, answer):
    """Answer of a handler to one kind of new state."""
    return lambda old, new: answer if type(new).__name__ == name else Returned(None)


def test_a_handler_replaces_a_state():
    play = Play(Raised(ValueError()), handle=when("Failed", Returned(Completed())))
    assert type(play.state) is Completed
    assert play.effects.count("body") == 1


def test_a_handler_may_turn_a_success_into_a_retry():
    answers = iter([Raised(FAIL("once more")), Returned(None)])
    play = Play(
        Returned(1),
        Returned(2),
        retries=1,
        handle=lambda old, new: (
            next(answers) if type(new) is Completed else Returned(None)
        ),
    )
    assert play.state.data == 2


def test_a_handler_may_keep_the_body_from_running():
    play = Play(handle=when("Running", Raised(PAUSE("not yet"))))
    assert play.state.is_paused()
    assert "body" not in play.effects
    play = Play(handle=when("Running", Returned(Skipped("not today"))))
    assert type(play.state) is Skipped
    assert "body" not in play.effects


@pytest.mark.parametrize("name", ["Running", "Failed", "AwaitingRetry", "Retrying"])
def test_a_handler_that_raises_ends_the_run_as_failed(name):
    play = Play(
        Raised(ValueError()),
        Returned(1),
        retries=1,
        handle=when(name, Raised(ZeroDivisionError("mine"))),
    )
    assert type(play.state) is Failed
    assert play.state.message == "state handler handler raised ZeroDivisionError: mine"
    assert play.seen[-1].endswith(f"> {name}")


def test_a_handler_that_raises_endrun_ends_the_run():
    play = Play(
        Raised(ValueError()),
        retries=5,
        handle=when("Failed", Raised(ENDRUN(Cancelled("by the handler")))),
    )
    assert type(play.state) is Cancelled
    assert play.effects.count("body") == 1


def test_a_handler_may_skip_the_waiting():
    play = Play(
        Raised(ValueError()),
        retries=1,
        retry_delay_seconds=60,
        handle=when("AwaitingRetry", Returned(Failed("enough"))),
    )
    assert play.state.message == "enough"
    assert play.effects == ["inputs", "body"]
