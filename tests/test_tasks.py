import copy
import functools
import inspect
import logging
import os
import pickle
import re
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given

from prefect_dask_core.cache_validators import all_inputs, duration_only, never_use
from prefect_dask_core.context import context, group, tags
from prefect_dask_core.errors import (
    DeclarationError,
    GraphError,
    MappingMissingIterable,
    MissingContextError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
    ReservedArgumentError,
    SignatureError,
    UnknownOptionError,
)
from prefect_dask_core.flows import Flow
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.results import INPUTS, LocalResult
from prefect_dask_core.tasks import Constant, Task, task
from prefect_dask_core.triggers import all_finished, all_successful
from tests.strategies import task_options


def plus(x, y=1):
    """Add two numbers.

    Or texts.
    """
    return x + y


@task
def decorated(x, y=1):
    return x + y


@task(retries=2, name="twice")
def with_name(x):
    return 2 * x


class Scale(Task):
    """A task with an attribute of its own."""

    def __init__(self, factor, **options):
        self.factor = factor
        super().__init__(**options)
        self.note = "kept"

    def run(self, x):
        return self.factor * x


class Tools:
    """Tasks of a class."""

    factor = 3

    @task
    def scale(self, x):
        return self.factor * x

    @task
    @classmethod
    def scale_all(cls, x):
        return cls.factor * x

    @task
    @staticmethod
    def double(x):
        return 2 * x

    @staticmethod
    @task
    def triple(x):
        return 3 * x


# -- definition --------------------------------------------------------------------


def test_a_callable_is_the_body_and_a_string_is_the_name():
    assert Task(plus).fn is plus
    assert Task("load").name == "load"
    assert Task(plus, name="add").name == "add"
    assert Task(fn=plus).name == "plus"


def test_the_decorator_works_bare_and_with_options():
    assert isinstance(decorated, Task)
    assert decorated.name == "decorated"
    assert (with_name.name, with_name.retries) == ("twice", 2)


def test_a_task_without_a_body_returns_none():
    assert Task("load")() is None
    assert Task("load").run() is None
    assert Task("load").inputs() == {}


def test_a_subclass_is_named_after_its_class_and_runs_its_run():
    scale = Scale(3)
    assert (scale.name, scale(2), scale.run(2), scale.note) == ("Scale", 6, 6, "kept")


def test_the_description_is_the_docstring_of_the_function():
    assert Task(plus).description == "Add two numbers.\n\nOr texts."
    assert Task(plus, description="adds").description == "adds"


def test_a_task_looks_like_its_function():
    assert decorated.__name__ == "decorated"
    assert Task(plus).__doc__ == plus.__doc__
    assert Task(plus).__wrapped__ is plus


def test_an_object_that_can_be_called_is_a_body():
    half = functools.partial(plus, y=-1)
    assert (Task(half).name, Task(half)(3)) == ("partial", 2)


@pytest.mark.parametrize("wrong", [3, [plus], {"name": "load"}])
def test_neither_a_callable_nor_a_string_is_refused(wrong):
    with pytest.raises(OptionTypeError, match="takes a function, or a string as its"):
        Task(wrong)


def test_two_names_are_refused():
    with pytest.raises(OptionTypeError, match="two names, 'a' and 'b'"):
        Task("a", name="b")


def test_a_task_of_a_task_is_refused():
    with pytest.raises(OptionTypeError, match=r"is a task already; use its with_opt"):
        Task(decorated)


def test_a_function_beside_a_run_method_is_refused():
    class Body(Task):
        def run(self): ...

    with pytest.raises(OptionTypeError, match=r"has a method run\(\) and was also"):
        Body(plus)


def test_the_decorator_refuses_a_name_without_its_keyword():
    with pytest.raises(OptionTypeError, match=r"write @task\(name='load'\)"):
        task("load")


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(UnknownOptionError, match="did you mean 'retries'"):
        Task(plus, retires=3)
    with pytest.raises(UnknownOptionError, match="task 'Scale' has no option 'colour'"):
        Scale(3, colour="red")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"cache_policy": object()}, "a cache policy such as results.INPUTS"),
        ({"cache_policy": lambda *_: "key"}, "is cache_key_fn="),
        ({"cache_key_fn": "key"}, "returns a key or None"),
        ({"cache_expiration": "a day"}, "a number of seconds or a timedelta"),
        ({"refresh_cache": 1}, "True, False or None"),
        ({"result_storage": 3}, "a folder, a URL that fsspec knows"),
        ({"result_storage": ""}, "a folder, a URL that fsspec knows"),
        ({"result_storage": LocalResult("a")}, "give it as result="),
        ({"result_storage_key": 3}, "a template string, or a callable"),
        ({"result_serializer": 3}, "is no serializer"),
        ({"result_serializer": "pickel"}, "there is no serializer 'pickel'"),
        ({"cache_result_in_memory": 1}, "True or False"),
        ({"on_commit": len}, "each taking the transaction"),
        ({"on_rollback": [3]}, "each taking the transaction"),
        ({"target": "a", "result_storage_key": "b"}, "give one of them"),
        ({"result": LocalResult("a"), "result_storage": "b"}, "instead of result="),
        ({"result": LocalResult("a"), "cache_policy": INPUTS}, "instead of result="),
        ({"result": LocalResult("a"), "cache_expiration": 3}, "with cache_expiration="),
        (
            {"result": LocalResult("a"), "cache_result_in_memory": False},
            "with cache_result_in_memory=",
        ),
    ],
)
def test_an_option_of_results_that_cannot_be_is_refused(option, told):
    with pytest.raises((OptionTypeError, OptionValueError), match=told):
        Task(plus, **option)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cache_policy": INPUTS, "cache_key_fn": len}, "is used instead of"),
        ({"cache_policy": INPUTS, "persist_result": False}, "finds and keeps nothing"),
    ],
)
def test_an_option_that_another_makes_useless_is_warned_about(options, told):
    with pytest.warns(UserWarning, match=told):
        Task(plus, **options)


def test_options_of_results_that_are_none_are_as_if_not_given():
    names = (
        "cache_policy",
        "cache_key_fn",
        "cache_expiration",
        "refresh_cache",
        "result_storage",
        "result_storage_key",
        "result_serializer",
        "cache_result_in_memory",
        "on_commit",
        "on_rollback",
    )
    assert Task(plus, **dict.fromkeys(names)).options == Task(plus).options


def test_the_source_of_a_task_travels_with_it():
    def body():
        return 1

    made = Task(body)
    assert "return 1" in made.source_code
    made.note_source()
    token = made.source_token
    found = cloudpickle.loads(cloudpickle.dumps(made))
    assert found.source_token == token


@pytest.mark.parametrize("name", ["wait_for", "mapped", "upstream_tasks", "task_args"])
def test_a_reserved_parameter_name_is_refused_at_definition(name):
    namespace = {}
    exec(f"def body({name}): ...", namespace)
    with pytest.raises(ReservedArgumentError, match=f"has a parameter '{name}'"):
        Task(namespace["body"])


def test_a_reserved_parameter_name_is_refused_when_the_class_is_made():
    with pytest.raises(ReservedArgumentError, match="task 'Body' has a parameter"):

        class Body(Task):
            def run(self, wait_for): ...


def test_a_body_that_cannot_be_inspected_is_refused():
    def body(): ...

    body.__signature__ = "nothing of use"
    with pytest.raises(SignatureError, match="wrap it in a function of your own"):
        Task(body)


def test_a_subclass_that_forgets_to_call_its_parent_is_told_so():
    class Body(Task):
        def __init__(self):
            self.size = 3

    with pytest.raises(DeclarationError, match=r"must call super\(\).__init__"):
        _ = Body().name


def test_an_option_as_a_class_attribute_is_refused():
    with pytest.raises(OptionTypeError, match=r"super\(\).__init__\(max_retries=...\)"):

        class Body(Task):
            max_retries = 3


# -- options -----------------------------------------------------------------------


# Any two options may not go well together, which is told and changes nothing.
@pytest.mark.filterwarnings("ignore:task:UserWarning")
@given(task_options())
def test_every_option_can_be_read_as_an_attribute(options):
    values = {name: getattr(options, name) for name in TaskOptions.__slots__}
    made = Task(plus, **values)
    assert made.options == TaskOptions(**{**values, "description": made.description})
    hooks = {name for name in values if name.startswith("on_")}
    for name in values.keys() - {"cache_validator"} - hooks:
        assert getattr(made, name) == getattr(made.options, name)
    for name in hooks:
        assert getattr(made, f"{name}_hooks") == getattr(made.options, name)
    assert made.cache_validator is made.options.validator


def test_older_names_can_be_given_and_read():
    made = Task("load", max_retries=2, retry_delay=timedelta(seconds=5), timeout=30)
    assert (made.retries, made.retry_delay_seconds, made.timeout_seconds) == (2, 5, 30)
    assert made.max_retries == 2
    assert made.retry_delay == timedelta(seconds=5)
    assert made.timeout == 30
    assert made.propagate_skip is True


@pytest.mark.parametrize("name", ["retries", "max_retries", "name", "trigger"])
def test_an_option_cannot_be_changed_on_a_task(name):
    with pytest.raises(AttributeError, match=rf"with_options\({name}=...\) gives"):
        setattr(Task("load"), name, 3)


def test_any_other_attribute_can_be_set():
    made = Task("load")
    made.anything = 3
    assert made.anything == 3


def test_an_attribute_that_does_not_exist_is_missing_as_usual():
    with pytest.raises(AttributeError, match="anything"):
        _ = Task("load").anything


def test_options_left_out_have_their_defaults():
    made = Task("load")
    assert made.retries == 0
    assert made.trigger is all_successful
    assert made.skip_on_upstream_skip is True
    assert made.tags == frozenset()
    assert made.slug is None


def test_none_is_the_derived_value():
    assert Task(plus, name=None, description=None).name == "plus"
    assert Task(plus, description=None).description == Task(plus).description


def test_tags_unite_with_those_of_the_block():
    with tags("a", "b"):
        assert Task("load", tags=["c"]).tags == {"a", "b", "c"}


def test_a_tuple_annotation_tells_the_number_of_outputs():
    def pair() -> tuple[int, str]: ...
    def late() -> "tuple[int, str, int]": ...

    assert Task(pair).nout == 2
    assert Task(late).nout == 3
    assert Task(pair, nout=5).nout == 5
    assert Task(plus).nout is None


# -- body --------------------------------------------------------------------------


def test_outside_of_a_flow_a_call_runs_the_body():
    assert decorated(2, y=3) == 5
    assert decorated.run(2) == decorated.fn(2) == 3


def test_a_body_that_is_a_task_call_runs_inside_a_body():
    outer = Task(lambda x: decorated(x) * 2, name="outer")
    assert outer(1) == 4


def test_arguments_that_do_not_fit_are_refused_with_the_signature():
    said = r"task 'decorated': missing a required argument: 'x'; its signature is"
    with pytest.raises(ParameterBindError, match=said):
        decorated()
    with pytest.raises(ParameterBindError, match="unexpected keyword argument 'z'"):
        decorated(1, z=3)


@pytest.mark.parametrize("option", ["upstream_tasks", "wait_for"])
def test_a_call_outside_of_a_flow_may_wait_for_nothing(option):
    assert decorated(1, **{option: []}) == decorated(1)


def test_a_call_outside_of_a_flow_may_return_its_state():
    assert decorated(1, return_state=True).result() == decorated(1)


def test_outside_of_a_flow_a_body_may_have_an_argument_called_flow():
    assert Task(lambda flow: flow)(flow=3) == 3
    assert Task(lambda **more: more)(flow=3) == {"flow": 3}
    with pytest.raises(ParameterBindError, match="unexpected keyword argument 'flow'"):
        decorated(1, flow=3)


@pytest.mark.parametrize(
    ("body", "inputs", "value"),
    [
        (lambda x, y=1: x + y, {"x": 1}, 2),
        (lambda x, /, y=1: x + y, {"x": 1, "y": 2}, 3),
        (lambda x, *rest: (x, rest), {"x": 1, "rest": (2, 3)}, (1, (2, 3))),
        (lambda x, **more: (x, more), {"x": 1, "z": 2}, (1, {"z": 2})),
    ],
)
def test_the_engine_calls_a_body_with_inputs_by_name(body, inputs, value):
    assert Task(body).call_body(inputs) == value
    assert pickle  # the signature is read anew after pickling
    twin = cloudpickle.loads(cloudpickle.dumps(Task(body)))
    assert twin.call_body(inputs) == value


def test_the_engine_calls_the_run_of_a_subclass():
    assert Scale(3).call_body({"x": 2}) == 6


def test_a_coroutine_function_is_async():
    async def body(): ...

    class Called:
        async def __call__(self): ...

    class Body(Task):
        async def run(self): ...

    assert Task(body).isasync
    assert Task(Called()).isasync
    assert Task(functools.partial(body)).isasync
    assert Body().isasync
    assert not Task(plus).isasync


def test_inputs_and_outputs_describe_the_body():
    class Body(Task):
        def run(self, x: int, y=2) -> str: ...

    assert list(Body().inputs()) == ["x", "y"]
    assert Body().inputs()["x"] == {"type": int, "required": True, "default": None}
    assert Body().outputs() is str


def test_the_body_of_a_subclass_is_one_object():
    scale = Scale(3)
    assert scale.fn is scale.fn
    assert scale.copy().fn.__self__ is not scale


# -- methods -----------------------------------------------------------------------


def test_a_task_of_a_class_is_bound_like_a_method():
    assert Tools().scale(2) == 6
    assert Tools.scale(Tools(), 2) == 6


def test_a_task_of_a_classmethod_is_bound_to_the_class():
    assert Tools.scale_all(2) == Tools().scale_all(2) == 6


def test_a_task_of_a_staticmethod_is_not_bound():
    assert Tools.double(2) == Tools().double(2) == 4
    assert Tools.triple(2) == Tools().triple(2) == 6


def test_binding_leaves_the_function_as_it_is():
    before = dict(vars(vars(Tools)["scale"].fn))
    _ = Tools().scale
    assert vars(vars(Tools)["scale"].fn) == before


# -- variants ----------------------------------------------------------------------


def test_a_copy_shares_its_body_and_its_options():
    twin = decorated.copy()
    assert twin is not decorated
    assert twin.fn is decorated.fn
    assert twin.options is decorated.options
    assert twin.copy(retries=0).options is decorated.options


def test_a_copy_can_differ_in_options_of_any_spelling():
    twin = decorated.copy(max_retries=3, name="other")
    assert (twin.retries, twin.name, decorated.retries) == (3, "other", 0)


def test_a_copy_can_differ_in_an_attribute_of_its_own():
    assert Scale(3).copy(factor=4)(2) == 8


def test_a_copy_that_is_changed_leaves_the_original():
    scale = Scale(3)
    scale(1)
    twin = scale.copy()
    twin.factor = 5
    assert (scale(1), twin(1)) == (3, 5)


@pytest.mark.parametrize("name", ["colour", "fn", "options", "_fn"])
def test_a_copy_cannot_have_an_attribute_the_original_lacks(name):
    with pytest.raises(AttributeError, match=f"has no option or attribute '{name}'"):
        decorated.copy(**{name: 3})


def test_the_copy_of_a_task_with_a_slug_has_another_slug():
    made = Task("load", slug="my-load")
    assert made.copy().slug == "my-load-copy"
    assert made.copy(slug="other").slug == "other"


def test_a_copy_takes_the_tags_of_the_block():
    with tags("a"):
        twin = decorated.copy(tags=["b"])
        assert twin.tags == {"a", "b"}
        assert decorated.copy().tags == {"a"}
    assert decorated.tags == frozenset()


def test_copies_made_in_one_block_share_their_options():
    with tags("a"):
        assert decorated.copy().options is decorated.copy().options


def test_a_wrong_value_for_a_copy_is_refused():
    with pytest.raises(OptionValueError, match="retries=-1"):
        decorated.copy(retries=-1)


@pytest.mark.parametrize("made", [decorated.copy(), Scale(3), decorated])
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_the_copy_module_copies_a_task(made, make):
    twin = make(made)
    assert twin is not made
    assert twin.options is made.options
    assert twin(2) == made(2)


def test_a_deep_copy_has_attributes_of_its_own():
    made = Scale([1])
    twin = copy.deepcopy(made)
    twin.factor.append(2)
    assert made.factor == [1]


def test_with_options_keeps_what_is_not_given():
    made = Task(plus, name="add", retries=3, trigger=all_finished, version="1")
    other = made.with_options(retries=5)
    assert (other.name, other.retries, other.trigger) == ("add", 5, all_finished)
    assert other.version == "1"
    assert other.fn is plus


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"name": ""}, True),
        ({"tags": []}, True),
        ({"description": None}, True),
        ({"timeout_seconds": None}, True),
        ({"timeout_seconds": 0}, False),
        ({"retries": None}, False),
        ({"tags": ["b"]}, False),
    ],
)
def test_with_options_keeps_or_drops_as_documented(given, kept):
    made = Task(
        plus, name="t", tags=["a"], description="d", timeout_seconds=3, retries=3
    )
    assert (made.with_options(**given).options == made.options) == kept


def test_with_options_replaces_tags():
    assert Task(plus, tags=["a"]).with_options(tags=["b"]).tags == {"b"}


@pytest.mark.parametrize("variant", [Task.copy, Task.with_options])
def test_a_variant_works_out_anew_what_was_not_given(variant):
    made = Task(plus)
    cached = variant(made, cache_for=60)
    assert (made.cache_validator, cached.cache_validator) == (never_use, duration_only)
    assert variant(cached, cache_for=None).cache_validator is never_use
    asked = variant(cached, cache_validator=all_inputs)
    assert variant(asked, cache_for=5).cache_validator is all_inputs
    assert variant(asked, cache_validator=None).cache_validator is duration_only


@pytest.mark.parametrize("variant", [Task.copy, Task.with_options])
def test_a_variant_can_be_without_what_the_task_has(variant):
    given = {
        "cache_for": timedelta(1),
        "cache_key": "k",
        "persist_result": True,
        "result": LocalResult("folder"),
        "target": "{x}.pkl",
        "task_run_name": "{x}",
        "log_prints": True,
    }
    made = Task(plus, **given)
    for name in given:
        assert getattr(variant(made, **{name: None}), name) is None
        assert getattr(variant(made), name) == given[name]


def test_a_warning_points_at_the_line_that_made_the_task():
    with pytest.warns(UserWarning, match="without cache_for") as warned:
        made = Task(plus, cache_validator=all_inputs)
    with pytest.warns(UserWarning, match="without cache_for") as again:
        made.with_options(cache_validator=duration_only)
    assert {one.filename for one in (*warned, *again)} == {__file__}


def test_with_options_refuses_an_unknown_option():
    with pytest.raises(UnknownOptionError, match="did you mean 'retries'"):
        decorated.with_options(retires=3)


# -- in a flow ---------------------------------------------------------------------


def test_a_call_inside_a_flow_binds_a_copy():
    with Flow("f") as flow:
        bound = decorated(1)
    assert bound is not decorated
    assert flow.tasks == {bound}
    assert flow.constants == {bound: {"x": 1}}
    assert bound.options is decorated.options


def test_task_args_are_options_of_the_copy():
    with Flow("f"):
        assert decorated(1, task_args={"name": "other"}).name == "other"
        with pytest.raises(AttributeError, match="'colour'"):
            decorated(1, task_args={"colour": "red"})


def test_a_flow_can_be_given_instead_of_a_block():
    flow = Flow("f")
    bound = decorated(1, flow=flow)
    assert bound in flow
    assert decorated.map([1], flow=flow) in flow


def test_bind_binds_the_very_task():
    with Flow("f") as flow, tags("a"):
        mine = Task(plus)
        assert mine.bind(1) is mine
    assert mine in flow
    assert mine.tags == {"a"}


@pytest.mark.parametrize("option", ["upstream_tasks", "wait_for"])
def test_tasks_that_come_first_have_two_spellings(option):
    with Flow("f") as flow:
        first = decorated(1)
        second = decorated(2, **{option: [first]})
    assert flow.upstream_tasks(second) == {first}


def test_one_task_may_stand_for_a_list_of_one():
    with Flow("f") as flow:
        first = decorated(1)
        second = decorated(2, upstream_tasks=first)
    assert flow.upstream_tasks(second) == {first}


def test_arguments_that_do_not_fit_are_refused_when_bound():
    with Flow("f"), pytest.raises(ParameterBindError, match="missing a required"):
        decorated()


def test_a_body_that_no_flow_can_hold_is_refused_when_bound():
    with Flow("f"):
        with pytest.raises(ReservedArgumentError, match=r"a parameter \*args"):
            Task(lambda *args: args)(1)
        with pytest.raises(ReservedArgumentError, match="a parameter 'flow'"):
            Task(lambda flow: flow)(1)


def test_a_task_is_mapped_inside_a_flow():
    with Flow("f") as flow:
        numbers = decorated.map([1, 2], y=3)
    (edge, other) = flow.edges_to(numbers)
    assert edge.mapped
    assert edge.upstream_task.value == [1, 2]
    assert other.upstream_task.value == 3


def test_a_call_can_be_mapped_by_an_option():
    with Flow("f") as flow:
        bound = decorated([1, 2], mapped=True)
    assert [edge.mapped for edge in flow.edges_to(bound)] == [True]


def test_mapping_forgets_the_number_of_outputs():
    with Flow("f"):
        assert Task(plus, nout=2)([1], mapped=True).nout is None
        assert Task(plus, nout=2).map([1]).nout is None


def test_mapping_outside_of_a_flow_is_refused():
    with pytest.raises(MissingContextError, match="was mapped outside of a flow"):
        decorated.map([1])
    assert issubclass(MissingContextError, RuntimeError)


def test_mapping_over_nothing_is_refused():
    with (
        Flow("f"),
        pytest.raises(MappingMissingIterable, match=r"none of its inputs \(x, y\)"),
    ):
        decorated.map("abc", y=3)


def test_binding_without_a_flow_is_refused():
    for bind in (
        lambda: decorated.bind(1),
        lambda: decorated.set_upstream(Task("a")),
        lambda: decorated.set_downstream(Task("a")),
        lambda: decorated.set_dependencies(),
    ):
        with pytest.raises(GraphError, match="cannot be bound without a flow"):
            bind()
    assert issubclass(GraphError, ValueError)


def test_setters_return_the_task():
    with Flow("f") as flow:
        a, b, c = Task("a"), Task("b"), Task(plus)
        assert a.set_downstream(b) is a
        assert c.set_upstream(a, key="x") is c
        assert b.set_dependencies(downstream_tasks=[c]) is b
    assert flow.upstream_tasks(c) == {a, b}
    assert flow.upstream_tasks(b) == {a}


def test_a_copy_of_a_task_with_edges_warns_that_they_stay():
    with Flow("f"):
        bound = decorated(decorated(1))
        with pytest.warns(UserWarning, match="'decorated' has edges in the active"):
            bound.copy()


def test_no_flow_is_active_where_the_context_says_so():
    with Flow("f") as flow, context(flow=None):
        assert decorated(1) == 2
    assert not flow.tasks


# -- pickling ----------------------------------------------------------------------


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_a_task_that_its_module_holds_travels_as_its_name(library):
    sent = library.dumps(decorated)
    assert library.loads(sent) is decorated
    assert len(sent) < 100


@pytest.mark.parametrize("library", [pickle, cloudpickle])
@pytest.mark.parametrize(
    "made",
    [
        Task(plus),
        Task(plus, retries=2, trigger=all_finished, tags=["a"]),
        decorated.copy(),
        decorated.copy(retries=3),
        with_name.copy(),
        Scale(3),
        Constant([1]),
        Task("load"),
        Tools.double,
    ],
    ids=repr,
)
def test_pickling_changes_nothing(made, library):
    made.fn  # noqa: B018 - what is worked out on the way is not taken along
    made.body_signature  # noqa: B018
    twin = library.loads(library.dumps(made))
    assert twin.options == made.options
    assert type(twin) is type(made)
    inputs = {"x": 2} if made.inputs() else {}
    assert twin.call_body(inputs) == made.call_body(inputs)


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_the_copy_of_a_decorated_function_travels_with_its_name_only(library):
    sent = library.dumps(decorated.copy())
    assert b"co_code" not in sent
    assert len(sent) < 700
    assert library.loads(sent).fn is decorated.fn


def test_a_lambda_travels_by_value():
    made = Task(lambda x: x + 1)
    assert cloudpickle.loads(cloudpickle.dumps(made))(1) == 2
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(made)


def test_a_module_that_the_user_sends_along_is_sent_along():
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        twin = cloudpickle.loads(cloudpickle.dumps(decorated))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert twin is not decorated
    assert twin(1) == 2


def test_a_task_of_the_main_script_travels_by_value(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, cloudpickle
            from prefect_dask_core.context import context
            from prefect_dask_core.tasks import Task, task

            @task
            def read(x):
                return x + context.get("size", 1)

            class Body(Task):
                def run(self, x):
                    return read(x)

            sys.stdout.buffer.write(cloudpickle.dumps([read, read.copy(), Body()]))
            """
        )
    )
    top = str(Path(__file__).parent.parent)
    sent = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": top},
    ).stdout
    assert [made(1) for made in pickle.loads(sent)] == [2, 2, 2]


# -- constants ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "3"),
        ("abc", "'abc'"),
        ([1, 2], "[1, 2]"),
        (None, "None"),
        ("a long text", "Constant[str]"),
        ([1, 2, 3, 4], "Constant[list]"),
        (list(range(10**6)), "Constant[list]"),
        (Tools(), "Constant[Tools]"),
    ],
)
def test_a_constant_is_named_by_its_value_if_that_is_short(value, name):
    assert Constant(value).name == name


def test_a_constant_returns_its_value():
    assert Constant([1]).run() == Constant([1])() == [1]
    assert Constant(3, name="three").name == "three"
    assert Constant(3).auto_generated


def test_a_task_belongs_to_the_group_in_which_it_was_made_or_called():
    outside = Task("outside")
    with group("load"):
        made = Task("made")
        explicit = Task("explicit", group="own")
        with Flow("f"):
            called, bound = outside(), made()
    assert (outside.group, made.group, explicit.group) == ("", "load", "own")
    assert (called.group, bound.group) == ("load", "load")
    assert made.copy(group="other").group == "other"
    assert made.with_options(group=None).group == ""


def test_copies_made_in_one_group_share_their_options():
    plain = Task("plain")
    with group("load"), tags("db"):
        one, two = plain.copy(), plain.copy()
    assert one.options is two.options
    assert (one.group, one.tags) == ("load", {"db"})


def test_a_group_is_text():
    with pytest.raises(OptionTypeError, match="group=3"):
        Task("t", group=3)


# -- tasks given to a constructor ----------------------------------------------------


@pytest.mark.parametrize(("args", "kwargs"), [((), {"factor": 1}), ((1,), {})])
def test_a_task_given_to_a_constructor_is_warned_about(args, kwargs):
    class Add(Task):
        def __init__(self, factor, **options):
            super().__init__(**options)

    made = Task("load")
    with pytest.warns(UserWarning, match=r"Add was made with <Task: load> as .* Add\("):
        Add(*[made for _ in args], **dict.fromkeys(kwargs, made))


def test_the_warning_of_a_constructor_points_at_its_call():
    with pytest.warns(UserWarning, match="gets the task, not the value") as caught:
        Scale(Task("load"))
    assert caught[0].filename == __file__


def test_a_constructor_that_says_it_keeps_a_task_does_not_warn():
    class Wrap(Task):
        def __init__(
            self,
            inner: Task,
            other: "Task | None" = None,
            *rest: Task[..., int],
            scale: "Scale | None" = None,
            number=1,
            **options,
        ):
            self.inner = inner
            super().__init__(**options)

    made = Task("load")
    assert Wrap(made).inner is made
    Wrap(made, made, made, made, scale=Scale(3))
    Wrap(other=made, inner=made)
    with pytest.warns(UserWarning, match=r"says so: `def .*inner: Task\)`"):
        Wrap(made, number=made)


def test_copies_and_unpickled_tasks_do_not_warn():
    made = Scale(3)
    made.other = Task("load")
    assert pickle.loads(pickle.dumps(made.copy())).factor == 3
    assert Task(plus, name="a").name == "a"


# -- logger ----------------------------------------------------------------------------


class Talkative(Task):
    def run(self, x=0):
        self.logger.info("about %s", x)
        return x


class WithItsOwnLogger(Task):
    def __init__(self, **options):
        super().__init__(**options)
        self.logger = logging.getLogger("mine")

    def run(self):
        return self.logger.name


def test_a_task_logs_outside_of_runs_under_its_name(caplog):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.loud")
    loud = Talkative(name="loud")
    assert loud.run(3) == 3
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("prefect_dask_core.loud", "about 3")


def test_a_task_logs_in_a_run_as_the_run_does(caplog):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.task_runs")
    with Flow("logs") as flow:
        Talkative().map([7])
    assert flow.run().is_successful()
    (record,) = (r for r in caplog.records if "about 7" in r.getMessage())
    assert record.getMessage() == "Task 'Talkative[0]': about 7"


def test_a_class_may_have_a_logger_of_its_own():
    assert WithItsOwnLogger()() == "mine"
    assert copy.copy(WithItsOwnLogger()).logger.name == "mine"


@pytest.mark.parametrize("kind", [Talkative, WithItsOwnLogger])
def test_a_task_whose_logger_was_used_can_be_pickled(kind):
    made = kind()
    before = made.logger.name
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(made)).logger.name == before


# -- classes that nobody made a task of ------------------------------------------------


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("map", lambda: Talkative.map([[1], [2]])),
        ("submit", lambda: Talkative.submit([1])),
        ("bind", lambda: Talkative.bind([1], x=1)),
        ("with_options", lambda: Talkative.with_options(name="loud")),
        ("set_upstream", lambda: Talkative.set_upstream([1])),
    ],
)
def test_a_method_of_a_class_asks_for_a_task(method, call):
    told = f"Talkative is a class; make a task of it first: Talkative().{method}(...)"
    with Flow("f"), pytest.raises(DeclarationError, match=re.escape(told)):
        call()


@pytest.mark.parametrize("given", [[1], 3, decorated])
def test_a_class_that_is_called_with_an_input_asks_for_a_task(given):
    told = "Talkative is a class; make a task of it first: Talkative()("
    with pytest.raises(OptionTypeError, match=re.escape(told)):
        Talkative(given)


def test_a_class_with_a_body_and_a_function_still_has_two_bodies():
    with pytest.raises(OptionTypeError, match="a task has one body"):
        Talkative(len)


def test_a_method_may_be_called_through_its_class():
    class Loud(Talkative):
        def with_options(self, **options):
            return super().with_options(**options)

    made = Loud().with_options(name="loud")
    assert made.name == "loud"
    assert Task.with_options(made, name="louder").name == "louder"
    assert list(inspect.signature(Task.map).parameters) == ["self", "args", "kwargs"]
