import pickle

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import triggers as module
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Skipped,
    TriggerFailed,
)
from prefect_dask_core.triggers import (
    NAMED_FAILURES,
    Tally,
    Trigger,
    all_failed,
    all_finished,
    all_successful,
    always_run,
    any_failed,
    any_successful,
    manual_only,
    not_all_skipped,
    some_failed,
    some_successful,
)
from tests.strategies import (
    SHIPPED_TRIGGERS,
    final_states,
    successes,
    tallies,
    triggers,
    upstreams,
)

BOUNDED = [some_failed(at_least=1), some_successful(at_least=1)]


def verdict(trigger, states, resumed=False):
    """Class of the state the task takes, `None` if it may run."""
    found = trigger.rule(Tally.of(states), resumed)
    return None if found is None else type(found)


# -- laws --------------------------------------------------------------------------


@given(st.data(), triggers(), upstreams())
def test_a_trigger_ignores_the_order_of_states(data, trigger, states):
    shuffled = dict(data.draw(st.permutations(list(states.items()))))
    assert verdict(trigger, shuffled) is verdict(trigger, states)


@given(st.lists(st.tuples(st.text(), final_states())), st.integers(0, 10))
def test_the_tally_of_a_whole_is_the_sum_of_its_parts(pairs, cut):
    parts = Tally.of_pairs(pairs[:cut]) + Tally.of_pairs(pairs[cut:])
    assert parts == Tally.of_pairs(pairs)


@given(tallies())
def test_an_empty_tally_adds_nothing(tally):
    assert Tally() + tally == tally + Tally() == tally


@given(tallies())
def test_the_counts_of_a_tally_fit_together(tally):
    assert tally.skipped <= tally.successful
    assert tally.successful + tally.failed <= tally.finished <= tally.total
    assert len(tally.failed_names) == min(tally.failed, NAMED_FAILURES)


@given(triggers(), tallies(), st.booleans())
@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_pickling_changes_nothing(library, trigger, tally, resumed):
    copy = library.loads(library.dumps(trigger))
    assert copy.name == trigger.name
    assert copy.rule(tally, resumed) == trigger.rule(tally, resumed)


@given(upstreams())
def test_all_successful_refuses_exactly_if_one_upstream_task_did_not_succeed(states):
    refused = verdict(all_successful, states) is TriggerFailed
    assert refused == any(not state.is_successful() for state in states.values())


@given(upstreams())
def test_all_finished_accepts_every_final_state(states):
    assert verdict(all_finished, states) is None


@given(upstreams(successes(), min_size=1))
def test_after_successes_the_failure_triggers_refuse(states):
    assert verdict(any_failed, states) is TriggerFailed
    assert verdict(all_failed, states) is TriggerFailed
    assert verdict(any_successful, states) is None


@given(upstreams(), st.integers(0, 5), st.integers(0, 5))
def test_some_failed_counts_failures_between_its_bounds(states, low, high):
    failed = Tally.of(states).failed
    passes = verdict(some_failed(low, high), states) is None
    assert passes == (low <= failed <= high or not states)


# -- single rules ------------------------------------------------------------------


@pytest.mark.parametrize("library", [pickle, cloudpickle])
@pytest.mark.parametrize("trigger", SHIPPED_TRIGGERS, ids=lambda t: t.name)
def test_a_shipped_trigger_travels_as_its_name(trigger, library):
    sent = library.dumps(trigger)
    assert library.loads(sent) is trigger
    assert len(sent) < 100


@pytest.mark.parametrize("trigger", SHIPPED_TRIGGERS, ids=lambda t: t.name)
def test_a_shipped_trigger_is_called_what_it_is_named(trigger):
    assert getattr(module, trigger.name) is trigger


def test_a_trigger_of_ones_own_pickles_with_its_rule():
    mine = Trigger("mine", all_failed.rule)
    assert pickle.loads(pickle.dumps(mine)) == mine


def test_a_trigger_with_the_name_of_a_shipped_one_is_not_taken_for_it():
    mine = Trigger("all_successful", all_failed.rule)
    assert pickle.loads(pickle.dumps(mine)).rule is all_failed.rule


def test_always_run_is_another_word_for_all_finished():
    assert always_run is all_finished


@pytest.mark.parametrize(
    "trigger",
    [all_successful, all_failed, any_successful, any_failed, all_finished, *BOUNDED],
    ids=lambda t: t.name,
)
def test_without_upstream_tasks_the_task_runs(trigger):
    assert verdict(trigger, {}) is None


def test_without_upstream_tasks_not_all_skipped_skips():
    assert verdict(not_all_skipped, {}) is Skipped


def test_manual_only_pauses_until_the_run_is_resumed():
    for states in ({}, {"a": Completed()}, {"a": Failed()}):
        assert verdict(manual_only, states) is Paused
        assert verdict(manual_only, states, resumed=True) is None


def test_a_skip_counts_as_a_success():
    assert verdict(all_successful, {"a": Skipped(), "b": Completed()}) is None


def test_a_crash_counts_as_a_failure():
    assert verdict(any_failed, {"a": Crashed(), "b": Completed()}) is None
    assert verdict(all_failed, {"a": Crashed(), "b": TriggerFailed()}) is None


def test_a_cancelled_run_is_neither_success_nor_failure():
    states = {"a": Cancelled()}
    assert verdict(all_successful, states) is TriggerFailed
    assert verdict(any_failed, states) is TriggerFailed
    assert verdict(all_finished, states) is None


def test_all_finished_refuses_while_something_runs():
    assert verdict(all_finished, {"a": Pending()}) is TriggerFailed


def test_not_all_skipped_skips_after_nothing_but_skips():
    assert verdict(not_all_skipped, {"a": Skipped(), "b": Skipped()}) is Skipped
    assert verdict(not_all_skipped, {"a": Skipped(), "b": Completed()}) is None
    assert verdict(not_all_skipped, {"a": Skipped(), "b": Failed()}) is TriggerFailed


@pytest.mark.parametrize(
    ("trigger", "failed", "passes"),
    [
        (some_failed(at_least=0.5), 2, True),
        (some_failed(at_least=0.5), 1, False),
        (some_failed(at_least=1.0), 1, True),
        (some_failed(at_most=0.25), 1, True),
        (some_failed(at_most=0.25), 2, False),
        (some_failed(at_least=1, at_most=2), 0, False),
        (some_failed(), 4, True),
        (some_successful(at_least=3), 1, True),
        (some_successful(at_least=3), 2, False),
        (some_successful(at_most=0.5), 2, True),
        (some_successful(at_most=0.5), 1, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_bound_below_one_is_a_fraction_and_else_a_number(trigger, failed, passes):
    states = {str(i): Failed() if i < failed else Completed() for i in range(4)}
    assert (verdict(trigger, states) is None) == passes


def test_a_bound_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"some_failed\(at_least='2'\): the bound is"):
        some_failed(at_least="2")
    with pytest.raises(TypeError, match="at_most=True"):
        some_successful(at_most=True)


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="the bound is negative"):
        some_failed(at_least=-1)


# -- messages ----------------------------------------------------------------------


def test_a_refusal_names_the_trigger_and_the_first_failed_tasks():
    states = {name: Failed() for name in ("a", "b", "c", "d", "e")}
    refused = all_successful.rule(Tally.of(states), False)
    assert refused.message == (
        "trigger 'all_successful' refused: a, b, c and 2 more failed"
    )


@pytest.mark.parametrize(
    ("trigger", "states", "reason"),
    [
        (all_successful, {"a": Cancelled()}, "1 of 1 did not succeed"),
        (all_failed, {"a": Failed(), "b": Completed()}, "1 of 2 did not fail"),
        (any_successful, {"a": Failed()}, "none of 1 succeeded; a failed"),
        (any_failed, {"a": Completed()}, "none of 1 failed"),
        (all_finished, {"a": Pending()}, "1 of 1 did not finish"),
        (not_all_skipped, {"a": Failed(), "b": Skipped()}, "a failed"),
        (some_failed(at_most=0), {"a": Failed()}, "1 of 1 failed; a failed"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_refusal_says_why(trigger, states, reason):
    message = trigger.rule(Tally.of(states), False).message
    assert message == f"trigger {trigger.name!r} refused: {reason}"


def test_a_trigger_can_be_called_inside_one_of_ones_own():
    assert all_successful({object(): Completed()})
    assert not all_successful({object(): Failed()})
