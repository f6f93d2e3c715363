"""What the reference pages of the graph generations (0.2, 0.11, 0.14) show and say.

Each example and each statement of the pages on tasks and parameters, in our own words.
Options that keep or cache results have their tests elsewhere.
"""

from __future__ import annotations

import time
import typing
from datetime import timedelta

import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    context,
    group,
    tags,
    task,
    triggers,
    unmapped,
)
from prefect_dask_core.signals import FAIL, RETRY, SKIP, SUCCESS, WAIT
from prefect_dask_core.states import Failed
from prefect_dask_core.testing import fails, scripted


class AddTask(Task):
    def run(self, x, y):
        return x + y


@task
def add(x: int, y: int = 10) -> int:
    return x + y


@task
def give(value):
    return value


#: What ran in this process, and when. Bodies travel by name, so all write here.
NOTES = []


@pytest.fixture(autouse=True)
def _no_notes():
    NOTES.clear()


@task
def note(text, fails_first=False):
    NOTES.append((text, time.monotonic()))
    if fails_first and len(NOTES) == 1:
        raise ValueError(text)


def in_order(flow, **parameters):
    return flow.run(parameters, task_runner=SequentialTaskRunner())


# -- tasks -------------------------------------------------------------------------


def test_a_task_is_a_subclass_with_a_method_run(run):
    with Flow("f") as flow:
        added = AddTask()(1, 2)
    assert run(flow)[added].result() == 3


def test_a_task_is_a_template_for_others_with_other_values():
    template = AddTask(name="sum", tags=["math"], max_retries=0)
    with Flow("f") as flow:
        first = template(1, 2)
        second = template(5, 7)
    assert first is not template
    assert first is not second
    assert (first.name, first.tags) == ("sum", {"math"})
    assert template not in flow
    state = in_order(flow)
    assert (state[first].result(), state[second].result()) == (3, 12)


def test_a_task_can_be_bound_itself_once_per_flow():
    template = AddTask()
    with Flow("f") as flow:
        assert template.bind(1, y=2) is template
        with pytest.raises(ValueError, match="was bound before"):
            template.bind(3, y=4)
    assert in_order(flow)[template].result() == 3
    with Flow("g") as other:
        template.bind(3, y=4)
    assert in_order(other)[template].result() == 7


def test_a_task_runs_without_a_flow_as_a_plain_function():
    assert AddTask().run(1, y=2) == 3
    assert add.run(1) == 11
    assert Task().run() is None


def test_a_body_takes_no_variable_arguments_and_no_reserved_names():
    def variable(*args):
        return args

    with Flow("f"), pytest.raises(TypeError, match=r"\*args"):
        Task(variable)(1)
    for name in ("upstream_tasks", "task_args", "mapped"):
        namespace = {}
        exec(f"def body({name}): pass", namespace)
        with pytest.raises(TypeError, match=name):
            Task(namespace["body"])(1)


def test_a_call_can_change_options_of_the_copy():
    with Flow("f"):
        made = add(1, task_args={"name": "other", "max_retries": 0})
    assert (made.name, add.name) == ("other", "add")


def test_a_copy_differs_in_what_it_is_given():
    twin = AddTask(name="first", slug="a").copy(name="second")
    assert (twin.name, twin.slug) == ("second", "a-copy")
    with pytest.raises(AttributeError, match="no option or attribute 'colour'"):
        twin.copy(colour="red")


def test_tasks_may_come_first_without_giving_a_value(run):
    with Flow("f") as flow:
        note("second", upstream_tasks=[note("first")])
    run(flow)
    assert [text for text, _ in NOTES] == ["first", "second"]


def test_dependencies_can_be_set_afterwards(run):
    with Flow("f") as flow:
        one, two, three = give(1), give(2), AddTask()
        assert three.set_upstream(one, key="x") is three
        assert two.set_downstream(three, key="y") is two
        gate = give("open")
        gate.set_downstream(three)
    assert {edge.key for edge in flow.edges_to(three)} == {"x", "y", None}
    assert run(flow)[three].result() == 3


def test_all_dependencies_can_be_set_at_once():
    with Flow("f") as flow:
        first, last, added = give("first"), give("last"), AddTask()
        found = added.set_dependencies(
            upstream_tasks=[first],
            downstream_tasks=[last],
            keyword_tasks={"x": 1, "y": 2},
        )
    assert found is added
    assert flow.upstream_tasks(added) == {first}
    assert flow.downstream_tasks(added) == {last}
    assert in_order(flow)[added].result() == 3


def test_dependencies_need_a_flow():
    made = Task("t")
    for call in (
        made.set_dependencies,
        lambda: made.set_upstream(Task("u")),
        lambda: made.set_downstream(Task("d")),
        made.bind,
    ):
        with pytest.raises(ValueError, match="without a flow"):
            call()
    flow = Flow("f")
    made.set_dependencies(flow=flow)
    made.set_upstream(Task("u"), flow=flow)
    made.set_downstream(Task("d"), flow=flow)
    assert len(flow.tasks) == 3


def test_dependencies_can_be_mapped(run):
    with Flow("f") as flow:
        mapped = AddTask()
        mapped.set_dependencies(
            keyword_tasks={"x": [1, 2], "y": unmapped(10)}, mapped=True
        )
        again = Task(lambda n: 2 * n, name="again")
        again.set_upstream(mapped, key="n", mapped=True)
        last = Task(lambda n: 2 * n, name="last")
        again.set_downstream(last, key="n", mapped=True)
    state = run(flow)
    assert state[again].result() == [22, 24]
    assert state[last].result() == [44, 48]
    assert len(state[last]) == 2


def test_a_cycle_is_found_when_asked_for():
    flow = Flow("f")
    one, two = Task("one"), Task("two")
    one.set_upstream(two, flow=flow)
    with pytest.raises(ValueError, match="cycle"):
        two.set_dependencies(flow=flow, upstream_tasks=[one], validate=True)


# -- mapping -----------------------------------------------------------------------


def test_a_task_is_mapped_over_one_argument_but_not_over_the_other(run):
    with Flow("f") as flow:
        values = give([1, 2, 3])
        mapped = add.map(x=values, y=unmapped(100))
    assert run(flow)[mapped].result() == [101, 102, 103]


def test_arguments_are_taken_element_by_element(run):
    with Flow("f") as flow:
        mapped = add.map(give([1, 2]), give([10, 20]))
    assert run(flow)[mapped].result() == [11, 22]


def test_a_mapped_call_takes_upstream_tasks_and_options(run):
    with Flow("f") as flow:
        before = give.map([1, 2])
        mapped = add.map([1, 2], upstream_tasks=[before], task_args={"name": "m"})
        same = add([1, 2], mapped=True)
    assert mapped.name == "m"
    assert before in flow.upstream_tasks(mapped)
    assert run(flow)[same].result() == [11, 12]
    other = Flow("g")
    assert add.map([1], flow=other) in other


# -- signatures --------------------------------------------------------------------


def test_inputs_and_outputs_are_read_from_the_signature():
    assert add.inputs() == {
        "x": {"type": int, "required": True, "default": None},
        "y": {"type": int, "required": False, "default": 10},
    }
    assert add.outputs() is int
    assert AddTask().inputs()["x"]["type"] is typing.Any
    assert AddTask().outputs() is typing.Any
    assert list(add.inputs()) == ["x", "y"]  # the first generation gave the names


def test_inputs_can_be_overridden_for_more_control():
    class Told(Task):
        def run(self, **values):
            return values

        def inputs(self):
            return {"x": {"type": int, "required": True, "default": None}}

    assert Told().serialize()["inputs"] == {"x": {"type": "int", "required": True}}


def test_the_number_of_outputs_allows_unpacking(run):
    @task
    def annotated() -> tuple[int, int]:
        return 1, 2

    with Flow("f") as flow:
        one, two = annotated()
        three, four = give((3, 4), task_args={"nout": 2})
        (only,) = give((5,), task_args={"nout": 1})
    state = run(flow)
    assert [state[made].result() for made in (one, two, three, four, only)] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert annotated.nout == 2
    with Flow("g"), pytest.raises(TypeError, match="nout="):
        iter(give(1))


# -- comparisons -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (lambda t: t.is_equal(3), True),
        (lambda t: t.is_not_equal(3), False),
        (lambda t: t.not_(), False),
        (lambda t: t.or_(5), 3),
    ],
)
def test_what_python_cannot_overload_is_a_method(run, operation, found):
    with Flow("f") as flow:
        result = operation(give(3))
    assert run(flow)[result].result() == found


def test_a_description_of_a_task_is_a_dict():
    found = add.serialize()
    assert (found["name"], found["max_retries"]) == ("add", 0)
    assert add.serialize(add) == found  # as the first generation called it


# -- options -----------------------------------------------------------------------


def test_a_task_has_a_name_a_slug_and_tags():
    made = Task(name="load", slug="load-it", tags=["a", "b"])
    assert (made.name, made.slug, made.tags) == ("load", "load-it", {"a", "b"})
    assert AddTask().name == "AddTask"
    flow = Flow("f", tasks=[made])
    assert flow.slugs[made] == "load-it"
    with pytest.raises(ValueError, match="slug 'load-it' already"):
        flow.add_task(Task(slug="load-it"))
    with pytest.raises(TypeError, match="tags"):
        Task(tags="a")


def test_a_slug_is_made_when_a_task_is_added():
    with Flow("f") as flow, tags("x"):
        first, second = give(1), give(2)
    assert (flow.slugs[first], flow.slugs[second]) == ("give-x-1", "give-x-2")


def test_the_first_generation_had_descriptions_and_groups():
    with group("etl"):
        made = Task(name="load", description="loads", slug="a")
    assert (made.description, made.group) == ("loads", "etl")
    assert Task(group="own").group == "own"


def test_a_failure_is_retried_as_often_as_allowed(run):
    with Flow("f") as flow:
        enough = fails(
            2, then="done", max_retries=2, retry_delay=timedelta(milliseconds=1)
        )()
        few = fails(2, max_retries=1, retry_delay=timedelta(milliseconds=1))()
    state = run(flow)
    assert state[enough].result() == "done"
    assert state[few].is_failed()


def test_an_attempt_waits_for_its_delay(run):
    options = {"max_retries": 1, "retry_delay": timedelta(milliseconds=60)}
    with Flow("f") as flow:
        note("begun", fails_first=True, task_args=options)
    run(flow)
    (_, first), (_, second) = NOTES
    assert second - first >= 0.055


def test_retries_and_their_delay_belong_together():
    with pytest.raises(ValueError, match="without a delay"):
        Task(max_retries=1)
    with pytest.raises(ValueError, match="without retries"):
        Task(retry_delay=timedelta(1))


def test_a_task_that_takes_too_long_is_ended(run):
    @task(timeout_seconds=0.05)
    def slow():
        while True:
            time.sleep(0.005)

    with Flow("f") as flow:
        made = slow()
    assert type(run(flow)[made]).__name__ == "TimedOut"


def test_a_timeout_is_a_whole_number_of_seconds():
    assert Task(timeout=3).timeout == 3
    with pytest.raises(TypeError, match="timeout"):
        Task(timeout=0.5)
    with pytest.raises(TypeError, match="timeout"):
        Task(timeout="3")
    assert Task(timeout=timedelta(seconds=3)).timeout == 3  # the first generation


def test_a_trigger_decides_whether_a_task_runs(run):
    with Flow("f") as flow:
        broken = scripted(ValueError("no"))()
        default = give(broken)
        cleanup = Task(name="cleanup", trigger=triggers.any_failed)(
            upstream_tasks=[broken]
        )
    state = run(flow)
    assert type(state[default]).__name__ == "TriggerFailed"
    assert state[cleanup].is_successful()


def test_a_skip_is_passed_on_unless_told_otherwise(run):
    with Flow("f") as flow:
        skipped = scripted(SKIP("not today"))()
        default = Task(name="default")(upstream_tasks=[skipped])
        stays = Task(name="stays", skip_on_upstream_skip=False)(
            upstream_tasks=[skipped]
        )
        older = Task(name="older", propagate_skip=False)(upstream_tasks=[skipped])
    state = run(flow)
    assert state[default].is_skipped()
    for made in (stays, older):
        assert state[made].is_successful()
        assert not state[made].is_skipped()


# -- signals -----------------------------------------------------------------------


def test_a_value_is_returned_and_an_error_is_a_failure(run):
    with Flow("f") as flow:
        good = scripted("value")()
        bad = scripted(ValueError("no"))()
    state = run(flow)
    assert state[good].result() == "value"
    assert isinstance(state[bad], Failed)
    assert isinstance(state[bad].result(raise_on_failure=False), ValueError)


def test_fail_leads_to_retries(run):
    with Flow("f") as flow:
        made = scripted(FAIL("once"), "done", retries=1)()
    assert run(flow)[made].result() == "done"


def test_success_is_a_success(run):
    with Flow("f") as flow:
        made = scripted(SUCCESS("early", result=5))()
        after = give(made)
    state = run(flow)
    assert (state[made].name, state[made].message) == ("Completed", "early")
    assert state[made].result() == state[after].result() == 5


def test_retry_goes_beyond_the_retries_of_the_task(run):
    with Flow("f") as flow:
        made = scripted(RETRY("again"), RETRY("and again"), "done")()
    assert run(flow)[made].result() == "done"


def test_skip_reaches_the_tasks_below(run):
    with Flow("f") as flow:
        after = give(give(scripted(SKIP)()))
    assert run(flow)[after].is_skipped()


def test_wait_ends_the_pass_and_the_task_can_be_run_again():
    @task
    def wait_for_it():
        if context.get("is_waiting"):
            return "there"
        raise WAIT("not yet")

    with Flow("f") as flow:
        waiting = wait_for_it()
        after = give(waiting)
        regardless = Task(
            lambda: "ran", name="regardless", trigger=lambda states: True
        )(upstream_tasks=[waiting])
    state = in_order(flow)
    assert state[waiting].name == "Waiting"
    assert state[after].name == "WaitingForUpstream"
    assert state[regardless].result() == "ran"
    state = flow.run(resume=state, task_runner=SequentialTaskRunner())
    assert state[after].result() == "there"


# -- parameters --------------------------------------------------------------------


def test_a_parameter_is_a_required_input_of_a_flow(run):
    with Flow("f") as flow:
        added = add(Parameter("x"), Parameter("y", default=5))
    assert run(flow, x=1)[added].result() == 6
    assert run(flow, x=1, y=2)[added].result() == 3
    with pytest.raises(ValueError, match="needs the parameter 'x'"):
        run(flow)
    with pytest.raises(ValueError, match="no parameter 'z'"):
        run(flow, x=1, z=2)


def test_the_slug_of_a_parameter_is_its_name_and_stays_so():
    parameter = Parameter("x", tags=["a"])
    assert (parameter.slug, parameter.tags) == ("x", {"a"})
    for name in ("slug", "name"):
        with pytest.raises(AttributeError):
            setattr(parameter, name, "y")
    flow = Flow("f", tasks=[parameter])
    with pytest.raises(ValueError, match="slug 'x' already"):
        flow.add_task(Parameter("x"))


def test_the_default_of_a_required_parameter_is_ignored(run):
    with Flow("f") as flow:
        Parameter("x", default=1, required=True)()
    with pytest.raises(ValueError, match="needs the parameter 'x'"):
        run(flow)


def test_a_copy_of_a_parameter_has_a_new_name():
    twin = Parameter("x", default=1).copy("y", tags=["a"])
    assert (twin.name, twin.slug, twin.default, twin.tags) == ("y", "y", 1, {"a"})
    with pytest.raises(AttributeError):
        twin.copy("z", colour="red")


def test_a_parameter_runs_to_its_value():
    parameter = Parameter("x", default=1)
    assert parameter.run() == 1
    with context(parameters={"x": 2}):
        assert parameter.run() == 2
    with pytest.raises(FAIL, match="required"):
        Parameter("y").run()


def test_a_parameter_describes_itself():
    parameter = Parameter("x", default=1, tags=["a"])
    assert parameter.info() == {"name": "x", "required": False, "default": 1}
    found = parameter.serialize()
    assert (found["default"], found["required"], found["tags"]) == (1, False, ["a"])
    assert found["slug"] == "x"
