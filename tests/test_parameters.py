import pickle
from datetime import date, datetime, timedelta, timezone

import pytest

from prefect_dask_core.context import context
from prefect_dask_core.errors import DuplicateSlugError, GraphError, OptionTypeError
from prefect_dask_core.flows import Flow
from prefect_dask_core.parameters import NO_DEFAULT, DateTimeParameter, Parameter
from prefect_dask_core.runners.sequential import SequentialTaskRunner
from prefect_dask_core.signals import FAIL
from prefect_dask_core.tasks import Task, task


@task
def double(x):
    return 2 * x


def test_a_parameter_without_a_default_is_required():
    assert Parameter("x").required
    assert Parameter("x").default is NO_DEFAULT


@pytest.mark.parametrize("default", [3, None, NO_DEFAULT.value])
def test_a_parameter_with_a_default_is_not_required(default):
    assert not Parameter("x", default=default).required


def test_it_can_be_said_whether_a_parameter_is_required():
    assert Parameter("x", default=3, required=True).required
    assert not Parameter("x", required=False).required


def test_the_name_is_the_slug():
    parameter = Parameter("x", tags=["a"])
    assert (parameter.name, parameter.slug, parameter.tags) == ("x", "x", {"a"})


def test_the_value_of_the_run_comes_before_the_default():
    parameter = Parameter("x", default=3)
    with context(parameters={"x": None}):
        assert parameter.run() is None
    with context(parameters={"y": 1}):
        assert parameter.run() == 3
    assert parameter.run() == 3


@pytest.mark.parametrize("options", [{}, {"required": True, "default": 3}])
def test_a_required_parameter_that_was_not_given_fails(options):
    with pytest.raises(FAIL, match="parameter 'x' is required and was not given"):
        Parameter("x", **options).run()


@pytest.mark.parametrize("kind", [Parameter, DateTimeParameter])
def test_a_parameter_that_need_not_be_given_is_none_without_default(kind, run):
    assert kind("x", required=False).run() is None
    with Flow("f") as flow:
        read = Task(lambda x: (x, context.parameters), name="read")(
            kind("x", required=False)
        )
    assert run(flow)[read].result() == (None, {"x": None})


@pytest.mark.parametrize("kind", [Parameter, DateTimeParameter])
def test_a_missing_parameter_is_told_before_anything_runs(kind):
    seen = []
    with Flow("f") as flow:
        Task(lambda: seen.append(1), name="first")()
        kind("x", default="2024-03-01", required=True)()
    with pytest.raises(ValueError, match="needs the parameter 'x'"):
        flow.run(task_runner=SequentialTaskRunner())
    assert not seen


def test_a_call_adds_the_very_parameter():
    with Flow("f") as flow:
        parameter = Parameter("x")
        assert parameter() is parameter
    assert flow.parameters() == {parameter}
    assert flow.slugs[parameter] == "x"


def test_a_call_without_a_flow_is_refused():
    with pytest.raises(GraphError, match="cannot be bound without a flow"):
        Parameter("x")()


def test_a_parameter_is_added_by_using_it():
    with Flow("f") as flow:
        parameter = Parameter("x")
        double(parameter)
    assert flow.parameters() == {parameter}


def test_two_parameters_of_one_name_are_refused():
    another = Parameter("x")
    with Flow("f") as flow:
        double(Parameter("x"))
        with pytest.raises(DuplicateSlugError, match="has a parameter with the slug"):
            double(another)
    assert len(flow) == 2


def test_nothing_comes_before_a_parameter():
    with Flow("f") as flow:
        parameter = Parameter("x")
        with pytest.raises(GraphError, match="'x' cannot come after another task"):
            flow.add_edge(double(1), parameter)
        with pytest.raises(GraphError, match="cannot come after"):
            parameter.set_upstream(double(1))
        parameter()


def test_a_copy_has_a_new_name_and_slug():
    copy = Parameter("x", default=3).copy("y")
    assert (copy.name, copy.slug, copy.default) == ("y", "y", 3)
    with context(parameters={"y": 5}):
        assert copy.run() == 5


def test_a_copy_without_a_new_name_is_the_same_parameter():
    copy = Parameter("x", default=3).copy()
    assert (copy.name, copy.slug) == ("x", "x")


def test_a_parameter_with_another_name_has_another_slug():
    other = Parameter("x", default=3).with_options(name="y", tags=["a"])
    assert (other.name, other.slug, other.tags, other.run()) == ("y", "y", {"a"}, 3)


def test_a_name_is_a_string():
    with pytest.raises(OptionTypeError, match="the name of a parameter is a string"):
        Parameter(3)


def test_pickling_changes_nothing():
    copy = pickle.loads(pickle.dumps(Parameter("x", default=None)))
    assert (copy.name, copy.default, copy.required) == ("x", None, False)
    assert pickle.loads(pickle.dumps(Parameter("x"))).default is NO_DEFAULT
    assert repr(copy) == "<Parameter: x>"


MOMENT = datetime(2024, 3, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("2024-03-01T12:00:00Z", MOMENT),
        ("2024-03-01T13:00+01:00", MOMENT),
        (datetime(2024, 3, 1, 12), MOMENT),
        (MOMENT, MOMENT),
        (date(2024, 3, 1), MOMENT - timedelta(hours=12)),
        ("20240301", MOMENT - timedelta(hours=12)),
        (None, None),
    ],
)
def test_a_moment_is_read_from_what_is_given(run, given, found):
    with Flow("f") as flow:
        moment = DateTimeParameter("moment")()
    assert run(flow, moment=given)[moment].result() == found


@pytest.mark.parametrize("given", ["soon", 3])
def test_what_is_no_moment_fails_the_parameter(run, given):
    with Flow("f") as flow:
        moment = DateTimeParameter("moment")
        after = double(moment)
    state = run(flow, moment=given)
    assert state[moment].is_failed()
    assert type(state[after]).__name__ == "TriggerFailed"


def test_a_moment_with_a_default_is_not_required():
    assert DateTimeParameter("moment").required
    found = DateTimeParameter("moment", default="2024-03-01T12:00:00Z")
    assert not found.required
    assert found.run() == MOMENT
    assert found.copy("other").run() == MOMENT
    assert found.serialize()["default"] == "2024-03-01T12:00:00Z"
