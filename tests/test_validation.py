"""Validation of arguments: by pydantic where it is installed, else not at all."""

import functools
import importlib
import types

import pytest

from prefect_dask_core import flow, validation
from prefect_dask_core.errors import OptionValueError, ParameterTypeError
from prefect_dask_core.states import Failed


class Adapter:
    """Stands for pydantic's: converts to the annotation, or refuses."""

    def __init__(self, kind, config=None):
        self.kind = kind

    def validate_python(self, value):
        try:
            return self.kind(value)
        except ValueError as error:
            raise Invalid(str(error)) from error


class Invalid(ValueError):
    pass


@pytest.fixture
def pydantic(monkeypatch):
    """A stand-in, so that the rule is tested where pydantic is not installed."""
    fake = types.SimpleNamespace(
        TypeAdapter=Adapter, ValidationError=Invalid, PydanticUserError=KeyError
    )
    real = importlib.import_module
    monkeypatch.setattr(validation, "has_pydantic", lambda: True)
    monkeypatch.setattr(
        validation.importlib,
        "import_module",
        lambda name: fake if name == "pydantic" else real(name),
    )


@pytest.fixture
def no_pydantic(monkeypatch):
    monkeypatch.setattr(validation, "has_pydantic", lambda: False)


def typed(x: int, y="plain"):
    return x, y


def test_arguments_are_converted(pydantic):
    made = flow(typed)
    assert made("3", "4") == (3, "4")
    assert made.validate_parameters({"x": "3"}) == {"x": 3}
    assert flow(typed, validate_parameters=False)("3") == ("3", "plain")


def test_what_cannot_be_converted_fails_the_run(pydantic):
    made = flow(typed)
    assert isinstance(made("three", return_state=True), Failed)
    with pytest.raises(ParameterTypeError, match="flow 'typed': x='three' is not what"):
        made("three")


def test_without_pydantic_arguments_are_only_bound(no_pydantic):
    assert flow(typed)("3") == ("3", "plain")
    with pytest.raises(OptionValueError, match="needs pydantic"):
        flow(typed, validate_parameters=True)


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


def test_what_is_bound_and_what_is_no_function_is_validated_too(pydantic):
    holder = Holder()
    assert holder.method("3") == (holder, 3)
    assert holder.method.with_options(name="other")("4") == (holder, 4)
    assert Holder.of_class("5") == (Holder, 5)
    assert flow(Called(), name="called")("6") == 6
    assert flow(functools.partial(typed, y="more"), name="part")("7") == (7, "more")


def test_defaults_are_as_the_function_wants_them(pydantic):
    made = flow(lambda x=None, y=None: (x, y), name="made")
    made.fn.__annotations__ = {"x": int, "y": "int"}
    assert made() == (None, None)
    assert made("1", "2") == (1, 2)


def test_each_of_many_arguments_is_converted():
    pytest.importorskip("pydantic")

    def many(*args: int, **more: str):
        return args, more

    assert flow(many)("1", 2, z="3") == ((1, 2), {"z": "3"})
    with pytest.raises(ParameterTypeError, match="flow 'many': args="):
        flow(many)("one")


def test_an_annotation_that_cannot_be_read_checks_nothing(pydantic):
    def made(x: "ImportedForTypeCheckersOnly", y: "int"):  # noqa: F821
        return x, y

    assert flow(made)("1", "2") == ("1", 2)


def test_the_message_names_the_annotation(pydantic):
    with pytest.raises(ParameterTypeError, match="annotation int allows"):
        flow(typed)("three")
