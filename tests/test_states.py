import pickle
import traceback
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    UnfinishedRun,
)
from prefect_dask_core.states import (
    AwaitingRetry,
    Cached,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Looped,
    Mapped,
    Missing,
    Paused,
    Pending,
    Queued,
    Running,
    Scheduled,
    Skipped,
    State,
    StateType,
    Success,
    TimedOut,
    TriggerFailed,
    counts_as_failure,
)
from tests.strategies import FINAL, UNFINISHED, final_states, states


@given(states())
def test_pickling_changes_nothing(state):
    copy = pickle.loads(pickle.dumps(state))
    assert copy == state
    assert (copy.message, copy.timestamp) == (state.message, state.timestamp)


@given(states(), st.text(min_size=1))
def test_replacing_a_message_changes_the_message_only(state, message):
    changed = state.replace(message=message)
    assert changed == state
    assert changed.message == message


@given(states())
def test_equal_states_have_equal_hashes(state):
    copy = state.replace(message="another")
    assert hash(copy) == hash(state)


@given(final_states())
def test_a_final_state_counts_as_success_or_failure_or_is_cancelled(state):
    verdicts = [state.is_successful(), counts_as_failure(state), state.is_cancelled()]
    assert sum(verdicts) == 1


@pytest.mark.parametrize("cls", FINAL)
def test_a_class_that_ends_a_run_is_final(cls):
    assert cls().is_final()
    assert cls().is_finished()


@pytest.mark.parametrize("cls", UNFINISHED)
def test_a_class_that_does_not_end_a_run_is_not_final(cls):
    assert not cls().is_final()


def test_one_pass_of_a_loop_is_finished_and_not_final():
    assert Looped().is_finished()
    assert Looped().is_looped()


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Pending, StateType.PENDING),
        (Scheduled, StateType.SCHEDULED),
        (AwaitingRetry, StateType.SCHEDULED),
        (Paused, StateType.PAUSED),
        (Running, StateType.RUNNING),
        (Skipped, StateType.COMPLETED),
        (TriggerFailed, StateType.FAILED),
        (TimedOut, StateType.FAILED),
        (Crashed, StateType.CRASHED),
        (Cancelled, StateType.CANCELLED),
    ],
)
def test_each_class_has_the_type_of_the_function_generations(cls, expected):
    assert cls().type is expected


#: What is true of a state of each class, its own question and those of its parents.
TRUE_OF = {
    "Pending": "pending",
    "Submitted": "meta_state pending submitted",
    "Queued": "meta_state pending queued scheduled",
    "Scheduled": "pending scheduled",
    "Resume": "pending scheduled",
    "Paused": "paused pending scheduled",
    "AwaitingRetry": "pending retrying scheduled",
    "Running": "running",
    "Retrying": "retrying running",
    "Cancelling": "cancelling running",
    "Finished": "final finished",
    "Looped": "finished looped",
    "Completed": "completed final finished successful",
    "Cached": "cached completed final finished successful",
    "Mapped": "completed final finished mapped successful",
    "Materialized": "completed final finished successful",
    "Skipped": "completed final finished skipped successful",
    "Failed": "failed final finished",
    "TimedOut": "failed final finished",
    "TriggerFailed": "failed final finished",
    "ValidationFailed": "failed final finished",
    "Crashed": "crashed final finished",
    "Cancelled": "cancelled final finished",
}


def test_each_class_answers_its_own_question_and_those_of_its_parents():
    questions = [name for name in vars(State) if name.startswith("is_")]
    found = {
        cls.__name__: " ".join(
            sorted(name[3:] for name in questions if getattr(cls(), name)())
        )
        for cls in State.children()
        if cls.__module__ == State.__module__  # not those of other tests
    }
    assert found == TRUE_OF


def test_success_is_another_word_for_completed():
    assert Success is Completed


def test_a_crash_is_not_a_failure_of_the_code():
    assert not Crashed().is_failed()


def test_a_state_is_never_false():
    assert bool(Failed())
    assert bool(Mapped(states=[]))


def test_a_state_cannot_be_changed():
    state = Completed()
    with pytest.raises(AttributeError, match=r"state\.replace"):
        state.message = "other"
    with pytest.raises(AttributeError, match="'message' stays"):
        del state.message


def test_replacing_an_unknown_field_names_the_fields():
    with pytest.raises(TypeError, match="Completed has no field 'masage'"):
        Completed().replace(masage="x")


def test_data_and_result_are_two_spellings_of_one_argument():
    assert Completed(result=3) == Completed(data=3)
    with pytest.raises(TypeError, match="two spellings of one argument"):
        Completed(data=3, result=3)


def test_states_with_different_data_differ():
    assert Completed(data=1) != Completed(data=2)
    assert Completed(data=1) != Failed(data=1)


def test_states_with_equal_exceptions_are_equal():
    assert Failed(data=ValueError("no")) == Failed(data=ValueError("no"))


def test_the_name_is_shown_where_it_differs_from_the_class():
    assert repr(Paused("soon", name="Waiting")) == "Paused[Waiting]('soon')"


def test_a_mapped_state_is_indexed_by_child():
    parent = Mapped(states=[Completed(data=1), Failed(data=ValueError("no"))])
    assert parent[0].result() == 1
    assert len(parent) == 2
    assert parent.map_states == [parent[0], parent[1]]


def test_a_plain_state_cannot_be_indexed():
    with pytest.raises(TypeError, match="has no states below it"):
        Completed()[0]


def test_the_result_of_a_mapped_state_holds_an_exception_where_a_child_failed():
    error = ValueError("no")
    parent = Mapped(states=[Completed(data=1), Failed(data=error), Skipped()])
    assert parent.result() == [1, error, None]


def test_the_result_of_an_unfinished_run_is_refused():
    with pytest.raises(UnfinishedRun, match="has not finished"):
        Running().result()


def test_the_result_of_a_paused_run_is_refused_with_the_way_on():
    with pytest.raises(PausedRun, match="resume it first"):
        Paused().result()


def test_the_result_of_a_failed_run_is_its_exception():
    with pytest.raises(ZeroDivisionError):
        Failed(data=ZeroDivisionError()).result()


def raised():
    try:
        raise ValueError("no")
    except ValueError as error:
        return error


def looked_at(state):
    with pytest.raises(ValueError, match="no") as caught:
        state.result()
    frames = traceback.extract_tb(caught.value.__traceback__)
    return caught.value, [frame.name for frame in frames]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: Failed(data=state),
        lambda state: state.replace(message="no"),
        lambda state: pickle.loads(pickle.dumps(state)).replace(data=state.data),
    ],
)
def test_looking_at_a_failed_run_adds_nothing_to_what_it_was(wrapped):
    error = raised()
    state = wrapped(Failed(data=error))
    first = looked_at(state)
    assert first == looked_at(state) == looked_at(state)
    assert first[0] is error
    assert first[1][0] == "looked_at"
    assert first[1][-1] == "raised"


def test_the_frames_of_a_state_are_those_that_it_was_made_with():
    error = raised()
    frames = error.__traceback__
    state = Failed(data=error)
    looked_at(state)
    assert error.__traceback__ is not frames
    assert state.frames is state.replace(message="no").frames is frames
    assert state.replace(data=ValueError()).frames is None
    assert Completed(data=3).frames is None


def test_the_frames_of_a_state_are_no_part_of_it():
    assert Failed(data=raised()) == Failed(data=ValueError("no"))
    with pytest.raises(TypeError, match="no field '_frames'"):
        Failed().replace(_frames=None)


def test_the_exception_can_be_returned_instead_of_raised():
    assert isinstance(Failed("no").result(raise_on_failure=False), FailedRun)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Failed("said"), FailedRun),
        (Crashed("said"), CrashedRun),
        (Cancelled("said"), CancelledRun),
    ],
)
def test_a_run_that_ended_without_an_exception_raises_its_message(state, expected):
    with pytest.raises(expected, match="said"):
        state.result()


def test_the_exception_of_a_state_inside_a_state_is_found():
    with pytest.raises(ZeroDivisionError):
        Failed(data=Failed(data=ZeroDivisionError())).result()


def test_a_value_that_was_not_kept_says_why():
    with pytest.raises(MissingResult, match="persist_result"):
        Completed(data=Missing("give persist_result=True")).result()


def test_a_completed_run_without_data_has_no_result():
    with pytest.raises(MissingResult, match="carries no data"):
        Completed().result()


def test_a_skip_without_data_has_the_value_none():
    assert Skipped().result() is None


def test_none_is_a_value_like_any_other():
    assert Completed(data=None).result() is None


def test_classes_know_their_children_and_parents():
    assert TriggerFailed in State.children()
    assert "TimedOut" in Failed.children(names_only=True)
    assert TriggerFailed.parents()[0] is Failed
    assert TriggerFailed.parents(include_self=True, names_only=True)[0] == (
        "TriggerFailed"
    )


def test_a_queued_run_is_scheduled_and_kept_elsewhere():
    assert Queued().is_scheduled()
    assert Queued().is_meta_state()


def test_a_cached_state_tells_what_it_was_made_of():
    state = Cached(
        data=3,
        hashed_inputs={"x": "a"},
        cached_parameters={"p": 1},
        cached_result_expiration=60.0,
    )
    for copy in (state, pickle.loads(pickle.dumps(state)), state.replace(message="m")):
        assert copy.result() == 3
        assert copy.hashed_inputs == {"x": "a"}
        assert copy.cached_parameters == {"p": 1}
        assert copy.cached_result_expiration == 60.0


def test_a_cached_state_never_expires_unless_told():
    state = Cached("from an earlier run", 3)
    assert state.cached_result_expiration is None
    assert (state.hashed_inputs, state.cached_parameters) == (None, None)


def test_the_end_of_a_cached_state_can_be_a_datetime():
    end = datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc)
    assert Cached(cached_result_expiration=end).cached_result_expiration == 60.0


def test_cached_states_with_different_inputs_differ():
    assert Cached(data=3, hashed_inputs={"x": "a"}) != Cached(data=3)
