"""``dask flow visualize`` draws flows of a file."""

import shutil
import sys

import pytest
from click.testing import CliRunner

from prefect_dask_core.commands import flow

SOURCE = """
from prefect_dask_core import Flow, flow, task

@task
def double(x):
    return 2 * x

with Flow("doubling") as graph:
    double.map(double([1]))

@flow
def function(n):
    for _ in range(n):
        double(1)

@flow
def mapped():
    return double.map([1, 2])
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "flows_to_draw.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


def drawn(*arguments):
    return CliRunner().invoke(flow, ["visualize", *map(str, arguments)])


def test_a_graph_flow_is_printed_as_mermaid_text(file):
    told = drawn(f"{file}:graph")
    assert told.exit_code == 0, told.output
    assert told.output.startswith("flowchart TD\n")
    assert "double #lt;map#gt;" in told.output


def test_a_function_flow_is_drawn_with_its_arguments(file):
    told = drawn(f"{file}:function", "--param", "n=3")
    assert told.exit_code == 0, told.output
    assert told.output.count('(["double-') == 3


@pytest.mark.parametrize("output", [(), ("-o", "mapped.svg")])
def test_a_function_flow_that_cannot_be_drawn_says_so_without_a_traceback(file, output):
    told = drawn(f"{file}:mapped", *output)
    assert told.exit_code == 1
    assert told.output.startswith("Error: task 'double' is mapped while the flow")


def test_a_parameter_that_is_missing_is_a_mistake_of_the_call(file):
    told = drawn(f"{file}:function")
    assert told.exit_code == 2
    assert "missing a required argument: 'n'" in told.output


def test_parameters_of_a_graph_flow_are_refused(file):
    told = drawn(f"{file}:graph", "--param", "n=3")
    assert told.exit_code == 2
    assert "drawn without parameters" in told.output


@pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is missing")
def test_a_picture_is_written_in_the_format_of_its_suffix(file, tmp_path):
    pytest.importorskip("graphviz")
    path = tmp_path / "picture.svg"
    told = drawn(f"{file}:graph", "-o", path)
    assert told.exit_code == 0, told.output
    assert told.output.strip() == str(path)
    assert "<svg" in path.read_text("utf-8")


def test_a_picture_of_no_known_format_is_refused(file, tmp_path):
    told = drawn(f"{file}:graph", "-o", tmp_path / "picture.docx")
    assert told.exit_code == 2
    assert "there is no format 'docx'" in told.output
    assert list(tmp_path.glob("picture*")) == []


def test_a_picture_that_cannot_be_drawn_is_told_without_a_traceback(
    file, tmp_path, monkeypatch
):
    pytest.importorskip("graphviz")
    monkeypatch.setenv("PATH", str(tmp_path))
    told = drawn(f"{file}:graph", "-o", tmp_path / "picture.svg")
    assert told.exit_code == 1
    assert "Error: failed to execute" in told.output
