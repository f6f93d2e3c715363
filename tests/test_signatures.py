import pickle
from typing import Any, Tuple  # noqa: UP035 - both spellings are annotations in use

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.errors import (
    ParameterBindError,
    ReservedArgumentError,
    SignatureError,
)
from prefect_dask_core.signatures import (
    RESERVED,
    BodySignature,
    inputs_of,
    number_of_outputs,
    output_of,
)


def plain(x, y=2, *, z=3):
    return (x, y, z)


def positional_only(x, /, y=2):
    return (x, y)


def variadic(x, y=2, *rest, z=3, **more):
    return (x, y, rest, z, more)


def mixed(a, b=1, /, c=2, *rest, d=3, **more):
    return (a, b, c, rest, d, more)


def nothing():
    return ()


BODIES = [plain, positional_only, variadic, mixed, nothing]
values = st.integers()
calls = st.tuples(
    st.sampled_from(BODIES),
    st.lists(values, max_size=5).map(tuple),
    st.dictionaries(st.sampled_from("abcdxyzqr"), values, max_size=5),
)


@given(calls)
def test_inputs_by_name_give_the_call_they_came_from(call):
    body, args, kwargs = call
    signature = BodySignature.of(body, "body")
    try:
        expected = body(*args, **kwargs)
    except TypeError:
        with pytest.raises(ParameterBindError):
            signature.bind(args, kwargs, "body")
        return
    try:
        inputs = signature.bind(args, kwargs, "body")
    except ParameterBindError:
        # Legal in Python, but two inputs would have one name.
        assert body is mixed or body is positional_only
        return
    args, kwargs = signature.arrange(inputs)
    assert body(*args, **kwargs) == expected
    if signature.by_keyword:
        assert body(**inputs) == expected


@pytest.mark.parametrize("body", BODIES)
def test_pickling_changes_nothing(body):
    signature = BodySignature.of(body, "body")
    assert pickle.loads(pickle.dumps(signature)) == signature


def test_a_usual_function_is_called_by_keyword():
    assert BodySignature.of(plain, "t").by_keyword
    assert not BodySignature.of(positional_only, "t").by_keyword
    assert not BodySignature.of(variadic, "t").by_keyword


def test_an_argument_that_is_misspelt_is_named_rather_than_the_missing_one():
    signature = BodySignature.of(lambda x: x, "kind")
    with pytest.raises(ParameterBindError, match=r"unexpected keyword argument 'y'.*x"):
        signature.bind((), {"y": 1}, "kind")


def test_what_a_body_requires_has_no_default():
    signature = BodySignature.of(lambda a, /, b, c=1, *d, e, f=2, **g: 1, "body")
    assert signature.required == {"a", "b", "e"}


def test_a_missing_argument_names_the_task_and_its_signature():
    said = r"task 'load': missing a required .*'x'; its signature is load\(x, y=2"
    with pytest.raises(ParameterBindError, match=said):
        BodySignature.of(plain, "load").bind((), {}, "load")


def test_a_keyword_that_is_the_name_of_a_positional_parameter_is_refused():
    signature = BodySignature.of(mixed, "t")
    with pytest.raises(ParameterBindError, match="'a' was given by keyword"):
        signature.bind((1,), {"a": 2}, "t")


def test_a_body_with_keywords_accepts_any_name():
    assert BodySignature.of(variadic, "t").accepts("anything")
    assert not BodySignature.of(plain, "t").accepts("anything")
    assert BodySignature.of(plain, "t").accepts("z")


@pytest.mark.parametrize("name", RESERVED)
def test_a_name_that_calls_need_is_refused(name):
    namespace = {}
    exec(f"def body({name}): ...", namespace)
    with pytest.raises(ReservedArgumentError, match=f"has a parameter '{name}'"):
        BodySignature.of(namespace["body"], "t")


def test_a_function_that_cannot_be_inspected_is_refused():
    def body(): ...

    body.__signature__ = "nothing of use"
    with pytest.raises(SignatureError, match="wrap it in a function of your own"):
        BodySignature.of(body, "t")


def test_a_graph_needs_a_name_for_every_input():
    with pytest.raises(ReservedArgumentError, match=r"has a parameter \*rest"):
        BodySignature.of(variadic, "t").refuse_in_graph("t")
    with pytest.raises(ReservedArgumentError, match="has a parameter 'flow'"):
        BodySignature.of(lambda flow: flow, "t").refuse_in_graph("t")
    BodySignature.of(plain, "t").refuse_in_graph("t")


def test_inputs_are_described_by_type_and_default():
    def body(x: int, y="a", *rest, z: "str" = "b", **more) -> float: ...

    signature = BodySignature.of(body, "t")
    assert inputs_of(body, signature) == {
        "x": {"type": int, "required": True, "default": None},
        "y": {"type": Any, "required": False, "default": "a"},
        "z": {"type": str, "required": False, "default": "b"},
    }
    assert output_of(body, signature) is float


def test_an_annotation_that_cannot_be_looked_up_is_kept_as_text():
    def body(x: "Nowhere") -> "Nowhere": ...  # noqa: F821

    signature = BodySignature.of(body, "t")
    assert inputs_of(body, signature)["x"]["type"] == "Nowhere"
    assert output_of(body, signature) == "Nowhere"


def test_without_an_annotation_the_output_is_anything():
    assert output_of(nothing, BodySignature.of(nothing, "t")) is Any


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (tuple[int, str], 2),
        (Tuple[int, str, int], 3),  # noqa: UP006
        (tuple[()], 0),
        (Tuple[()], 0),  # noqa: UP006
        (tuple[int, ...], None),
        (tuple, None),
        (Tuple, None),  # noqa: UP006
        (list[int], None),
        (int, None),
        ("tuple[int, int]", None),
    ],
)
def test_a_tuple_of_fixed_length_tells_the_number_of_outputs(annotation, expected):
    assert number_of_outputs(annotation) == expected
