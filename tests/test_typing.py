"""Tasks, futures and flows keep the types of arguments and values."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["function_flows"])
def test_type_checkers_see_what_a_call_gives(name):
    api = pytest.importorskip("mypy.api")
    path = HERE / "typing" / f"{name}.py"
    found, errors, code = api.run(["--strict", str(path)])
    assert code == 0, found + errors
