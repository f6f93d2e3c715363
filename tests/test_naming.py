import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.errors import DeclarationError, OptionTypeError, TemplateError
from prefect_dask_core.naming import (
    check_template,
    format_location,
    format_run_name,
    template_variables,
)
from tests.strategies import names

CONTEXT = {
    "parameters": {"day": "monday", "size": 3},
    "flow_name": "etl",
    "flow_run_id": "f1",
    "task_name": "load",
    "task_full_name": "load[2]",
    "task_run_id": "t1",
    "map_index": 2,
    "task_tags": frozenset({"db"}),
}
VARIABLES = template_variables(CONTEXT, {"path": "a.csv", "size": 5})

texts = st.text(st.characters(exclude_characters="{}"), max_size=8)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("plain", "plain"),
        ("{path}", "a.csv"),
        ("{day}-{flow_name}-{map_index}", "monday-etl-2"),
        ("{size:03}", "005"),
        ("{path!r}", "'a.csv'"),
        ("{size:>{map_index}}", " 5"),
        ("{{path}}", "{path}"),
        ("{parameters[path]}", "a.csv"),
        ("{parameters[day]}", "monday"),
        ("{parameters[size]}", "5"),
        ("{flow_run.parameters[size]}", "3"),
        ("{task_run.name}/{task_run.id}", "load[2]/t1"),
        ("{task_run.run_count}{task_run.map_index}", "12"),
        ("{flow_run.name}/{flow_run.id}/{flow_run.flow_name}", "etl/f1/etl"),
    ],
)
def test_a_template_reads_the_names_of_all_generations(template, name):
    assert format_run_name(template, VARIABLES) == name
    assert format_location(template, VARIABLES) == name


@given(st.lists(st.tuples(texts, names)), st.dictionaries(names, st.integers()))
def test_a_template_is_its_text_with_the_values_in_place(parts, variables):
    variables |= dict.fromkeys((name for _, name in parts), 7)
    template = "".join(f"{text}{{{name}}}" for text, name in parts)
    wanted = "".join(f"{text}{variables[name]}" for text, name in parts)
    check_template(template)
    assert format_run_name(template, variables) == wanted


@given(texts)
def test_a_text_without_braces_stays_as_it_is(text):
    assert format_location(text, {}) == text


def test_inputs_come_before_the_context_and_this_before_parameters():
    everywhere = {"a": "parameter", "b": "parameter", "c": "parameter"}
    context = {"parameters": everywhere, "a": "context", "b": "context"}
    found = template_variables(context, {"a": "input"})
    assert (found["a"], found["b"], found["c"]) == ("input", "context", "parameter")


@pytest.mark.parametrize("name", ["parameters", "task_run", "flow_run"])
def test_an_input_does_not_hide_a_name_of_the_run(name):
    found = template_variables(CONTEXT, {name: "input"})
    assert found[name] != "input"
    assert found["parameters"][name] == "input"


def test_parameters_are_the_inputs_for_who_goes_through_them():
    assert dict(VARIABLES["parameters"]) == {"path": "a.csv", "size": 5}
    assert VARIABLES["parameters"]["day"] == "monday"
    assert "day" not in VARIABLES["parameters"]


def test_the_name_of_a_run_is_seen_once_it_has_one():
    found = template_variables({"task_full_name": "t", "task_run_name": "mine"}, {})
    assert found["task_run"].name == "mine"


def test_nothing_has_to_be_known_of_a_run():
    found = template_variables({}, {})
    assert format_run_name("{task_run.name}{flow_run.id}", found) == "NoneNone"


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (lambda: "fixed", "fixed"),
        (lambda parameters: parameters["path"], "a.csv"),
        (lambda *, parameters: parameters["day"], "monday"),
        (lambda **kwargs: f"{kwargs['day']}{kwargs['map_index']}", "monday2"),
        (lambda path, day, other="o": path + day + other, "a.csvmondayo"),
        (
            lambda parameters, **kwargs: parameters["path"] + kwargs["day"],
            "a.csvmonday",
        ),
        (functools.partial(lambda prefix, path: prefix + path, "p-"), "p-a.csv"),
        ("a builtin".upper, "A BUILTIN"),
    ],
)
def test_a_callable_is_given_what_its_signature_asks_for(callback, name):
    assert format_run_name(callback, VARIABLES) == name


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("{pth}", r"task_run_name '\{pth\}' names 'pth'.* path, size, task"),
        ("{}", "has a field without a name"),
        ("{0}", "has a field without a name"),
        ("{task_run.nme}", "'{task_run.nme}' cannot be formatted: AttributeError"),
        ("{parameters[pth]}", "cannot be formatted: KeyError: 'pth'"),
        ("{path:d}", "cannot be formatted: ValueError"),
        ("{path", "cannot be formatted: ValueError"),
        ((lambda pth: "x"), "callable <lambda> names 'pth', which is unknown"),
    ],
)
def test_what_there_is_not_is_refused_with_the_names_there_are(option, said):
    with pytest.raises(TemplateError, match=said) as raised:
        format_run_name(option, VARIABLES)
    assert isinstance(raised.value, DeclarationError)


def test_the_message_says_which_option_it_is_about():
    with pytest.raises(
        TemplateError, match=r"location 'a/{x}' names 'x'.* known .*none"
    ):
        format_location("a/{x}", {})


@pytest.mark.parametrize("value", [None, 3, b"x"])
def test_a_callable_returns_a_string(value):
    with pytest.raises(OptionTypeError, match=r"returned .*must return a string"):
        format_run_name(lambda: value, VARIABLES)


def test_an_error_of_the_callable_is_its_own():
    with pytest.raises(ZeroDivisionError):
        format_run_name(lambda: 1 // 0, VARIABLES)


@pytest.mark.parametrize(
    "template", ["{}", "{0}", "{.x}", "{[0]}", "{a:{}}", "{a", "}"]
)
def test_a_template_that_can_never_be_formatted_is_found_beforehand(template):
    with pytest.raises(ValueError, match=r"."):
        check_template(template)


def test_an_unknown_name_is_answered_with_those_that_users_know():
    with pytest.raises(TemplateError, match=r"known are: a, b\.") as caught:
        format_run_name("{nope}", {"b": 1, "a": 2, "_own": 3})
    assert "_own" not in str(caught.value)
