"""The cache rule: a run takes a cached value exactly when its validator accepts one.

Random graphs run several times with other parameters. The law is checked run by run,
with nothing but the states above and what earlier runs left.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    cache_validators,
    cached_values,
    context,
    unmapped,
)
from tests.engine.random_flows import told_all

#: Bodies that ran; the workers of the shared cluster are in this process.
RAN = []
TAKEN = "taken from an earlier run."
FOREVER, NO_TIME = timedelta(days=1), timedelta(0)
#: What fan-outs begin with: two children of one fan-out have the same input.
ITEMS = [0, 1, 1]

bits = st.integers(0, 1)
#: Parameters of several runs, one after the other.
sequences = st.lists(
    st.fixed_dictionaries({"p": bits, "q": bits}), min_size=2, max_size=4
)


@dataclass(frozen=True)
class Kept:
    """What a run left: its inputs, the parameters of its flow, its value."""

    inputs: dict
    parameters: dict
    value: str


def odd_p(state, inputs, parameters):
    """Accept, as a validator of one's own, whatever is there where p is odd."""
    return parameters["p"] == 1


#: Validators, and what they accept: a value that was kept, for inputs and parameters.
VALIDATORS = {
    "default": (None, lambda kept, inputs, parameters: True),
    "never_use": (
        cache_validators.never_use,
        lambda kept, inputs, parameters: False,
    ),
    "duration_only": (
        cache_validators.duration_only,
        lambda kept, inputs, parameters: True,
    ),
    "all_inputs": (
        cache_validators.all_inputs,
        lambda kept, inputs, parameters: kept.inputs == inputs,
    ),
    "all_parameters": (
        cache_validators.all_parameters,
        lambda kept, inputs, parameters: kept.parameters == parameters,
    ),
    "partial_inputs_only(x)": (
        cache_validators.partial_inputs_only(["x"]),
        lambda kept, inputs, parameters: kept.inputs["x"] == inputs["x"],
    ),
    "partial_inputs_only()": (
        cache_validators.partial_inputs_only(),
        lambda kept, inputs, parameters: True,
    ),
    "partial_parameters_only(q)": (
        cache_validators.partial_parameters_only(["q"]),
        lambda kept, inputs, parameters: kept.parameters["q"] == parameters["q"],
    ),
    "odd_p": (odd_p, lambda kept, inputs, parameters: parameters["p"] == 1),
}


class Body:
    """Tells its inputs; fails where the parameter p has a certain value."""

    def __init__(self, name, fails_on):
        self.__name__ = name
        self.fails_on = fails_on

    def __call__(self, x, y):
        RAN.append((self.__name__, context.map_index))
        if context.parameters["p"] == self.fails_on:
            raise ValueError("no")
        return f"{self.__name__}({x},{y})"


@dataclass(frozen=True)
class Spec:
    """One task. Its inputs are a parameter's name or the number of a task above.

    A mapped task has a child for each child of its x, or for each of `ITEMS`.
    """

    name: str
    mapped: bool
    x: str | int
    y: str | int
    fails_on: int | None
    cache_for: timedelta | None
    cache_key: str | None
    validator: str


@st.composite
def drawn_specs(draw):
    found = []
    for number in range(draw(st.integers(1, 4))):
        mapped = draw(st.booleans())
        fan_outs = [n for n, spec in enumerate(found) if spec.mapped]
        plain = ["p", "q", *range(number)]
        found.append(
            Spec(
                name=f"t{number}",
                mapped=mapped,
                x=draw(st.sampled_from(["items", *fan_outs] if mapped else plain)),
                y=draw(st.sampled_from(plain)),
                fails_on=draw(st.sampled_from([None, None, None, 0, 1])),
                cache_for=draw(st.sampled_from([FOREVER] * 4 + [NO_TIME, None])),
                cache_key=draw(st.sampled_from([None, None, "shared"])),
                validator=draw(st.sampled_from(list(VALIDATORS))),
            )
        )
    return found


def build(specs):
    """The flow, and its tasks in the order of their numbers."""
    tasks = []
    with Flow("cached") as flow:
        sources = {"items": ITEMS, "p": Parameter("p"), "q": Parameter("q")}
        for name in ("p", "q"):
            flow.add_task(sources[name])
        for number, spec in enumerate(specs):
            options = {}
            if spec.cache_for is not None:
                options = {
                    "cache_for": spec.cache_for,
                    "cache_validator": VALIDATORS[spec.validator][0],
                    "cache_key": spec.cache_key,
                }
            task = Task(Body(spec.name, spec.fails_on), name=spec.name, **options)
            x, y = sources[spec.x], unmapped(sources[spec.y])
            sources[number] = (task.map if spec.mapped else task)(x, y)
            tasks.append(sources[number])
    return flow, tasks


# -- the law ---------------------------------------------------------------------------


def check_run(specs, parameters, states, kept):
    """Check each run against the states above it and what was kept before.

    Returns
    -------
    list of (str, Kept)
        What the run leaves for later ones, by key.
    """
    ran, left = Counter(RAN), []
    for spec, ended in zip(specs, states, strict=True):
        children = list(enumerate(ended)) if spec.mapped else [(None, ended)]
        for index, state in children:
            x, y = (
                above(source, index if name == "x" else None, parameters, states)
                for name, source in (("x", spec.x), ("y", spec.y))
            )
            inputs, key = {"x": x.value, "y": y.value}, spec.cache_key or spec.name
            accepts = VALIDATORS[spec.validator][1]
            found = [
                old.value
                for name, old in kept
                if name == key and accepts(old, inputs, parameters)
            ]
            taken = spec.cache_for is not None and bool(found)
            made = f"{spec.name}({x.value},{y.value})"
            if not (x.ok and y.ok):
                expected = "TriggerFailed"
            elif taken:
                expected = "Cached"
                assert state.result() in found
            elif parameters["p"] == spec.fails_on:
                expected = "Failed"
            else:
                expected = "Completed" if spec.cache_for is None else "Cached"
                assert state.result() == made
                if spec.cache_for == FOREVER:
                    left.append((key, Kept(inputs, parameters, made)))
            starts = x.ok and y.ok and not taken
            assert type(state).__name__ == expected
            assert (state.message == TAKEN) == (expected == "Cached" and taken)
            assert ran[spec.name, index] == starts
    return left


class Above(NamedTuple):
    """A value above, and whether what gave it succeeded."""

    value: object
    ok: bool = True


def above(source, index, parameters, states):
    """What a run reads: of a fan-out its child, or all of them without an index."""
    if source == "items":
        return Above(ITEMS[index])
    if source in parameters:
        return Above(parameters[source])
    state = states[source]
    if index is not None:
        state = state[index]
    succeeded = all(
        s.is_successful() for s in (state if state.is_mapped() else [state])
    )
    return Above(state.result(raise_on_failure=False), succeeded)


def told_of_runs(runner, specs, sequence):
    """States and values of several runs, each of which was checked."""
    flow, tasks = build(specs)
    kept, told = [], []
    with patch.object(cached_values, "_KNOWN", {}):
        for parameters in sequence:
            RAN.clear()
            state = flow.run(parameters, task_runner=runner)
            states = [state[task] for task in tasks]
            kept += check_run(specs, parameters, states, kept)
            told.append(told_all(state, tasks))
    return told


@pytest.mark.filterwarnings("ignore:task .* is mapped with cache_for")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=40,
)
@given(drawn_specs(), sequences)
def test_a_run_takes_a_kept_value_exactly_if_its_validator_accepts_one(
    client, specs, sequence
):
    expected = told_of_runs(SequentialTaskRunner(), specs, sequence)
    assert told_of_runs(ThreadPoolTaskRunner(2), specs, sequence) == expected
    runner = DaskTaskRunner(cluster=client)
    assert told_of_runs(runner, specs, sequence) == expected
