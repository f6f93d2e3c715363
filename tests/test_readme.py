"""Each Python block of the README runs, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
IS_SCRIPT = re.compile(r"^if __name__", re.MULTILINE)


def told_output(block):
    """What a block says it prints: the comments behind its calls of `print`."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE)


def test_the_blocks_print_what_they_say(capsys):
    # One after the other in one namespace, as somebody pastes them.
    namespace = {"__name__": "readme"}
    expected = []
    for block in BLOCKS:
        if not IS_SCRIPT.search(block):
            exec(compile(block, "README.md", "exec"), namespace)
            expected += told_output(block)

    assert expected, "the README shows what its blocks print"
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in BLOCKS if IS_SCRIPT.search(b)])
def test_the_scripts_run(block, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(block, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # seen by its workers as well
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == told_output(block)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_to_a_file(target):
    assert (ROOT / target).exists()
