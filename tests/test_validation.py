"""Validation of arguments: by pydantic where it is installed, else not at all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from pydantic import BaseModel, Field

from prefect_dask_core import SequentialTaskRunner, flow, task, validation
from prefect_dask_core.errors import (
    OptionValueError,
    ParameterBindError,
    ParameterTypeError,
)
from prefect_dask_core.states import Failed

if TYPE_CHECKING:
    from decimal import Decimal


FRESH_LIST = Field(default_factory=list)


class Point(BaseModel):
    x: int
    y: int = 0


@pytest.fixture
def no_pydantic(monkeypatch):
    monkeypatch.setattr(validation, "has_pydantic", lambda: False)


def typed(x: int, y="plain"):
    return x, y


def test_arguments_are_converted():
    made = flow(typed)
    assert made("3", "4") == (3, "4")
    assert made.validate_parameters({"x": "3"}) == {"x": 3}
    assert flow(typed, validate_parameters=False)("3") == ("3", "plain")
    assert made.with_options(validate_parameters=False)("3") == ("3", "plain")


def test_what_cannot_be_converted_fails_the_run():
    made = flow(typed)
    assert isinstance(made("three", return_state=True), Failed)
    with pytest.raises(ParameterTypeError, match="flow 'typed': x='three' is not what"):
        made("three")


def test_without_pydantic_arguments_are_only_bound(no_pydantic):
    assert flow(typed)("3") == ("3", "plain")
    with pytest.raises(OptionValueError, match="needs pydantic"):
        flow(typed, validate_parameters=True)
    with pytest.raises(OptionValueError, match="needs pydantic"):
        flow(typed).with_options(validate_parameters=True)


def test_defaults_are_not_converted():
    @flow
    def optional(x: int = None, y: list[int] = ()):  # noqa: RUF013  the very case
        return x, y

    assert optional() == (None, ())
    assert optional("3", y=["4"]) == (3, [4])


def test_variable_arguments_are_converted_one_by_one():
    @flow
    def variable(*rest: int, **more: float):
        return rest, more

    assert variable("1", 2, a="0.5") == ((1, 2), {"a": 0.5})
    with pytest.raises(ParameterTypeError, match="a='half' is not"):
        variable(a="half")


class Owner:
    @flow
    def method(self, x: int):
        return x

    @flow
    @classmethod
    def on_class(cls, x: int):
        return x


def test_arguments_of_methods_are_converted():
    assert (Owner().method("3"), Owner.on_class("4")) == (3, 4)


def test_models_are_made_of_dicts_and_values_of_futures_are_converted():
    @task
    def coordinates():
        return {"x": "7"}

    @flow
    def below(point: Point):
        return point

    @flow(task_runner=SequentialTaskRunner())
    def above():
        return below(coordinates.submit()), below({"x": 1, "y": 2})

    assert above() == (Point(x=7), Point(x=1, y=2))


def test_an_annotation_that_says_nothing_here_is_left_alone_unless_asked_for():
    def sum_up(total: Decimal, n: int):
        return total, n

    assert flow(sum_up)("3.5", "2") == ("3.5", 2)
    with pytest.raises(OptionValueError, match="nothing of the annotation of total"):
        flow(sum_up, validate_parameters=True)


def test_a_class_of_the_users_is_only_looked_up_by_type():
    class Own:
        pass

    def take(x):
        return type(x).__name__

    take.__annotations__ = {"x": Own}
    assert flow(take)(Own()) == "Own"
    with pytest.raises(ParameterTypeError):
        flow(take)(3)


def test_fields_give_their_defaults_to_flows_and_tasks(flow_runner):
    def filled(x: int = Field(default=3, gt=0), y: list = FRESH_LIST):
        return x, y

    made = flow(filled)
    assert made() == (3, [])
    with pytest.raises(ParameterTypeError, match="greater than 0"):
        made(-1)
    inner = task(filled)

    def body():
        return inner.submit(), inner(5), inner.map([1, 2])

    expected = ((3, []), (5, []), [(1, []), (2, [])])
    assert flow(body, task_runner=flow_runner)() == expected
    assert inner.inputs()["x"]["default"] == 3


def test_a_field_without_a_default_is_required():
    def needs(x: int = Field(gt=0)):
        return x

    with pytest.raises(ParameterBindError, match="missing a required argument: 'x'"):
        flow(needs)()
    with pytest.raises(ParameterBindError, match="missing a required argument: 'x'"):
        task(needs)()


def test_a_flow_that_was_called_still_travels():
    made = flow(lambda x: x, name="local")
    made(1)
    assert cloudpickle.loads(cloudpickle.dumps(made))(2) == 2


class Holder:
    @flow
    def method(self, x: int):
        return self, x

    @classmethod
    @flow
    def of_class(cls, x: int):
        return cls, x


class Called:
    def __call__(self, x: int):
        return x


def test_what_is_bound_and_what_is_no_function_is_validated_too():
    holder = Holder()
    assert holder.method("3") == (holder, 3)
    assert holder.method.with_options(name="other")("4") == (holder, 4)
    assert Holder.of_class("5") == (Holder, 5)
    assert flow(Called(), name="called")("6") == 6
    assert flow(functools.partial(typed, y="more"), name="part")("7") == (7, "more")


def test_defaults_are_as_the_function_wants_them():
    def given(x=None, y=None):
        return x, y

    given.__annotations__ = {"x": int, "y": "int"}
    made = flow(given)
    assert made() == (None, None)
    assert made("1", "2") == (1, 2)


def test_each_of_many_arguments_is_converted():
    def many(*args: int, **more: str):
        return args, more

    assert flow(many)("1", 2, z="3") == ((1, 2), {"z": "3"})
    with pytest.raises(ParameterTypeError, match="flow 'many': args="):
        flow(many)("one")


def test_an_annotation_that_cannot_be_read_checks_nothing():
    def made(x: ImportedForTypeCheckersOnly, y: int):  # noqa: F821
        return x, y

    assert flow(made)("1", "2") == ("1", 2)


def test_the_message_names_the_annotation():
    with pytest.raises(ParameterTypeError, match="annotation int allows"):
        flow(typed)("three")
