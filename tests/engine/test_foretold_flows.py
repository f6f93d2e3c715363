"""Retries, delays and limits on a clock that moves only when told."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_dask_core import Flow, Task, context
from prefect_dask_core.engine.whole import run_node, state_of
from prefect_dask_core.planning import make_plan
from prefect_dask_core.testing import FakeShell, scripted_children
from tests.engine.foretold_flows import (
    ENDS,
    RAN,
    build,
    ended,
    foretell,
    foretold_flows,
)

calm = settings(deadline=None)
# Whole seconds, whose sums are exact.
seconds = st.integers(0, 200)
delays = seconds | st.lists(seconds, min_size=1, max_size=4)


def run_on(shell, flow, tasks):
    """States of tasks, node after node as the sequential runner does."""
    plan, above, states = make_plan(flow), {}, {}
    for node in plan.nodes:
        if not node.constant:
            measured = node.index in plan.measured
            outcome = run_node(
                node, above, {"parameters": {}}, shell, measured=measured
            )
            above[node.index] = [outcome]
            states[node.task] = state_of([outcome])
    return [states[task] for task in tasks]


def delay_after(attempt, delay):
    """Seconds between an attempt and the next; the last of several repeats."""
    if isinstance(delay, list):
        return delay[min(attempt, len(delay)) - 1]
    return delay


@calm
@given(
    foretold_flows(
        [act for act in ENDS if act != "asleep"],
        max_size=8,
        max_attempts=4,
        options={
            "timeout_seconds": st.just(60),
            "retries": st.integers(0, 3),
            "retry_delay_seconds": delays,
            "skip_on_upstream_skip": st.booleans(),
            "trigger": st.sampled_from(
                ["all_successful", "all_successful", "all_finished", "any_failed"]
            ),
        },
    )
)
def test_random_graphs_end_as_foretold(foretold):
    shell = FakeShell()
    flow, tasks = build(foretold, linger=lambda: shell.spend(61))
    RAN.clear()
    states = run_on(shell, flow, tasks)
    assert ended(foretold, states) == foretell(foretold)


@calm
@given(
    st.lists(seconds, min_size=1, max_size=5),
    st.integers(1, 200),
    st.integers(0, 4),
)
def test_an_attempt_times_out_exactly_if_it_takes_longer_than_the_limit(
    durations, limit, retries
):
    shell, begins = FakeShell(), []

    def work():
        begins.append(shell.now())
        shell.spend(durations[min(context.task_run_count, len(durations)) - 1])

    with Flow("limits") as flow:
        task = Task(work, timeout_seconds=limit, retries=retries)()
    (state,) = run_on(shell, flow, [task])
    lasting = [durations[min(n, len(durations) - 1)] for n in range(retries + 1)]
    in_time = [n for n, duration in enumerate(lasting) if duration <= limit]
    assert type(state).__name__ == ("Completed" if in_time else "TimedOut")
    assert len(begins) == (in_time[0] if in_time else retries) + 1
    # An attempt that was ended took no longer than it may.
    assert all(b <= a + limit for a, b in pairwise(begins))


@calm
@given(st.lists(seconds, min_size=1, max_size=6), st.integers(0, 4), delays)
def test_no_attempt_begins_before_its_delay_is_over(durations, retries, delay):
    shell, begins, ends = FakeShell(), {}, {}

    def work(duration):
        key = context.map_index, context.task_run_count
        begins[key] = shell.now()
        shell.spend(duration)
        ends[key] = shell.now()
        raise ValueError("no")

    with Flow("delays") as flow:
        many = Task(work, retries=retries, retry_delay_seconds=delay).map(durations)
    run_on(shell, flow, [many])
    assert len(begins) == len(durations) * (retries + 1)
    for (index, attempt), begin in begins.items():
        if attempt > 1:
            due = ends[index, attempt - 1] + delay_after(attempt - 1, delay)
            assert begin >= due


@calm
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 4), delays)
def test_children_wait_for_their_next_attempts_at_the_same_time(
    failures, retries, delay
):
    shell = FakeShell()
    scripts = {i: [*[OSError()] * k, "ok"] for i, k in enumerate(failures)}
    with Flow("delays") as flow:
        many = scripted_children(
            scripts, retries=retries, retry_delay_seconds=delay
        ).map(failures)
    run_on(shell, flow, [many])
    # Bodies take no time here: the clock shows the waits of whoever waits longest.
    most = min(max(failures), retries)
    assert shell.now() == sum(delay_after(n, delay) for n in range(1, most + 1))
    assert len(shell.waits) <= most
