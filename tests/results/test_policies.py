"""Policies: which runs have one key."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prefect_dask_core
from prefect_dask_core import Flow, SequentialTaskRunner, flow
from prefect_dask_core.cache_validators import (
    all_inputs,
    all_parameters,
    duration_only,
    never_use,
    partial_inputs_only,
)
from prefect_dask_core.errors import OptionTypeError, OptionValueError
from prefect_dask_core.results.places import KeyContext, key_of_policy
from prefect_dask_core.results.policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundPolicy,
    Inputs,
    IsolationLevel,
    NoCacheKey,
    ValidatorPolicy,
    task_input_hash,
    token_of,
)
from prefect_dask_core.results.sources import source_text, source_token
from prefect_dask_core.tasks import Task
from tests.results.test_serializers import json_values

MEMBERS = [INPUTS, TASK_SOURCE, RUN_ID, FLOW_PARAMETERS, NO_CACHE]


def plus(x, y=1):
    return x + y


def minus(x, y=1):
    return x - y


def key(policy, inputs=None, parameters=None, fn=plus, run="07"):
    variables = {"flow_run_id": 32 * run[:1], "parameters": parameters or {}}
    inputs = {"x": 1} if inputs is None else inputs
    return key_of_policy(policy, KeyContext(Task(fn), variables, inputs, 0.0))


def test_inputs_that_are_equal_have_one_key():
    assert key(INPUTS, {"x": [1, 2], "y": 3}) == key(INPUTS, {"y": 3, "x": [1, 2]})
    assert key(INPUTS, {"x": 1}) != key(INPUTS, {"x": 2})
    assert key(INPUTS, {"x": 1}) != key(INPUTS, {"y": 1})
    assert key(INPUTS, {}) is None


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (1, 1.0), (1, "1"), ("a", b"a"), (None, "None"), ([1], (1,))],
)
def test_values_of_different_types_have_different_keys(left, right):
    assert key(INPUTS, {"x": left}) != key(INPUTS, {"x": right})


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=8), min_size=1))
def test_texts_with_any_characters_do_not_collide(inputs):
    for name, text in inputs.items():
        changed = {**inputs, name: text + "\nx:str:1:'"}
        assert token_of(changed) != token_of(inputs)


def test_an_input_can_be_left_out():
    policy = INPUTS - "debug"
    assert key(policy, {"x": 1, "debug": 1}) == key(policy, {"x": 1, "debug": 2})
    assert key(DEFAULT - "y", {"x": 1, "y": 1}) == key(DEFAULT - "y", {"x": 1, "y": 2})
    assert TASK_SOURCE - "x" == TASK_SOURCE
    assert key(INPUTS - "x", {"x": 1}) is None
    with pytest.raises(OptionTypeError, match="give the name of an input"):
        INPUTS - 3


def test_an_array_has_a_key_of_its_content():
    numpy = pytest.importorskip("numpy")
    one, other = numpy.arange(1000), numpy.arange(1000)
    assert key(INPUTS, {"x": one}) == key(INPUTS, {"x": other})
    other[500] = 0
    assert key(INPUTS, {"x": one}) != key(INPUTS, {"x": other})


def test_an_input_without_a_lasting_token_gives_no_key(caplog):
    assert key(INPUTS, {"x": 1, "lock": object()}) is None
    assert "the input 'lock'" in caplog.text


@pytest.mark.parametrize(
    "policy",
    [
        DEFAULT,
        TASK_SOURCE + INPUTS,
        CachePolicy.from_cache_key_fn(task_input_hash) + RUN_ID,
        TASK_SOURCE + ValidatorPolicy(name="load", validator=all_inputs),
    ],
)
def test_a_sum_has_no_key_where_an_input_has_no_lasting_token(policy, caplog):
    assert key(policy, {"lock": object()}) is None
    assert "the input 'lock'" in caplog.text
    assert key(FLOW_PARAMETERS + policy, parameters={"lock": object()}) is None


@given(st.dictionaries(st.text(), st.integers(0, 1)), st.data())
def test_whatever_names_and_values_hold_different_inputs_have_different_tokens(
    one, data
):
    other = data.draw(st.dictionaries(st.text(), st.integers(0, 1)))
    assert (token_of(one) == token_of(other)) == (one == other)


def test_a_name_that_looks_like_two_inputs_is_one():
    # As a body with **names may get it.
    assert token_of({"x:int:1:1\ny": 2}) != token_of({"x": 1, "y": 2})


def test_the_members_of_a_sum_are_told_apart():
    def made_of(*keys):
        first, second = (CachePolicy.from_cache_key_fn(lambda *_, k=k: k) for k in keys)
        return key(first + second)

    assert made_of("a\nb", "c") != made_of("a", "b\nc")
    assert made_of("a", None) != made_of(None, "a")


def adds(number):
    return lambda x: x + number


class Adds:
    def __init__(self, number):
        self.number = number

    def __call__(self, x):
        return x + self.number

    def add(self, x):
        return x + self.number

    __hash__ = None


class AddsTask(Task):
    def __init__(self, number):
        self.number = number
        super().__init__()

    def run(self, x):
        return x + self.number


def adds_in_turn(number):
    """Functions that close over each other."""

    def one(x):
        return x if not x else other(x - number)

    def other(x):
        return one(x)

    return one


@dataclass(frozen=True)
class Setting:
    number: int


def reads(setting):
    def read(x, of=setting):
        return x + setting.number + of.number

    return read


@pytest.mark.parametrize(
    "make",
    [
        adds,
        Adds,
        adds_in_turn,
        lambda n: adds(adds(n)),
        lambda n: adds([1, {"n": n}]),
        lambda n: adds({n, 5}),
        lambda n: adds(Adds(7).add) if n == 1 else adds(Adds(n).add),
        lambda n: Adds(n).add,
        lambda n: AddsTask(n).fn,
        lambda n: adds(AddsTask(n)),
        lambda n: partial(plus, n),
        lambda n: partial(plus, y=n),
        lambda n: partial(Adds(n).add),
        lambda n: reads(Setting(n)),
        lambda n: adds(IsolationLevel.SERIALIZABLE if n == 1 else n),
    ],
)
def test_functions_of_one_text_that_do_different_things_are_told_apart(make):
    assert source_token(make(1)) == source_token(make(1))
    assert source_token(make(1)) != source_token(make(2))


def test_what_has_no_token_counts_by_its_class():
    assert source_token(adds(Handle(1))) == source_token(adds(Handle(2)))
    assert source_token(adds(Handle(1))) != source_token(adds(object()))


def test_what_an_object_is_set_to_later_counts():
    body = Adds(1)
    before = source_token(body)
    body.number = 2
    assert source_token(body) != before


def test_a_task_has_nothing_that_counts_but_what_its_class_sets(tmp_path):
    bare = Task(plus, result_storage=tmp_path)
    mine = AddsTask(3).with_options(result_storage=tmp_path)
    with Flow("all") as made:
        bare(1)
        mine(2)
    made.run(task_runner=SequentialTaskRunner())
    for known in (bare, mine, *made.tasks, bare.copy(), bare.labelled()):
        expected = {"number": 3} if isinstance(known, AddsTask) else {}
        assert known._attributes_of_user() == expected


def test_what_a_class_sets_decides_on_values_of_a_run(tmp_path):
    kept = {"persist_result": True, "result_storage": tmp_path}
    tasks = [AddsTask(n).with_options(**kept) for n in (1, 2)]
    tasks += [Task(adds(n), name="adds", **kept) for n in (1, 2)]
    with Flow("sums") as made:
        found = [task(5) for task in tasks]
    state = made.run(task_runner=SequentialTaskRunner())
    assert [state[task].result() for task in found] == [6, 7, 6, 7]


def test_the_source_decides():
    assert key(TASK_SOURCE) == key(TASK_SOURCE, {"x": 2})
    assert key(TASK_SOURCE) != key(TASK_SOURCE, fn=minus)


def made_of(text):
    namespace = {}
    exec(text, namespace)
    return namespace["f"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x.a", "def f(x): return x.b"),
        ("def f(x, y=1): return x", "def f(x, y=2): return x"),
        ("def f(x, *, y=1): return x", "def f(x, *, y=2): return x"),
        ("def f(x): return lambda: 1", "def f(x): return lambda: 2"),
        (
            "def g(a):\n    return lambda x: x + a\nf = g(1)",
            "def g(a):\n    return lambda x: x + a\nf = g(2)",
        ),
    ],
)
def test_without_a_text_the_bytecode_decides(one, other):
    assert source_text(made_of(one)) is None
    assert source_token(made_of(one)) == source_token(made_of(one))
    assert source_token(made_of(one)) != source_token(made_of(other))


def test_the_text_of_a_decorated_function_is_its_own():
    assert "x + y" in source_text(plus)
    assert "x + y" in Task(plus).source_code


def test_a_run_of_its_own_has_a_key_of_its_own():
    assert key(RUN_ID, run="1") != key(RUN_ID, run="2")
    assert key(DEFAULT, run="1") == key(DEFAULT, run="1") != key(DEFAULT, run="2")


def test_parameters_of_the_flow_decide():
    assert key(FLOW_PARAMETERS, parameters={"a": 1}) == key(
        FLOW_PARAMETERS, {"x": 2}, parameters={"a": 1}
    )
    assert key(FLOW_PARAMETERS, parameters={"a": 1}) != key(
        FLOW_PARAMETERS, parameters={"a": 2}
    )
    assert key(FLOW_PARAMETERS) is None


def test_no_cache_has_no_key_and_adds_nothing():
    assert NONE is NO_CACHE
    assert key(NO_CACHE) is None
    assert NO_CACHE + INPUTS is INPUTS
    assert INPUTS + NO_CACHE is INPUTS


@given(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=4))
def test_a_sum_has_a_key_where_a_member_has_one(members):
    total = members[0]
    for member in members[1:]:
        total = total + member
    assert (key(total) is None) == all(key(member) is None for member in members)


@given(st.sampled_from(MEMBERS), st.sampled_from(MEMBERS))
def test_the_order_of_inputs_in_a_sum_does_not_matter(left, right):
    if INPUTS in (left, right):
        assert key(left + right) == key(right + left)


def test_inputs_are_in_a_sum_once_with_all_that_is_left_out():
    total = (INPUTS - "a") + TASK_SOURCE + (INPUTS - "b")
    assert total == CompoundPolicy(policies=(TASK_SOURCE, Inputs(exclude=("a", "b"))))


def test_settings_are_configured_on_a_copy():
    made = INPUTS.configure(isolation_level="SERIALIZABLE", key_storage="keys")
    assert made.isolation_level is IsolationLevel.SERIALIZABLE
    assert INPUTS.isolation_level is None
    assert made.configure(lock_manager=3).key_storage == "keys"
    total = made + TASK_SOURCE
    assert (total.isolation_level, total.key_storage) == (
        IsolationLevel.SERIALIZABLE,
        "keys",
    )
    with pytest.raises(OptionValueError, match="no isolation level 'STRICT'"):
        INPUTS.configure(isolation_level="STRICT")


def test_policies_with_different_settings_cannot_be_added():
    with pytest.raises(OptionValueError, match="with different key_storage cannot be"):
        INPUTS.configure(key_storage="a") + TASK_SOURCE.configure(key_storage="b")


def test_a_function_gives_the_key():
    policy = CachePolicy.from_cache_key_fn(
        lambda run, given: f"{run.task.name}-{given}"
    )
    assert isinstance(policy, CacheKeyFnPolicy)
    assert key(policy, {"x": 3}) == "plus-{'x': 3}"
    assert key(CachePolicy.from_cache_key_fn(lambda *_: None)) is None


def test_a_function_sees_the_task_run():
    def told(run, given):
        return f"{run.task_run.name}/{run.task_run.flow_run_id}/{run.parameters}"

    found = key(CachePolicy.from_cache_key_fn(told), {"x": 3}, run="1")
    assert found == "plus/11111111-1111-1111-1111-111111111111/{'x': 3}"


def test_a_policy_that_raises_gives_no_key_and_is_logged(caplog):
    assert key(CachePolicy.from_cache_key_fn(lambda *_: 1 / 0)) is None
    assert "its cache policy raised" in caplog.text


@pytest.mark.parametrize("what", ["its cache policy raised", "no cache key"])
def test_a_policy_that_raises_for_each_child_is_told_once_for_each_task_and_run(
    what, tmp_path, caplog
):
    def wrong(run, given):
        raise NoCacheKey("none") if what == "no cache key" else ValueError("none")

    def declared(name):
        return Task(plus, name=name, cache_key_fn=wrong, result_storage=tmp_path)

    with Flow("two maps") as flow:
        declared("one").map(range(50))
        declared("two").map(range(50))

    def told():
        caplog.clear()
        assert flow.run(task_runner=SequentialTaskRunner()).is_successful()
        return [r.getMessage() for r in caplog.records if what in r.getMessage()]

    for _ in range(2):
        first, second = told()
        assert "'one'" in first
        assert "once for each task, flow run" in first
        assert "'two'" in second


class Weekly(CachePolicy):
    """A policy of a user's own."""

    def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
        return f"week-{inputs['x'] // 7}"


class Every(CachePolicy):
    """One that is made like any class."""

    def __init__(self, days):
        self.days = days

    def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
        return f"{inputs['x'] // self.days}"


@dataclass
class Of(CachePolicy):
    """One that is a dataclass."""

    days: int

    compute_key = Every.compute_key


@dataclass(frozen=True)
class Frozen(CachePolicy):
    """One that is a frozen dataclass."""

    days: int

    compute_key = Every.compute_key


@pytest.mark.parametrize("kind", [Every, Of, Frozen])
def test_a_policy_of_ones_own_may_be_of_any_kind(kind):
    policy = kind(7)
    once = policy.configure(isolation_level="SERIALIZABLE")
    assert (once.days, once.isolation_level) == (7, IsolationLevel.SERIALIZABLE)
    assert policy.isolation_level is None
    total = once + TASK_SOURCE
    assert total.isolation_level is IsolationLevel.SERIALIZABLE
    assert key(total, {"x": 8}) == key(total, {"x": 9}) != key(total, {"x": 15})
    assert key(pickle.loads(pickle.dumps(once)), {"x": 8}) == "1"
    assert Task(plus, cache_policy=once, retries=1).options.policy is once


def test_a_policy_of_ones_own_adds_up():
    assert key(Weekly(), {"x": 8}) == "week-1"
    assert key(Weekly() + TASK_SOURCE, {"x": 8}) == key(
        Weekly() + TASK_SOURCE, {"x": 9}
    )
    with pytest.raises(NotImplementedError, match="does not define compute_key"):
        CachePolicy().compute_key(None, {}, {})


def test_the_hash_of_inputs_is_of_the_code_too():
    def found(fn, **given):
        return task_input_hash(SimpleNamespace(task=Task(fn)), given)

    assert found(plus, x=1) == found(plus, x=1)
    assert len({found(plus, x=1), found(plus, x=2), found(minus, x=1)}) == 3
    with pytest.raises(NoCacheKey, match="the input 'x'"):
        found(plus, x=object())


@pytest.mark.parametrize(
    ("validator", "same", "other"),
    [
        (all_inputs, {"parameters": {"a": 2}}, {"inputs": {"x": 2}}),
        (all_parameters, {"inputs": {"x": 2}}, {"parameters": {"a": 2}}),
        (duration_only, {"inputs": {"x": 2}, "parameters": {"a": 2}}, None),
        (partial_inputs_only(["x"]), {"inputs": {"x": 1, "z": 1}}, {"inputs": {}}),
    ],
)
def test_a_validator_of_the_graph_generations_is_a_policy(validator, same, other):
    policy = ValidatorPolicy(name="load", validator=validator)
    first = {"inputs": {"x": 1}, "parameters": {"a": 1}}
    assert key(policy, **first) == key(policy, **{**first, **same})
    if other is not None:
        assert key(policy, **first) != key(policy, **{**first, **other})
    named = ValidatorPolicy(name="other", validator=validator)
    assert key(policy, **first) != key(named, **first)


def test_never_use_has_no_key():
    assert key(ValidatorPolicy(name="load", validator=never_use)) is None


def test_keys_are_the_same_in_another_process():
    code = (
        "from tests.results.test_policies import *; "
        "print(key(DEFAULT, {'x': {'b', 'a', 'c'}, 'y': [1.5, None]}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(prefect_dask_core.__file__).parents[1],
    )
    assert found.returncode == 0, found.stderr
    given = {"x": {"c", "b", "a"}, "y": [1.5, None]}
    assert found.stdout.strip() == key(DEFAULT, given)


@given(json_values)
def test_a_value_of_any_kind_has_the_key_of_its_copy(value):
    assert token_of({"x": value}) == token_of({"x": value})


class Handle:
    """What differs from process to process."""

    def __init__(self, number):
        self.number = number
        self.lock = threading.Lock()


def test_children_whose_inputs_have_no_lasting_token_have_values_of_their_own(tmp_path):
    number_of = Task(lambda of: of.number, name="number_of", result_storage=tmp_path)

    @flow(task_runner=SequentialTaskRunner())
    def numbers():
        return number_of.map([Handle(1), Handle(2), Handle(3)]).result()

    assert numbers() == [1, 2, 3]
