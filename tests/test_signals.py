import pickle
from datetime import datetime, timezone

import cloudpickle
import pytest

from prefect_dask_core.signals import (
    DONTRUN,
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
    PrefectStateSignal,
    signal_from_state,
)
from prefect_dask_core.states import (
    AwaitingRetry,
    Cached,
    Completed,
    Failed,
    Looped,
    Paused,
    Pending,
    Skipped,
    TimedOut,
    TriggerFailed,
    ValidationFailed,
)

STATE_OF = {
    FAIL: Failed,
    TRIGGERFAIL: TriggerFailed,
    VALIDATIONFAIL: ValidationFailed,
    SUCCESS: Completed,
    SKIP: Skipped,
    DONTRUN: Skipped,
    RETRY: AwaitingRetry,
    LOOP: Looped,
    PAUSE: Paused,
    WAIT: Paused,
}
ALL = list(STATE_OF)


class NotFound(FAIL):
    """A user's signal with parameters of its own."""

    def __init__(self, path, depth):
        super().__init__(f"{path} at {depth}", data=depth)
        self.path = path


@pytest.mark.parametrize("signal", ALL)
def test_a_signal_gives_its_state(signal):
    state = signal("why", data=3).to_state(12.5)
    assert type(state) is STATE_OF[signal]
    assert (state.message, state.data, state.timestamp) == ("why", 3, 12.5)


@pytest.mark.parametrize("signal", ALL)
def test_result_is_an_older_spelling_of_data(signal):
    assert signal(result=3).to_state().data == 3


@pytest.mark.parametrize("signal", [s for s in ALL if not issubclass(s, SKIP)])
def test_a_signal_without_data_is_the_data_of_its_state(signal):
    raised = signal("why")
    assert raised.to_state().data is raised


@pytest.mark.parametrize("signal", [SKIP, DONTRUN])
def test_a_skip_without_data_has_the_value_none(signal):
    assert signal("why").to_state().data is None


@pytest.mark.parametrize("signal", ALL)
def test_none_is_data_like_any_other(signal):
    assert signal(data=None).to_state().data is None


@pytest.mark.parametrize("signal", ALL)
@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_pickling_changes_nothing(signal, library):
    raised = signal("why", data=[1])
    copy = library.loads(library.dumps(raised))
    assert type(copy) is signal
    assert str(copy) == "why"
    assert copy.to_state() == raised.to_state()


def test_a_signal_of_ones_own_with_other_parameters_pickles():
    copy = pickle.loads(pickle.dumps(NotFound("a/b", 2)))
    assert (copy.path, str(copy), copy.to_state().data) == ("a/b", "a/b at 2", 2)


@pytest.mark.parametrize("signal", ALL)
def test_catching_exceptions_does_not_swallow_a_signal(signal):
    assert not issubclass(signal, Exception)


def test_a_triggerfail_is_a_fail():
    assert issubclass(TRIGGERFAIL, FAIL)
    assert issubclass(VALIDATIONFAIL, FAIL)


def test_the_message_may_be_left_out():
    assert str(FAIL()) == ""
    assert FAIL().message is None
    assert FAIL().state.message is None


def test_a_retry_is_due_at_once_unless_told_otherwise():
    assert RETRY().to_state().start_time is None
    assert RETRY(start_time=99.0).to_state().start_time == 99.0


def test_a_start_time_may_be_a_datetime():
    at = datetime(2020, 1, 1, tzinfo=timezone.utc)
    assert PAUSE(start_time=at).to_state().start_time == at.timestamp()


def test_a_wait_is_a_pause_with_a_name_of_its_own():
    assert WAIT().to_state().name == "Waiting"
    assert PAUSE().to_state().name == "Paused"
    assert PAUSE(name="Lunch").to_state().name == "Lunch"


def test_a_wrong_field_is_reported_where_the_signal_is_made():
    with pytest.raises(TypeError, match=r"the signal FAIL cannot be made.*start_time"):
        FAIL(start_time=3)


def test_the_base_class_gives_no_state():
    with pytest.raises(TypeError, match="PrefectStateSignal gives no state; raise one"):
        PrefectStateSignal("why")


def test_endrun_gives_the_state_it_was_given():
    state = Failed("over", data=3)
    assert ENDRUN(state).to_state() is state
    assert ENDRUN(state).to_state(5.0).timestamp == 5.0
    assert ENDRUN(state.replace(timestamp=1.0)).to_state(5.0).timestamp == 1.0
    assert str(ENDRUN(state)) == "over"


def test_endrun_pickles():
    assert pickle.loads(pickle.dumps(ENDRUN(Failed("x")))).state == Failed("x")


def test_endrun_without_a_state_shows_how_to_write_it():
    with pytest.raises(TypeError, match=r"ENDRUN takes the state .* and got 'over'"):
        ENDRUN("over")


@pytest.mark.parametrize("signal", [s for s in ALL if s is not DONTRUN])
def test_the_signal_of_a_state_gives_that_state(signal):
    state = signal().to_state()
    assert signal_from_state(state) is signal


@pytest.mark.parametrize("state", [Pending(), TimedOut(), Cached()])
def test_a_state_that_no_signal_gives_is_refused(state):
    with pytest.raises(ValueError, match="no signal gives the state"):
        signal_from_state(state)
