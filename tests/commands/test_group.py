"""The group of commands: what it lists, and that nothing is imported for its help."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import prefect_dask_core
from prefect_dask_core.commands import COMMANDS, flow

ROOT = Path(prefect_dask_core.__file__).parent.parent


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option):
    told = CliRunner().invoke(flow, [option])
    assert told.exit_code == 0
    for name, (_, what) in COMMANDS.items():
        assert name in told.output
        assert what in told.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name):
    told = CliRunner().invoke(flow, [name, "--help"])
    assert told.exit_code == 0, told.output
    context = click.Context(flow)
    command = flow.get_command(context, name)
    assert command.name == name
    assert command.help


def test_an_unknown_command_is_refused():
    told = CliRunner().invoke(flow, ["walk"])
    assert told.exit_code == 2
    assert "No such command 'walk'" in told.output


def test_help_imports_no_command():
    code = (
        "import sys\n"
        "from prefect_dask_core.commands import COMMANDS, flow\n"
        "flow(['--help'], standalone_mode=False)\n"
        "heavy = {'bokeh', 'rich', 'graphviz', 'sqlalchemy'} & set(sys.modules)\n"
        "own = [m for m, _ in COMMANDS.values()\n"
        "       if f'prefect_dask_core.commands.{m}' in sys.modules]\n"
        "assert not heavy and not own, (heavy, own)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_dask_knows_the_group():
    tomllib = pytest.importorskip("tomllib")
    found = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    target = found["project"]["entry-points"]["dask_cli"]["flow"]
    module, _, name = target.partition(":")
    assert module == "prefect_dask_core.commands"
    assert globals()[name] is flow
