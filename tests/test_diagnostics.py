import json

import dask.config

from prefect_dask_core import Flow, SequentialTaskRunner, task
from prefect_dask_core.diagnostics import diagnostics


@task
def inc(x):
    return x + 1


def facts(**options):
    with Flow("f", task_runner=SequentialTaskRunner()) as flow:
        inc.map(inc([1]))
    return json.loads(flow.diagnostics(**options))


def test_a_flow_is_counted_and_not_shown():
    found = facts()["flow_information"]
    assert found == {
        "task_count": 2,
        "edge_count": 1,
        "mapped": True,
        "task_runner": "SequentialTaskRunner",
        "result": False,
        "schedule": False,
        "storage": False,
    }


def test_versions_are_included():
    found = facts()["system_information"]
    assert found["package_versions"]["dask"]
    assert found["python_version"]
    assert found["platform"]


def test_settings_that_differ_are_named_without_their_values():
    assert facts()["config_overrides"] == []
    changed = {"prefect-dask-core.home-bytes": 123456, "prefect-dask-core.api.key": "k"}
    with dask.config.set(changed):
        assert facts()["config_overrides"] == ["home-bytes"]
        found = facts(include_secret_names=True)
    assert found["config_overrides"] == ["api.key", "home-bytes"]
    assert "123456" not in json.dumps(found)


def test_variables_are_named_without_their_values(monkeypatch):
    monkeypatch.setenv("DASK_ONE", "hidden value")
    monkeypatch.setenv("DASK_AUTH__TOKEN", "hidden value")
    monkeypatch.setenv("OTHER", "hidden value")
    found = facts()["env_vars"]
    assert "DASK_ONE" in found
    assert "DASK_AUTH__TOKEN" not in found
    assert "OTHER" not in found
    found = facts(include_secret_names=True)
    assert "DASK_AUTH__TOKEN" in found["env_vars"]
    assert "hidden" not in json.dumps(found)


def test_without_a_flow_only_the_system_is_described():
    assert "flow_information" not in json.loads(diagnostics())
