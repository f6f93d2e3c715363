"""What a flow calls when the state of its run changes, and where it runs."""

import pytest

from prefect_dask_core import Flow, SequentialTaskRunner, ThreadPoolTaskRunner, task
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.signals import ENDRUN, FAIL, PAUSE, SUCCESS
from prefect_dask_core.states import Cancelled, Completed, Failed, Paused

#: What ran.
LOG = []


@pytest.fixture(autouse=True)
def _empty_log():
    LOG.clear()


@task
def work(x=1):
    LOG.append("work")
    if x == "bad":
        raise ValueError("bad")
    return x


def kind(state):
    return type(state).__name__


def made(x=1, **options):
    """A flow of one task, and the task."""
    flow = Flow("handled", task_runner=SequentialTaskRunner(), **options)
    with flow:
        result = work(x)
    return flow, result


def note(flow, old, new):
    LOG.append(f"{flow.name}: {kind(old)} -> {kind(new)}")


def at(name, act):
    """A handler that acts when a run enters a state of that name."""

    def handler(flow, old, new):
        return act() if kind(new) == name else None

    return handler


def raising(error):
    def act(*args):
        raise error

    return act


# -- state_handlers, on_failure ------------------------------------------------------


def test_handlers_see_a_run_begin_and_end():
    flow, _ = made(state_handlers=[note])
    assert flow.run().is_successful()
    assert LOG == [
        "handled: Pending -> Running",
        "work",
        "handled: Running -> Completed",
    ]


def test_handlers_are_called_in_order_and_see_what_the_one_before_returned():
    rescue = at("Failed", lambda: Completed("rescued"))
    flow, result = made("bad", state_handlers=[note, rescue, note])
    state = flow.run()
    assert (kind(state), state.message) == ("Completed", "rescued")
    assert LOG[-2:] == [
        "handled: Running -> Failed",
        "handled: Running -> Completed",
    ]
    # The states of the tasks are kept.
    assert state[result].is_failed()


def test_on_failure_is_called_when_a_run_fails():
    def tell(flow, state):
        LOG.append(f"{flow.name} failed: {state.message}")

    flow, _ = made("bad", on_failure=tell, state_handlers=[note])
    flow.run()
    assert LOG[-2:] == [
        "handled: Running -> Failed",
        "handled failed: reference tasks failed: work; it began with work: "
        "ValueError: bad",
    ]
    LOG.clear()
    flow, _ = made(on_failure=tell)
    flow.run()
    assert LOG == ["work"]


@pytest.mark.parametrize("when", ["Running", "Completed"])
def test_a_handler_that_raises_fails_the_run(when):
    error = KeyError("no")
    flow, result = made(state_handlers=[at(when, raising(error)), note])
    state = flow.run()
    assert kind(state) == "Failed"
    assert state.message == "state handler handler raised KeyError: 'no'"
    assert state.result(raise_on_failure=False) is error
    assert kind(state[result]) == ("Pending" if when == "Running" else "Completed")
    assert LOG.count("work") == (when == "Completed")


def test_a_handler_that_returns_no_state_fails_the_run():
    flow, result = made(state_handlers=[at("Completed", lambda: 5)])
    state = flow.run()
    assert kind(state) == "Failed"
    assert state.message == (
        "state handler handler raised TypeError: it returned 5; it returns a State or "
        "None."
    )
    assert state[result].result() == 1


@pytest.mark.parametrize(
    ("signal", "expected", "further"),
    [
        (FAIL("so"), "Failed", True),
        (SUCCESS("so"), "Completed", True),
        (PAUSE("so"), "Paused", False),
        (ENDRUN(state=Cancelled("so")), "Cancelled", False),
    ],
)
def test_a_signal_of_a_handler_is_the_state(signal, expected, further):
    flow, result = made(state_handlers=[at("Completed", raising(signal)), note])
    state = flow.run()
    assert (kind(state), state.message) == (expected, "so")
    assert state[result].result() == 1
    seen = f"handled: Running -> {expected}" in LOG
    assert seen is further


def test_a_run_that_a_handler_pauses_before_its_start_is_resumed():
    answers = [Paused("not yet"), None]
    flow, result = made(state_handlers=[at("Running", lambda: answers.pop(0))])
    state = flow.run()
    assert (kind(state), kind(state[result])) == ("Paused", "Pending")
    assert LOG == []
    assert flow.run(resume=state)[result].result() == 1


def test_a_resumed_run_that_is_paused_before_its_start_keeps_what_stood():
    answers = [None, Paused("not yet"), None]
    flow, result = made(state_handlers=[at("Running", lambda: answers.pop(0))])
    state = flow.run(resume=flow.run())
    assert (kind(state), kind(state[result])) == ("Paused", "Completed")
    assert flow.run(resume=state)[result].result() == 1
    assert LOG == ["work"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_handlers": note}, "put a single one into a list"),
        ({"state_handlers": [3]}, "expected a list of callables"),
        ({"state_handlers": {note}}, "expected a list of callables"),
        ({"on_failure": 3}, r"on_failure=3, but expected a callable \(flow, state\)"),
    ],
)
def test_what_is_no_handler_is_refused(options, message):
    with pytest.raises(OptionTypeError, match=message):
        Flow("handled", **options)


# -- terminal_state_handler ----------------------------------------------------------


def test_a_terminal_state_handler_may_replace_the_final_state():
    def judge(flow, state, reference):
        LOG.append((flow.name, kind(state), [kind(s) for s in reference]))
        return Completed("good enough")

    flow, result = made("bad", terminal_state_handler=judge, state_handlers=[note])
    state = flow.run()
    assert (kind(state), state.message) == ("Completed", "good enough")
    assert state[result].is_failed()
    # State handlers see what it made of the state.
    assert LOG[-2:] == [
        ("handled", "Failed", ["Failed"]),
        "handled: Running -> Completed",
    ]


def test_a_terminal_state_handler_may_leave_the_state():
    flow, _ = made(terminal_state_handler=lambda flow, state, reference: None)
    assert kind(flow.run()) == "Completed"


def test_a_terminal_state_handler_is_not_asked_about_a_paused_run():
    @task
    def pause():
        raise PAUSE("wait")

    with Flow("paused", terminal_state_handler=raising(KeyError())) as flow:
        pause()
    assert kind(flow.run(task_runner=SequentialTaskRunner())) == "Paused"


@pytest.mark.parametrize(
    ("act", "expected", "message"),
    [
        (raising(KeyError("no")), "Failed", "terminal_state_handler raised KeyError"),
        (raising(FAIL("so")), "Failed", "so"),
        (lambda *args: 5, "Failed", "TypeError: it returned 5; it returns a State or"),
    ],
)
def test_the_states_outlive_a_terminal_state_handler_that_raises(
    act, expected, message
):
    flow, result = made(terminal_state_handler=act)
    state = flow.run()
    assert kind(state) == expected
    assert message in state.message
    assert state[result].result() == 1


# -- task_runner, executor -----------------------------------------------------------


class Noting(SequentialTaskRunner):
    """A runner that notes that it was used."""

    def __init__(self, name):
        self.label = name

    def run(self, flow_run):
        LOG.append(self.label)
        return super().run(flow_run)


@pytest.mark.parametrize("spelling", ["task_runner", "executor"])
def test_a_runner_has_two_spellings(spelling):
    with Flow("where", **{spelling: Noting("own")}) as flow:
        work()
    flow.run()
    flow.run(**{spelling: Noting("other")})
    assert LOG == ["own", "work", "other", "work"]


def test_both_spellings_at_once_are_refused():
    both = {"task_runner": SequentialTaskRunner(), "executor": ThreadPoolTaskRunner(1)}
    with pytest.raises(OptionTypeError, match="two spellings of one option"):
        Flow("where", **both)
    flow, _ = made()
    with pytest.raises(OptionTypeError, match="'handled' was given task_runner= and"):
        flow.run(**both)
    assert LOG == []


@pytest.mark.parametrize("wrong", [SequentialTaskRunner, "threads", 3])
def test_what_is_no_runner_is_refused(wrong):
    with pytest.raises(OptionTypeError, match="expected a task runner such as"):
        Flow("where", executor=wrong)
    flow, _ = made()
    with pytest.raises(OptionTypeError, match="expected a task runner such as"):
        flow.run(task_runner=wrong)


def test_on_failure_sees_what_a_handler_made_of_the_state():
    flow, _ = made(
        state_handlers=[at("Completed", lambda: Failed("too late"))],
        on_failure=lambda flow, state: LOG.append(state.message),
    )
    assert flow.run().is_failed()
    assert LOG == ["work", "too late"]
