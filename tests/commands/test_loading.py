"""Flows and parameters are found by what is written on the command line."""

import os
import subprocess
import sys

import click
import pytest

from prefect_dask_core import Flow
from prefect_dask_core.commands.loading import load_flow, parameters_from

SOURCE = """
from neighbour import NAME
from prefect_dask_core import Flow, flow, task

@task
def double(x):
    return 2 * x

with Flow("doubling") as graph:
    double(1)

@flow(name="a-function")
def function(n):
    return double(n)

same = graph
number = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour.py").write_text("NAME = 'neighbour'")
    path = tmp_path / "some_flows_of_a_file.py"
    path.write_text(SOURCE)
    yield path
    for name in (path.stem, "neighbour"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("graph", "doubling"),
        ("same", "doubling"),
        ("doubling", "doubling"),
        ("function", "a-function"),
        ("a-function", "a-function"),
    ],
)
def test_a_flow_is_found_by_its_variable_or_its_name(file, name, found):
    assert load_flow(f"{file}:{name}").name == found


@pytest.mark.parametrize("name", ["number", "nothing"])
def test_what_is_no_flow_is_refused_with_those_there_are(file, name):
    with pytest.raises(click.UsageError, match=r"no flow .* are: graph, function\."):
        load_flow(f"{file}:{name}")


def test_several_flows_have_to_be_told_apart(file):
    with pytest.raises(click.UsageError, match=r"has 2 flows \(graph, function\)"):
        load_flow(str(file))


def test_the_only_flow_needs_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "one_flow_of_a_file.py"
    path.write_text("from prefect_dask_core import Flow\nmine = Flow('only')\n")
    assert load_flow(str(path)).name == "only"
    empty = tmp_path / "no_flow_of_a_file.py"
    empty.write_text("")
    with pytest.raises(click.UsageError, match="has no flow"):
        load_flow(str(empty))


def test_a_flow_is_found_in_a_module(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    assert isinstance(load_flow(f"{file.stem}:graph"), Flow)


@pytest.mark.parametrize("target", ["nowhere.py:flow", "no.such.module:flow"])
def test_a_place_that_is_not_there_is_refused(target):
    with pytest.raises(click.UsageError, match="there is no"):
        load_flow(target)


def test_an_error_of_the_file_itself_is_told_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "broken_flows_of_a_file.py"
    path.write_text("import a_module_that_is_missing")
    with pytest.raises(click.ClickException) as told:
        load_flow(str(path))
    # From the first line of the file on, without what called it.
    _, title, where, *rest = told.value.message.splitlines()
    assert title == "Traceback (most recent call last):"
    assert where == f'  File "{path}", line 1, in <module>'
    assert rest[-1] == "ModuleNotFoundError: No module named 'a_module_that_is_missing'"


def test_what_a_file_defines_travels_without_the_file(file):
    code = (
        "import sys, cloudpickle\n"
        "from prefect_dask_core.commands.loading import load_flow\n"
        "flow = load_flow(sys.argv[1])\n"
        "sys.stdout.buffer.write(cloudpickle.dumps(flow.fn))\n"
    )
    here = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    run = {"cwd": here, "check": True, "capture_output": True}
    blob = subprocess.run(
        [sys.executable, "-c", code, f"{file}:function"], **run
    ).stdout
    code = "import pickle, sys\nprint(pickle.loads(sys.stdin.buffer.read())(4))\n"
    told = subprocess.run([sys.executable, "-c", code], input=blob, **run).stdout
    assert told.strip() == b"8"


@pytest.mark.parametrize("given", ["n", "=3"])
def test_a_parameter_without_name_or_value_is_refused(given):
    with pytest.raises(click.UsageError, match="NAME=VALUE"):
        parameters_from([given])


def test_a_parameter_given_twice_is_refused():
    with pytest.raises(click.UsageError, match="n was given twice"):
        parameters_from(["n=1", "n=2"])


def test_a_file_that_is_not_there_is_told_with_how_a_flow_is_named():
    with pytest.raises(click.UsageError, match=r"no file .*FILE\.py:FLOW"):
        load_flow("no.py:flow")
