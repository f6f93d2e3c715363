import logging
import pickle
import time
from contextlib import suppress
from datetime import timedelta

import cloudpickle
import pytest

from prefect_dask_core import (
    FilterTask,
    Flow,
    Parameter,
    SequentialTaskRunner,
    apply_map,
    case,
    ifelse,
    merge,
    pause_task,
    switch,
    tags,
    task,
    unmapped,
)
from prefect_dask_core.errors import GraphError, OptionTypeError, OptionValueError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.signals import PAUSE, SKIP
from prefect_dask_core.tasks import Constant, Task
from prefect_dask_core.triggers import all_finished, all_successful, not_all_skipped


@task
def identity(x):
    return x


@task
def plus(x, y=1):
    return x + y


@task
def say(text):
    return text


@task
def skip():
    raise SKIP("nothing here")


@task
def fail(x=None):
    raise ValueError("broken")


def in_order(flow, **parameters):
    return flow.run(parameters, task_runner=SequentialTaskRunner())


def kinds(state, tasks):
    return [type(state[made]).__name__ for made in tasks]


# -- case --------------------------------------------------------------------------


def branches():
    """A flow in which a parameter chooses one of two branches, merged at the end."""
    with Flow("branches") as flow:
        which = Parameter("which")
        with case(which, "a"):
            first = plus(say("a"), "!")
        with case(which, "b"):
            second = say("b")
        merged = merge(first, second)
        after = identity(first)
    return flow, first, second, merged, after


def test_a_block_runs_only_with_its_value(run):
    flow, first, second, merged, after = branches()
    state = run(flow, which="a")
    assert state[merged].result() == "a!"
    assert kinds(state, (first, second, after)) == ["Completed", "Skipped", "Completed"]
    state = run(flow, which="b")
    assert state[merged].result() == "b"
    assert kinds(state, (first, second, after)) == ["Skipped", "Completed", "Skipped"]
    state = run(flow, which="c")
    assert kinds(state, (first, second, merged)) == ["Skipped"] * 3
    assert state.is_successful()


def test_only_the_first_tasks_of_a_block_wait_for_the_comparison():
    flow, first, *_ = branches()
    (inner,) = flow.upstream_tasks(first)
    (comparison,) = flow.upstream_tasks(inner)
    assert comparison.name == "case(a)"
    (which,) = flow.upstream_tasks(comparison)
    assert which.name == "which"


def test_parameters_constants_and_earlier_tasks_are_no_part_of_a_block():
    with Flow("f") as flow:
        before = say("x")
        with case(before, "x"):
            inside = Parameter("inside")()
            inside_too = flow.add_task(Constant(3))
            plus(before, inside).set_upstream(inside_too)
    assert not flow.upstream_tasks(inside)
    assert not flow.upstream_tasks(inside_too)
    assert not flow.upstream_tasks(before)


def test_a_block_without_tasks_adds_nothing():
    with Flow("f") as flow:
        p = Parameter("p")()
        with case(p, 1):
            pass
        with case(p, 1):
            Parameter("q")()
    assert [found.name for found in flow.tasks] == ["p", "q"]


def test_a_block_that_is_left_by_an_exception_adds_nothing_and_is_closed():
    with Flow("f") as flow:
        with suppress(ZeroDivisionError), case(Parameter("p")(), 1):
            made = say("x")
            raise ZeroDivisionError
        later = say("y")
    assert not flow.upstream_tasks(made)
    assert not flow.upstream_tasks(later)


def test_a_task_that_could_not_be_bound_is_no_part_of_a_block():
    with Flow("f") as flow, case(Parameter("p"), 1):
        with pytest.raises(GraphError):
            say(made_wrong())
        kept = say("x")
    names = [found.name for found in flow.tasks if found is not kept]
    assert sorted(names) == ["case(1)", "p"]


def made_wrong():
    """A collection with a task that cannot be put together again."""

    class Strange(list):
        _fields = ("x",)

    return Strange([identity])


def test_the_inner_of_two_blocks_is_skipped_with_the_outer(run):
    with Flow("nested") as flow:
        outer, inner = Parameter("outer"), Parameter("inner")
        with case(outer, 1):
            with case(inner, 2):
                both = say("both")
            with case(inner, 3):
                other = say("other")
            always = say("always")
    state = run(flow, outer=1, inner=2)
    assert kinds(state, (both, other, always)) == ["Completed", "Skipped", "Completed"]
    state = run(flow, outer=0, inner=2)
    assert kinds(state, (both, other, always)) == ["Skipped"] * 3
    assert len(flow.upstream_tasks(both)) == 1


def test_a_task_of_the_inner_block_may_read_one_of_the_outer():
    with Flow("nested") as flow:
        p = Parameter("p")
        with case(p >= 1, True):
            first = identity(p)
            with case(p >= 2, True):
                second = plus(first)
    names = {found.name for found in flow.upstream_tasks(second)}
    assert names == {"identity", "case(True)"}
    assert in_order(flow, p=2)[second].result() == 3
    assert in_order(flow, p=1)[second].is_skipped()


def test_a_block_object_may_be_used_again():
    with Flow("f") as flow:
        block = case(Parameter("p"), 1)
        with block:
            first = say("a")
        with block:
            second = say("b")
    assert in_order(flow, p=1)[second].is_completed()
    assert len(flow.upstream_tasks(first)) == len(flow.upstream_tasks(second)) == 1


def test_mapped_tasks_of_a_block_run_or_are_skipped_as_a_whole(run):
    with Flow("f") as flow:
        with case(Parameter("p"), True):
            many = plus.map([1, 2, 3])
        total = identity(many)
    assert run(flow, p=True)[total].result() == [2, 3, 4]
    assert run(flow, p=False)[total].is_skipped()


def test_the_value_of_a_case_cannot_be_a_task():
    with Flow("f"):
        p = Parameter("p")()
        for value in (p, unmapped(3)):
            with pytest.raises(OptionTypeError, match="cannot be a task"):
                case(p, value)


def test_a_block_holds_tasks_of_one_flow_only():
    other = FlowGraph("other")
    with Flow("f"), case(Parameter("p")(), 1):
        say("x")
        with pytest.raises(GraphError, match="'f' and 'other'"):
            say("y", flow=other)
    assert not other.tasks


def test_what_is_compared_may_be_a_collection_or_a_value():
    with Flow("f") as flow:
        with case([Parameter("p"), 2], [1, 2]):
            picked = say("x")
        with case(1, 2):
            never = say("y")
    state = in_order(flow, p=1)
    assert kinds(state, (picked, never)) == ["Completed", "Skipped"]


# -- switch and ifelse -------------------------------------------------------------


def test_a_switch_lets_one_of_its_tasks_run(run):
    with Flow("f") as flow:
        made = [say(letter) for letter in "abc"]
        switch(Parameter("p"), dict(zip("abc", made, strict=True)))
        merged = merge(*made)
    state = run(flow, p="b")
    assert kinds(state, made) == ["Skipped", "Completed", "Skipped"]
    assert state[merged].result() == "b"


def test_the_comparisons_of_a_switch_are_tagged():
    with Flow("f") as flow, tags("mine"):
        assert switch(Parameter("p"), {"a": say("a")}) is None
    (comparison,) = flow.get_tasks(name='CompareValue: "a"')
    assert comparison.tags == {"switch", "mine"}


def test_a_switch_can_decide_item_by_item(run):
    with Flow("f") as flow:
        conditions = identity.map(["a", "b", "a"])
        first = plus.map([1, 2, 3])
        second = plus.map([1, 2, 3], unmapped(10))
        switch(conditions, {"a": first, "b": second}, mapped=True)
        merged = merge(first, second, mapped=True)
    assert run(flow)[merged].result() == [2, 12, 4]


def test_a_plain_value_cannot_be_a_branch():
    with Flow("f"):
        p = Parameter("p")()
        for branch in (3, [1, 2], Constant(3), unmapped(3)):
            with pytest.raises(OptionTypeError, match="cannot be skipped"):
                switch(p, {"a": branch})
        switch(p, {"a": [say("x")]})


def test_ifelse_goes_by_truth(run):
    with Flow("f") as flow:
        full, empty = say("full"), say("empty")
        ifelse(Parameter("rows"), full, empty)
        merged = merge(full, empty)
    assert run(flow, rows=[1])[merged].result() == "full"
    assert run(flow, rows=[])[merged].result() == "empty"


def test_a_branch_of_ifelse_may_be_missing():
    with Flow("f") as flow:
        only_if, only_else = say("if"), say("else")
        p = Parameter("p")
        ifelse(p, only_if, None)
        ifelse(p, None, only_else)
    state = in_order(flow, p=0)
    assert kinds(state, (only_if, only_else)) == ["Skipped", "Completed"]


def test_switch_and_ifelse_need_a_flow():
    with pytest.raises(GraphError, match=r"switch\(\) adds tasks"):
        switch(1, {})
    with pytest.raises(GraphError, match=r"ifelse\(\) adds tasks"):
        ifelse(1, Task("a"), None)
    with pytest.raises(GraphError, match="without a flow"):
        merge(Task("a"))


# -- merge -------------------------------------------------------------------------


def test_merge_goes_by_the_order_of_its_arguments_however_many_there_are():
    with Flow("f") as flow:
        nothing = [say(None) for _ in range(9)]
        merged = merge(*nothing, say("tenth"), say("eleventh"))
        mixed = merge(say("first"), 2)
        mixed_too = merge(2, say("first"))
    state = in_order(flow)
    assert state[merged].result() == "tenth"
    assert state[mixed].result() == "first"
    assert state[mixed_too].result() == 2


def test_merge_gives_none_if_all_values_are():
    with Flow("f") as flow:
        merged = merge(say(None), say(None))
    assert in_order(flow)[merged].result() is None


def test_merge_is_skipped_if_all_branches_are_and_fails_with_one_of_them():
    with Flow("f") as flow:
        skipped = merge(skip(), skip())
        failed = merge(say("x"), fail())
        lenient = merge(skip(), say("y"), fail(), trigger=all_finished)
    state = in_order(flow)
    assert kinds(state, (skipped, failed, lenient)) == [
        "Skipped",
        "TriggerFailed",
        "Completed",
    ]
    assert skipped.trigger is not_all_skipped


def test_a_plain_value_is_what_is_left_when_all_branches_are_skipped(run):
    with Flow("f") as flow:
        merged = merge(skip(), "default")
        other = merge(skip(), unmapped(Constant("default")))
    state = run(flow)
    assert state[merged].result() == state[other].result() == "default"
    assert merged.trigger is all_successful


def test_merge_takes_options_but_not_to_be_skipped():
    with Flow("f") as flow:
        named = merge(say("x"), name="joined", retries=2, skip_on_upstream_skip=False)
        for option in ("skip_on_upstream_skip", "propagate_skip"):
            with pytest.raises(OptionValueError, match="leave the option out"):
                merge(say("x"), **{option: True})
    assert (named.name, named.retries, named.skip_on_upstream_skip) == (
        "joined",
        2,
        False,
    )
    assert named in flow


def test_merge_can_be_given_its_flow():
    flow = Flow("f")
    merged = merge(Constant(None), Constant(5), flow=flow)
    assert in_order(flow)[merged].result() == 5


# -- FilterTask --------------------------------------------------------------------


def test_a_filter_drops_failures_and_nothings(run):
    @task
    def inverse(x):
        if x is None:
            raise SKIP
        return 1 / x

    with Flow("f") as flow:
        good = FilterTask()(inverse.map([1, 0, 2, None]))
    assert run(flow)[good].result() == [1.0, 0.5]


def test_a_filter_takes_a_function():
    with Flow("f") as flow:
        even = FilterTask(lambda n: n % 2 == 0, name="even")([1, 2, 3, 4])
        errors = FilterTask(lambda r: isinstance(r, Exception))(fail.map([1, 2]))
    state = in_order(flow)
    assert even.name == "even"
    assert state[even].result() == [2, 4]
    assert [str(error) for error in state[errors].result()] == ["broken"] * 2


def test_a_filter_logs_what_it_drops(caplog):
    def told(item):
        return f"dropped {item}" if item else ""

    with Flow("f") as flow:
        FilterTask(lambda n: n > 2, log_func=told)([0, 1, 3])
    with caplog.at_level(logging.INFO):
        in_order(flow)
    (line,) = (r.getMessage() for r in caplog.records if "drop" in r.getMessage())
    assert line.endswith("dropped 1")


def test_a_filter_runs_whatever_happened_above_unless_told_otherwise():
    plain = FilterTask()
    assert plain.trigger is all_finished
    assert not plain.skip_on_upstream_skip
    strict = FilterTask(trigger=all_successful, propagate_skip=True)
    assert strict.trigger is all_successful
    assert strict.skip_on_upstream_skip


def test_a_filter_needs_a_callable():
    with pytest.raises(OptionTypeError, match="takes an item"):
        FilterTask("even")


def test_the_tasks_of_control_flow_can_be_pickled():
    flow, *_ = branches()
    again = pickle.loads(cloudpickle.dumps(flow))
    assert again.run(which="a", task_runner=SequentialTaskRunner()).is_successful()
    pickle.loads(pickle.dumps(FilterTask()))


# -- pause_task --------------------------------------------------------------------


def test_a_paused_task_goes_on_when_resumed(run):
    begun = []

    @task
    def approve():
        begun.append(1)
        pause_task("look at this")
        return "approved"

    with Flow("f") as flow:
        approved = approve()
        after = identity(approved)
    state = in_order(flow)
    assert state.is_paused()
    assert state[approved].message == "look at this"
    state = flow.run(resume=state, task_runner=SequentialTaskRunner())
    assert state[after].result() == "approved"
    assert len(begun) == 2


@pytest.mark.parametrize("duration", [60, timedelta(minutes=1)])
def test_a_pause_may_have_an_end(duration):
    with pytest.raises(PAUSE) as raised:
        pause_task(duration=duration)
    due = raised.value.state.start_time
    assert abs(due - time.time() - 60) < 10


# -- together ----------------------------------------------------------------------


def test_a_case_inside_a_mapped_function_decides_item_by_item(run):
    def halve_or_triple(n):
        with case(n % 2, 0):
            half = n // 2
        with case(n % 2, 1):
            triple = 3 * n + 1
        return merge(half, triple)

    with Flow("Collatz") as flow:
        steps = apply_map(halve_or_triple, identity([6, 7, 8]))
    assert run(flow)[steps].result() == [3, 22, 4]
