"""Hooks and retry conditions of tasks."""

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import Flow, SequentialTaskRunner, Task, flow, task
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.whole import run_node
from prefect_dask_core.errors import OptionTypeError, OptionValueError
from prefect_dask_core.hooks import name_of
from prefect_dask_core.results import LocalResult
from prefect_dask_core.retries import jittered
from prefect_dask_core.signals import SKIP
from prefect_dask_core.states import Cached
from prefect_dask_core.testing import FakeShell, fails, scripted


def note(seen):
    def hook(task, task_run, state):
        seen.append((state.name, task_run.run_count, task_run.name))

    return hook


def hooked(seen):
    return {
        name: [note(seen)] for name in ("on_running", "on_completion", "on_failure")
    }


def test_hooks_see_each_attempt_and_the_end():
    seen = []
    fails(1, then="ok", retries=1, **hooked(seen))()
    assert seen == [
        ("Running", 1, "fails"),
        ("Retrying", 2, "fails"),
        (
            "Completed",
            2,
            "fails",
        ),
    ]
    seen.clear()
    with pytest.raises(RuntimeError):
        fails(2, then="ok", retries=1, **hooked(seen))()
    assert [name for name, _, _ in seen] == ["Running", "Retrying", "Failed"]


def test_hooks_of_the_generations_differ_in_when_they_are_called():
    each, last = [], []
    legacy = fails(
        3, then="ok", retries=1, on_failure=lambda task, state: each.append(state.name)
    )
    modern = fails(3, then="ok", retries=1, on_failure=[lambda *a: last.append(1)])
    for made in (legacy, modern):
        made(return_state=True)
    assert (len(each), len(last)) == (2, 1)


def test_hooks_are_silent_where_the_body_never_started(flow_runner):
    seen = []
    below = Task(lambda x: x, name="below", **hooked(seen))

    @flow(task_runner=flow_runner)
    def body():
        below.submit(fails(1, then=1).submit())

    body()
    assert seen == []


def test_a_skip_by_the_body_is_a_completion():
    seen = []
    scripted(SKIP("no"), name="skips", **hooked(seen))()
    assert [name for name, _, _ in seen] == ["Running", "Skipped"]


def test_hooks_are_called_in_graph_flows_too_and_per_child():
    seen = []
    made = Task(lambda x: x, name="load", **hooked(seen))
    with Flow("graph") as graph:
        made.map([1, 2])
    graph.run(task_runner=SequentialTaskRunner())
    assert seen == [
        ("Running", 1, "load[0]"),
        ("Completed", 1, "load[0]"),
        ("Running", 1, "load[1]"),
        ("Completed", 1, "load[1]"),
    ]


def test_a_found_value_is_a_completion(tmp_path):
    seen = []
    made = Task(
        lambda: 1,
        name="kept",
        target="x",
        result=LocalResult(str(tmp_path)),
        on_completion=[lambda t, r, s: seen.append(type(s))],
    )
    made()
    made()
    assert seen[1] is Cached


def test_a_broken_hook_changes_nothing_and_the_next_is_called(caplog):
    seen = []

    def broken(task, task_run, state):
        raise KeyError("hook")

    async def asynchronous(task, task_run, state):
        seen.append(state.name)
        raise ValueError("late")

    made = Task(lambda: 1, name="x", on_completion=[broken, asynchronous])
    assert made() == 1
    assert seen == ["Completed"]
    assert "hook broken raised KeyError('hook')" in caplog.text
    assert "hook asynchronous raised ValueError('late')" in caplog.text


def test_methods_add_hooks_and_leave_copies_alone():
    seen = []

    @task
    def load():
        return 1

    before = load.with_options(name="before")
    for name in ("on_running", "on_completion", "on_failure"):
        hook = note(seen)
        assert getattr(load, name)(hook) is hook
    load()
    before()
    assert [name for name, _, _ in seen] == ["Running", "Completed"]
    assert len(load.on_completion_hooks) == 1


def test_with_options_replaces_hooks_unless_there_are_none():
    made = Task(len, name="x", on_completion=[print])
    assert made.with_options(on_completion=[]).on_completion_hooks == (print,)
    assert made.with_options(on_completion=[repr]).on_completion_hooks == (repr,)


@pytest.mark.parametrize("hooks", [print, "print", 3, [3]])
@pytest.mark.parametrize("option", ["on_running", "on_completion"])
def test_hooks_are_a_list_of_callables(option, hooks):
    with pytest.raises(OptionTypeError, match=f"task 'len': {option}"):
        Task(len, **{option: hooks})


def test_a_hook_has_a_name_for_messages():
    class Hook:
        def __call__(self): ...

    assert name_of(functools.partial(print)) == "print"
    assert name_of(Hook()) == "Hook"


# -- retry conditions --------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("answer", "attempts"), [(True, 3), (False, 1)])
def test_a_condition_decides_whether_to_attempt_again(asynchronous, answer, attempts):
    seen = []

    def condition(task, task_run, state):
        seen.append((task.name, task_run.run_count, state.message))
        return answer

    async def later(*args):
        return condition(*args)

    made = fails(
        5, then=1, retries=2, retry_condition_fn=later if asynchronous else condition
    )
    assert made(return_state=True).is_failed()
    assert len(seen) == min(attempts, 2)
    assert seen[0][:2] == ("fails", 1)


def test_a_condition_that_raises_says_no(caplog):
    def broken(task, task_run, state):
        raise KeyError("condition")

    made = fails(1, then=1, retries=2, retry_condition_fn=broken)
    assert made(return_state=True).is_failed()
    assert "retry condition broken raised KeyError" in caplog.text


def test_a_condition_may_be_any_callable():
    class Always:
        def __call__(self, task, task_run, state):
            return True

    assert fails(1, then=1, retries=1, retry_condition_fn=Always())() == 1
    with pytest.raises(OptionTypeError, match="retry_condition_fn=3"):
        Task(len, retry_condition_fn=3)


def test_only_some_failures_are_retried():
    made = scripted(KeyError("a"), 1, retries=1, retry_on=KeyError)
    assert made() == 1
    made = scripted(ValueError("a"), 1, retries=1, retry_on=(KeyError, OSError))
    assert made(return_state=True).is_failed()


# -- jitter ------------------------------------------------------------------------

delays = st.floats(0.001, 1e6)
factors = st.floats(0.001, 1e3)


@given(delays, factors, st.floats(0, 1))
def test_a_jittered_delay_stays_within_its_bounds(delay, factor, fraction):
    found = jittered(delay, factor, fraction)
    k = 1 + factor
    low = 0.0 if k >= 50 else math.log2(2**k / (2**k - 1))
    assert found >= delay * low * (1 - 1e-6)
    assert found <= delay * k * (1 + 1e-6)


@given(delays, factors, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_is_a_longer_delay(delay, factor, one, other):
    low, high = sorted((one, other))
    assert jittered(delay, factor, low) <= jittered(delay, factor, high)


def test_a_delay_is_jittered_between_attempts():
    made = fails(1, then=1, retries=1, retry_delay_seconds=10, retry_jitter_factor=0.5)
    shell = FakeShell()
    node = Node(0, "x", made, made.identity, (), mapped=False, constant=False)
    run_node(node, {}, {}, shell, measured=False)
    (waited,) = shell.waits
    assert 6 < waited <= 15


@pytest.mark.parametrize("factor", [-1, math.inf, math.nan])
def test_a_jitter_is_finite_and_not_negative(factor):
    with pytest.raises(OptionValueError, match="retry_jitter_factor"):
        Task(len, retry_jitter_factor=factor)


@pytest.mark.parametrize("factor", ["1", True])
def test_a_jitter_is_a_number(factor):
    with pytest.raises(OptionTypeError, match="retry_jitter_factor"):
        Task(len, retry_jitter_factor=factor)
