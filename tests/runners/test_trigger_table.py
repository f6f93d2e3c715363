"""The trigger table: each shipped trigger against each way the tasks above can end."""

import pytest

from prefect_dask_core import Flow, Task, unmapped
from prefect_dask_core.signals import ENDRUN, PAUSE, SKIP
from prefect_dask_core.states import Cancelled
from prefect_dask_core.testing import scripted, scripted_children
from prefect_dask_core.triggers import (
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

#: Columns of the table.
TRIGGERS = {
    "all_successful": all_successful,
    "all_failed": all_failed,
    "any_successful": any_successful,
    "any_failed": any_failed,
    "all_finished": all_finished,
    "always_run": always_run,
    "manual_only": manual_only,
    "not_all_skipped": not_all_skipped,
    "some_failed()": some_failed(),
    "some_failed(at_least=1.0)": some_failed(at_least=1.0),
    "some_failed(at_least=2)": some_failed(at_least=2),
    "some_failed(at_least=0.5)": some_failed(at_least=0.5),
    "some_failed(at_most=1)": some_failed(at_most=1),
    "some_failed(1, 1)": some_failed(at_least=1, at_most=1),
    "some_successful(at_least=2)": some_successful(at_least=2),
    "some_successful(at_least=0.5)": some_successful(at_least=0.5),
    "some_successful(at_most=1)": some_successful(at_most=1),
    "some_successful(1, 1)": some_successful(at_least=1, at_most=1),
}

#: How the tasks above ended, a letter each:
#:   s  succeeded          t  refused by its trigger    p  paused
#:   k  skipped            c  crashed                   w  waits for a paused one
#:   f  failed             x  cancelled                 o  fan-out without children
#: and what becomes of the task below, if skips above are left to its trigger:
#:   R  runs               F  trigger failed            P  paused
#:   S  skipped            W  waits for its upstream
#
# The counting triggers pass as soon as the counts fit, whatever still waits above.
#          all_  any_
#          s  f  s  f  finished manual not_skipped  some_failed  some_successful
TABLE = {
    "":       "R  R  R  R  R R  P  S    R R R R R R  R R R R",
    "s":      "R  F  R  F  R R  P  R    R F F F R F  F R R R",
    "o":      "R  F  R  F  R R  P  R    R F F F R F  F R R R",
    "k":      "R  F  R  F  R R  P  S    R F F F R F  F R R R",
    "f":      "F  R  F  R  R R  P  F    R R F R R R  F F R F",
    "t":      "F  R  F  R  R R  P  F    R R F R R R  F F R F",
    "c":      "F  R  F  R  R R  P  F    R R F R R R  F F R F",
    "x":      "F  F  F  F  R R  P  F    R F F F R F  F F R F",
    "p":      "W  W  W  W  W W  P  W    R W W W R W  W W R W",
    "w":      "W  W  W  W  W W  P  W    R W W W R W  W W R W",
    "ss":     "R  F  R  F  R R  P  R    R F F F R F  R R F F",
    "sk":     "R  F  R  F  R R  P  R    R F F F R F  R R F F",
    "kk":     "R  F  R  F  R R  P  S    R F F F R F  R R F F",
    "sf":     "F  F  R  R  R R  P  F    R R F R R R  F R R R",
    "kf":     "F  F  R  R  R R  P  F    R R F R R R  F R R R",
    "ff":     "F  R  F  R  R R  P  F    R R R R F F  F F R F",
    "ft":     "F  R  F  R  R R  P  F    R R R R F F  F F R F",
    "fc":     "F  R  F  R  R R  P  F    R R R R F F  F F R F",
    "sx":     "F  F  R  F  R R  P  F    R F F F R F  F R R R",
    "fx":     "F  F  F  R  R R  P  F    R R F R R R  F F R F",
    "sp":     "W  W  R  W  W W  P  W    R W W W R W  W R R R",
    "kp":     "W  W  R  W  W W  P  W    R W W W R W  W R R R",
    "fp":     "W  W  W  R  W W  P  W    R R W R R R  W W R W",
    "fw":     "W  W  W  R  W W  P  W    R R W R R R  W W R W",
    "kkk":    "R  F  R  F  R R  P  S    R F F F R F  R R F F",
    "ssf":    "F  F  R  R  R R  P  F    R R F F R R  R R F F",
    "skf":    "F  F  R  R  R R  P  F    R R F F R R  R R F F",
    "sff":    "F  F  R  R  R R  P  F    R R R R F F  F F R R",
    "ftc":    "F  R  F  R  R R  P  F    R R R R F F  F F R F",
    "skftcx": "F  F  R  R  R R  P  F    R R R R F F  R F F F",
}  # fmt: skip

STATES = {
    "R": "Completed",
    "F": "TriggerFailed",
    "P": "Paused",
    "S": "Skipped",
    "W": "Pending",
}
#: What the body of a task above does; those that never run it stand beside it.
BODIES = {
    "s": "ok",
    "k": SKIP("not today"),
    "f": ValueError("bad luck"),
    "c": SystemExit(3),
    "x": ENDRUN(Cancelled("stopped")),
    "p": PAUSE("for you"),
}
ABOVE_IT = {"t": ValueError("further up"), "w": PAUSE("further up")}


def row(ends):
    """Name of the state each trigger gives, by trigger, skips left to it."""
    return dict(zip(TRIGGERS, map(STATES.get, TABLE[ends].split()), strict=True))


def propagated(ends):
    """The same where a skip above skips the task."""
    return dict.fromkeys(TRIGGERS, "Skipped") if "k" in ends else row(ends)


def ending(end):
    """Task that ends as a letter says."""
    if end == "o":
        return scripted("ok", name="none").map([])
    if end in ABOVE_IT:
        return scripted("ok", name=end)(upstream_tasks=[scripted(ABOVE_IT[end])()])
    return scripted(BODIES[end], name=end)()


def children_ending(ends):
    """Fan-out whose children end as letters say."""
    first = {i: [ABOVE_IT[end]] for i, end in enumerate(ends) if end in ABOVE_IT}
    second = {i: [BODIES[end]] for i, end in enumerate(ends) if end in BODIES}
    above = scripted_children(first, "ok", name="above").map(list(ends))
    return scripted_children(second, "ok", name="children").map(above)


def plain(ends):
    return [ending(end) for end in ends]


def fan_out(ends):
    return [children_ending(ends)]


def plain_beside_fan_out(ends):
    return [ending(ends[0]), children_ending(ends[1:])]


def judged(above, skip_on_upstream_skip):
    """A task for each trigger, below the same tasks."""
    return {
        name: _judge(trigger, skip_on_upstream_skip)(upstream_tasks=above)
        for name, trigger in TRIGGERS.items()
    }


def judged_by_child(items, above, skip_on_upstream_skip):
    """A mapped task for each trigger; child i is below child i of a fan-out above."""
    return {
        name: _judge(trigger, skip_on_upstream_skip).map(items, upstream_tasks=above)
        for name, trigger in TRIGGERS.items()
    }


def _judge(trigger, skip_on_upstream_skip):
    return Task(
        lambda item=None: "ran",
        name="judged",
        trigger=trigger,
        skip_on_upstream_skip=skip_on_upstream_skip,
    )


def kind(state):
    return type(state).__name__


def kinds(state, tasks):
    return {name: kind(state[task]) for name, task in tasks.items()}


CASES = [
    *((plain, ends) for ends in TABLE),
    *((fan_out, ends) for ends in TABLE if ends not in ("", "o")),
    *((plain_beside_fan_out, ends) for ends in TABLE if len(ends) > 1),
]


@pytest.mark.parametrize(
    ("shape", "ends"), CASES, ids=lambda v: getattr(v, "__name__", v or "none")
)
def test_a_trigger_judges_how_the_tasks_above_ended(runner, shape, ends):
    with Flow("table") as flow:
        above = shape(ends)
        skipping = judged(above, skip_on_upstream_skip=True)
        deciding = judged(above, skip_on_upstream_skip=False)
    state = flow.run(task_runner=runner)
    assert kinds(state, deciding) == row(ends)
    assert kinds(state, skipping) == propagated(ends)


LETTERS = "skftcxpw"
LETTERS_AS_ITEMS = list(LETTERS)  # a string would stand for itself


def kinds_of_child(state, tasks, index):
    return {name: kind(state[task][index]) for name, task in tasks.items()}


@pytest.mark.parametrize("expected", [row, propagated])
def test_a_trigger_is_put_to_each_child(runner, expected):
    with Flow("table") as flow:
        above = children_ending(LETTERS)
        tasks = judged_by_child(LETTERS_AS_ITEMS, [above], expected is propagated)
    state = flow.run(task_runner=runner)
    for index, letter in enumerate(LETTERS):
        assert kinds_of_child(state, tasks, index) == expected(letter), letter


@pytest.mark.parametrize("expected", [row, propagated])
def test_a_child_is_judged_by_its_own_and_by_the_common_task_above(runner, expected):
    with Flow("table") as flow:
        above = [children_ending(LETTERS), unmapped(ending("f"))]
        tasks = judged_by_child(LETTERS_AS_ITEMS, above, expected is propagated)
    state = flow.run(task_runner=runner)
    pairs = ("sf", "kf", "ff", "ft", "fc", "fx", "fp", "fw")
    for index, pair in enumerate(pairs):
        assert kinds_of_child(state, tasks, index) == expected(pair), pair


def test_children_with_nothing_above_them_are_judged_as_tasks_without_upstream(runner):
    with Flow("table") as flow:
        tasks = judged_by_child([1, 2], [], skip_on_upstream_skip=False)
    state = flow.run(task_runner=runner)
    for index in (0, 1):
        assert kinds_of_child(state, tasks, index) == row("")


@pytest.mark.parametrize("ends", LETTERS)
@pytest.mark.parametrize("expected", [row, propagated])
def test_a_task_with_nothing_to_map_over_fails_where_it_would_run(
    runner, ends, expected
):
    with Flow("table") as flow:
        # What succeeds gives a string here, which stands for itself.
        tasks = judged_by_child(ending(ends), [], expected is propagated)
    state = flow.run(task_runner=runner)
    would = {"Completed": "Failed"}
    found = kinds(state, tasks)
    assert found == {name: would.get(k, k) for name, k in expected(ends).items()}


@pytest.mark.parametrize("ends", ["p", "w"])
@pytest.mark.parametrize("shape", [ending, children_ending])
def test_a_trigger_that_does_not_wait_runs_on_the_value_of_what_waits(
    runner, shape, ends
):
    with Flow("table") as flow:
        tasks = [
            Task(lambda x: "ran", name="judged", trigger=trigger)(shape(ends))
            for trigger in (some_failed(), some_successful(at_most=1))
        ]
    state = flow.run(task_runner=runner)
    assert [kind(state[task]) for task in tasks] == ["Completed"] * 2


def test_a_trigger_that_pauses_lets_a_resumed_run_start(runner):
    with Flow("table") as flow:
        asked = Task(lambda: "ran", name="asked", trigger=manual_only)(
            upstream_tasks=plain("sfc")
        )
    paused = flow.run(task_runner=runner)
    state = flow.run(resume=paused, task_runner=runner)
    assert (kind(paused[asked]), kind(state[asked])) == ("Paused", "Completed")
