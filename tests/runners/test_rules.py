"""Retries, limits, skips: random graphs end on every runner as the rules foretell."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
)
from prefect_dask_core.states import Completed
from prefect_dask_core.testing import scripted_children
from tests.engine.foretold_flows import (
    RAN,
    Foretold,
    build,
    ended,
    foretell,
    foretold_flows,
)

# The cluster is a fixture that no example changes.
shared_cluster = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def runners(client):
    return (
        SequentialTaskRunner(),
        ThreadPoolTaskRunner(2),
        DaskTaskRunner(cluster=client),
    )


def ended_on(runner, foretold):
    """End of each task of a flow that ran, in the form of `foretell`."""
    flow, tasks = build(foretold)
    RAN.clear()
    state = flow.run(task_runner=runner)
    return ended(foretold, [state[task] for task in tasks])


# -- retries -------------------------------------------------------------------------


@settings(shared_cluster, max_examples=15)
@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 4))
def test_a_child_completes_exactly_if_it_fails_no_oftener_than_it_may_retry(
    client, failures, retries
):
    scripts = {i: [*[ValueError("no")] * k, "ok"] for i, k in enumerate(failures)}
    with Flow("retries") as flow:
        many = scripted_children(scripts, retries=retries).map(failures)
    for runner in runners(client):
        state = flow.run(task_runner=runner)[many]
        assert [type(child) is Completed for child in state] == [
            k <= retries for k in failures
        ]
        assert [state.states.attempts(i) for i in range(len(failures))] == [
            min(k, retries) + 1 for k in failures
        ]


RETRY_OPTIONS = {
    "retries": st.integers(0, 3),
    "retry_delay_seconds": st.sampled_from([0, 0.001, [0, 0.002]]),
    "trigger": st.sampled_from(["all_successful", "all_successful", "all_finished"]),
}


@settings(shared_cluster, max_examples=25)
@given(
    foretold_flows(
        ("ok", "ok", "fail", "fail", "signal", "invalid", "late", "over", "crash"),
        options=RETRY_OPTIONS,
        max_attempts=4,
    )
)
def test_random_graphs_with_retries_end_as_foretold(client, foretold):
    for runner in runners(client):
        assert ended_on(runner, foretold) == foretell(foretold), runner


# -- skips ---------------------------------------------------------------------------


SKIP_OPTIONS = {
    "skip_on_upstream_skip": st.booleans(),
    "trigger": st.sampled_from(
        ["all_successful"] * 3
        + ["all_finished", "all_failed", "any_successful", "any_failed"]
    ),
}


@settings(shared_cluster, max_examples=40)
@given(
    foretold_flows(
        ("ok", "ok", "skip", "fail"), max_size=8, options=SKIP_OPTIONS, max_attempts=1
    )
)
def test_random_graphs_with_skips_end_as_foretold(client, foretold):
    for runner in runners(client):
        assert ended_on(runner, foretold) == foretell(foretold), runner


# -- limits --------------------------------------------------------------------------

#: Seconds. What is to end within it does nothing; what is not takes a minute.
LIMIT = 0.5
#: Few, because each slow attempt makes the test wait for the limit.
SLOW_SCRIPTS = (
    ("slow",),
    ("asleep",),
    ("slow", "ok"),
    ("asleep", "skip"),
    ("fail", "slow"),
)


@st.composite
def flows_with_a_slow_task(draw):
    """A task that is too slow in one of its children, and tasks below it."""
    script = draw(st.sampled_from(SLOW_SCRIPTS))
    over = draw(st.sampled_from([None, [0, 1, 2]]))
    beside = [] if over is None else [("ok",), ("ok",)]
    slow = Foretold(
        "slow",
        over=over,
        scripts=tuple(draw(st.permutations([script, *beside]))),
        options={"timeout_seconds": LIMIT, "retries": draw(st.integers(0, 1))},
    )
    options = {
        "timeout_seconds": st.sampled_from([None, 60]),
        "trigger": st.sampled_from(["all_successful", "all_finished", "any_failed"]),
    }
    acts = ("ok", "ok", "late")
    return draw(foretold_flows(acts, max_size=5, options=options, first=[slow]))


@settings(shared_cluster, max_examples=6)
@given(flows_with_a_slow_task())
def test_random_graphs_with_limits_end_as_foretold(client, foretold):
    for runner in runners(client):
        assert ended_on(runner, foretold) == foretell(foretold), runner
