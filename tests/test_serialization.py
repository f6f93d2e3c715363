import functools
import json
from datetime import date, timedelta

import pytest

from prefect_dask_core import (
    Edge,
    Flow,
    Parameter,
    cache_validators,
    group,
    task,
    triggers,
    unmapped,
)
from prefect_dask_core.errors import CycleError, OptionValueError
from prefect_dask_core.serialization import name_of, plain
from prefect_dask_core.tasks import Task


class Add(Task):
    def run(self, x: int, y: int = 1) -> int:
        return x + y


@task
def inc(x):
    return x + 1


class Opaque:
    def __call__(self):
        return 1


def built(step="inc"):
    with Flow("etl") as flow:
        many = inc.map(Parameter("xs"), task_args={"name": step})
        Add()(many, y=3)
    return flow


def test_a_task_is_described_by_its_options_and_signature():
    found = Add(
        name="add",
        slug="plus",
        description="adds",
        group="math",
        version="2",
        tags=["b", "a"],
        max_retries=2,
        retry_delay=timedelta(minutes=1),
        timeout=5,
        trigger=triggers.any_failed,
        skip_on_upstream_skip=False,
        cache_for=timedelta(hours=1),
        cache_key="shared",
        cache_validator=cache_validators.all_inputs,
    ).serialize()
    assert found == {
        "name": "add",
        "slug": "plus",
        "type": f"{__name__}.Add",
        "description": "adds",
        "group": "math",
        "version": "2",
        "tags": ["a", "b"],
        "max_retries": 2,
        "retry_delay": 60.0,
        "retry_on": None,
        "timeout": 5.0,
        "trigger": "prefect_dask_core.triggers.any_failed",
        "skip_on_upstream_skip": False,
        "cache_for": 3600.0,
        "cache_key": "shared",
        "cache_validator": "prefect_dask_core.cache_validators.all_inputs",
        "inputs": {
            "x": {"type": "int", "required": True},
            "y": {"type": "int", "required": False},
        },
        "outputs": "int",
        "auto_generated": False,
    }


def test_a_task_may_be_handed_itself_as_in_the_first_generation():
    made = Task("t")
    assert made.serialize(made) == made.serialize(task=made) == made.serialize()
    assert made.serialize()["slug"] is None


def test_a_parameter_is_described_by_its_default():
    assert Parameter("p", default=date(2024, 3, 1), tags=["x"]).serialize() == {
        "name": "p",
        "slug": "p",
        "type": "prefect_dask_core.parameters.Parameter",
        "tags": ["x"],
        "default": "2024-03-01",
        "required": False,
        "outputs": "typing.Any",
    }
    assert Parameter("p").serialize()["default"] is None
    assert Parameter("p").serialize()["required"] is True


def test_the_info_of_a_parameter_is_short():
    found = {"name": "p", "required": True, "default": None}
    assert Parameter("p").info() == found
    assert Parameter("p", default=[1]).info() == {
        "name": "p",
        "required": False,
        "default": [1],
    }


def test_an_edge_is_described_by_the_slugs_of_its_ends():
    one, two = Task("one"), Task("two", slug="second")
    edge = Edge(one, two, key="x", mapped=True)
    assert edge.serialize() == {
        "upstream_task": "one",
        "downstream_task": "second",
        "key": "x",
        "mapped": True,
        "flattened": False,
    }
    assert edge.serialize({one: "one-1", two: "b"})["upstream_task"] == "one-1"


def test_a_flow_is_described_with_its_tasks_and_edges():
    found = built().serialize()
    assert list(found) == [
        "name",
        "type",
        "version",
        "description",
        "schedule",
        "run_config",
        "storage",
        "parameters",
        "tasks",
        "edges",
        "reference_tasks",
    ]
    assert [each["slug"] for each in found["tasks"]] == ["Add-1", "inc-1", "xs"]
    assert [each["slug"] for each in found["parameters"]] == ["xs"]
    assert found["reference_tasks"] == ["Add-1"]
    ends = [(e["upstream_task"], e["downstream_task"]) for e in found["edges"]]
    assert ends == [("inc-1", "Add-1"), ("xs", "inc-1")]
    assert found["schedule"] is found["run_config"] is found["storage"] is None


def test_a_description_is_json():
    with Flow("f") as flow:
        inc(Parameter("p", default={"a": {1, 2}, 3: Opaque()}))
        Task(
            Opaque(), trigger=lambda states: True, cache_validator=Opaque(), cache_for=1
        )()
        Task(functools.partial(inc.fn, 1), name="partial")()
        inc.map([1], task_args={"retry_delay_seconds": [1, 2]})
        inc(unmapped(5))
    text = json.dumps(flow.serialize(), allow_nan=False)
    assert " at 0x" not in text
    assert json.loads(text) == flow.serialize()


def test_flows_that_were_built_alike_have_one_hash():
    assert built().serialized_hash() == built().serialized_hash()
    assert built().serialized_hash() != built("other").serialized_hash()
    assert len(built().serialized_hash()) == 64


def test_the_hash_does_not_depend_on_the_order_in_which_tasks_were_added():
    tasks = [Task("a", slug="a"), Task("b", slug="b")]
    one, two = Flow("f", tasks=tasks), Flow("f", tasks=tasks[::-1])
    assert one.serialized_hash() == two.serialized_hash()


def test_a_group_is_part_of_the_description():
    with group("load"):
        made = Task("t")
    assert made.serialize()["group"] == "load"


def test_a_flow_without_storage_cannot_be_built():
    with pytest.raises(OptionValueError, match="no storage"):
        built().serialize(build=True)
    with pytest.raises(OptionValueError, match="no storage"):
        built().serialized_hash(build=True)


def test_a_cycle_is_found_before_a_flow_is_described():
    one, two = Task("one"), Task("two")
    flow = Flow("f", edges=[Edge(one, two), Edge(two, one)])
    with pytest.raises(CycleError):
        flow.serialize()


def test_names_and_values_are_plain():
    assert name_of("x") == "x"
    assert name_of(int | None) == "int | None"
    assert name_of(Opaque()) == f"{__name__}.Opaque"
    assert plain([float("inf"), True, None, timedelta(seconds=2)]) == [
        "inf",
        True,
        None,
        2.0,
    ]
