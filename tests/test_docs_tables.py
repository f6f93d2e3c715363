"""The table of the documented API is complete, up to date, and points at real tests."""

import ast
import inspect
import runpy
from pathlib import Path

import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    Task,
    results,
    signals,
    states,
    triggers,
)
from prefect_dask_core.flow_options import OLDER_FLOW_OPTIONS
from prefect_dask_core.options import OPTION_NAMES
from prefect_dask_core.spellings import ALL_NAMES

ROOT = Path(__file__).parent.parent
MAKE = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
TABLES = {name: MAKE["load_rows"](name) for name in MAKE["HEADS"]}
ROWS = [row for rows in TABLES.values() for row in rows]
NAMES = {row["name"] for row in ROWS}

#: Public for the engine, not for users.
INTERNAL = {"call_body", "collect", "has_edges", "labelled"}


def public_methods(cls):
    return {
        name
        for name, found in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def functions_of(module):
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_is_what_the_rows_say(table):
    written = MAKE["page_of"](table).read_text("utf-8")
    expected = MAKE["make_table"](table, TABLES[table])
    assert written == expected, "run: python docs/make_tables.py"


def test_the_page_of_options_has_each_of_them():
    written = (ROOT / "docs" / "task_options.md").read_text("utf-8")
    assert written == MAKE["make_options_table"](), "run: python docs/make_tables.py"
    for name in ALL_NAMES:
        assert f"`{name}`" in written
    assert all(f"| `{name}` |" in written for name in OPTION_NAMES)


KINDS = {"option", "method", "behaviour", "function", "class", "example", "to come"}
GENERATIONS = {
    "declarative": {"0.2", "0.11", "0.14", "later"},
    "functional": {"3.0", "3.8", "own"},
}


@pytest.mark.parametrize(
    ("table", "row"),
    [(table, row) for table, rows in TABLES.items() for row in rows],
    ids=lambda item: item if isinstance(item, str) else item["name"],
)
def test_a_row_names_a_test_that_exists(table, row):
    module, _, function = row["test"].partition("::")
    assert function in functions_of(module)
    assert row["kind"] in KINDS
    assert set(row["generation"].split()) <= GENERATIONS[table]


@pytest.mark.parametrize("table", TABLES)
def test_no_row_stands_twice(table):
    rows = TABLES[table]
    assert len({row["name"] for row in rows}) == len(rows)


def test_every_option_has_a_row():
    listed = {n[5:-1] for n in NAMES if n.startswith("Task(") and n.endswith(")")}
    assert listed == {*ALL_NAMES, "fn"}


def test_every_public_method_has_a_row():
    assert public_methods(Task) <= {n[5:] for n in NAMES if n[:5] == "Task."} | INTERNAL
    own = {name for name in public_methods(Parameter) if name in vars(Parameter)}
    assert own <= {name[10:] for name in NAMES if name[:10] == "Parameter."}


def test_every_option_and_method_of_a_flow_has_a_row():
    taken = {*inspect.signature(Flow.__init__).parameters} - {"self", "older"}
    for name in taken | set(OLDER_FLOW_OPTIONS):
        assert f"Flow({name})" in NAMES
    for name in inspect.signature(Flow.run).parameters:
        assert name in ("self", "more_parameters") or f"Flow.run({name})" in NAMES
    assert public_methods(Flow) <= {n[5:] for n in NAMES if n[:5] == "Flow."} | INTERNAL


#: What the reference pages of 3.0 and 3.8 name beside the options of tasks.
ON_THE_PAGES = {
    "Task.__call__": "return_state wait_for",
    "Task.__get__": "",
    "Task.apply_async": "args kwargs wait_for dependencies",
    "Task.aserve": "",
    "Task.create_local_run": "client id parameters flow_run_context "
    "parent_task_run_context wait_for extra_task_inputs deferred",
    "Task.create_run": "client id parameters flow_run_context "
    "parent_task_run_context wait_for extra_task_inputs deferred",
    "Task.delay": "",
    "Task.isclassmethod": "",
    "Task.ismethod": "",
    "Task.isstaticmethod": "",
    "Task.map": "return_state wait_for deferred",
    "Task.on_commit": "",
    "Task.on_completion": "",
    "Task.on_failure": "",
    "Task.on_rollback": "",
    "Task.on_running": "",
    "Task.serve": "",
    "Task.submit": "return_state wait_for",
    "Task.with_options": "name description tags cache_policy cache_key_fn "
    "task_run_name cache_expiration retries retry_delay_seconds retry_jitter_factor "
    "persist_result result_storage result_serializer result_storage_key "
    "cache_result_in_memory timeout_seconds log_prints refresh_cache on_completion "
    "on_failure retry_condition_fn viz_return_value",
    "MaterializingTask": "assets materialized_by **task_kwargs",
    "MaterializingTask.with_options": "assets",
    "TaskOptions": "",
    "TaskRunNameCallbackWithParameters": "",
    "TaskRunNameCallbackWithParameters.is_callback_with_parameters": "",
    "exponential_backoff": "backoff_factor",
    "task": "",
    "task_input_hash": "context arguments",
}
OPTIONS_ON_THE_PAGES = [
    "fn",
    "name",
    "description",
    "tags",
    "version",
    "cache_policy",
    "cache_key_fn",
    "cache_expiration",
    "task_run_name",
    "retries",
    "retry_delay_seconds",
    "retry_jitter_factor",
    "persist_result",
    "result_storage",
    "result_storage_key",
    "result_serializer",
    "cache_result_in_memory",
    "timeout_seconds",
    "log_prints",
    "refresh_cache",
    "on_failure",
    "on_completion",
    "on_commit",
    "on_rollback",
    "retry_condition_fn",
    "viz_return_value",
    "asset_deps",
]


def test_all_that_the_pages_of_function_flows_name_has_a_row():
    rows = {row["name"]: row for row in TABLES["functional"]}
    expected = [f"Task({option})" for option in OPTIONS_ON_THE_PAGES]
    for name, parameters in ON_THE_PAGES.items():
        expected += [name, *(f"{name}({one})" for one in parameters.split())]
    assert [name for name in expected if name not in rows] == []


def test_only_what_has_an_issue_of_its_own_is_still_to_come():
    """Storage, caching, transactions and deferred runs, and nothing else."""
    own = [
        "cache",
        "result_storage",
        "result_serializer",
        "on_commit",
        "on_rollback",
        "apply_async",
        "delay",
        "serve",
        "deferred",
        "task_input_hash",
    ]
    for row in TABLES["functional"]:
        if row["kind"] == "to come":
            assert any(word in row["name"] for word in own), row["name"]


def names_of(module, is_wanted):
    short = module.__name__.rpartition(".")[2]
    return {f"{short}.{name}" for name, it in vars(module).items() if is_wanted(it)}


def subclass_of(base):
    return lambda it: isinstance(it, type) and issubclass(it, base) and it is not base


@pytest.mark.parametrize(
    "names",
    [
        names_of(signals, subclass_of(signals.PrefectStateSignal)),
        names_of(states, subclass_of(states.State)),
        names_of(triggers, lambda it: isinstance(it, triggers.Trigger)),
        {f"results.{name}" for name in results.__all__},
    ],
    ids=["signals", "states", "triggers", "results"],
)
def test_every_public_name_of_a_module_has_a_row(names):
    assert names
    assert names <= NAMES
