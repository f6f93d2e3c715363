"""Each Python block of the guides runs, and prints what it says it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_readme import told_output

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = (
    "graph_flows.md",
    "function_flows.md",
    "migration.md",
    "reports.md",
    "results.md",
    "resume.md",
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", GUIDES)
def test_the_blocks_print_what_they_say(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One after the other in one namespace, as somebody pastes them.
    namespace = {"__name__": "guide"}
    blocks = BLOCK.findall((DOCS / name).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
        found = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert found == told_output(block)


@pytest.mark.parametrize("name", GUIDES)
def test_a_link_leads_somewhere(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (DOCS / target).exists()
