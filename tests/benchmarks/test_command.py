"""The command with small sizes: every topic measures, and says what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import EVERY, ON_REQUEST, TOPICS

ROOT = Path(__file__).parents[2]
#: Per topic, its bars in the order of the table.
BARS = {
    "caching": [],
    "imports": ["ratio ≤ 1.15"],
    "mapped": [
        "ratio ≥ 150",
        "ours ≤ 10",
        "ratio ≤ 1.05",
        "ratio ≤ 1.05",
        "ratio ≤ 1.1",
    ],
    "watching": ["ratio ≤ 1.05", "ratio ≤ 1.1", *4 * ["ours ≤ 200"]],
    "submits": ["ratio ≤ 1", "difference ≤ 25", "ours ≤ 3"],
    "scale": [
        "ours ≤ 400",
        "ours ≤ 400",
        "ours ≤ 10",
        "ratio ≤ 1",
        "ours ≤ 0",
        "ratio ≤ 1.1",
        "ratio ≤ 1.1",
        "ratio ≤ 1.1",
    ],
}


def measured(names, tmp_path):
    numbers, table = tmp_path / "numbers.json", tmp_path / "table.md"
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "benchmarks", *names, "--quick"),
            *("--json", str(numbers), "--markdown", str(table)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text("utf-8"))["measurements"]
    for each in found:
        assert each["what"].strip() in done.stdout
        assert each["what"].strip() in table.read_text("utf-8")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", BARS)
def test_a_topic_has_its_bars_and_misses_none_with_small_sizes(name, tmp_path):
    found = measured([name], tmp_path)

    bars = [each["bar"].removesuffix(" (goal)") for each in found if each["bar"]]
    assert bars == BARS[name]
    assert all(each["verdict"] in ("", "met", "open") for each in found)


def test_what_installs_other_packages_is_measured_on_request_only():
    assert list(ON_REQUEST) == ["peers"]
    assert set(EVERY) == {*TOPICS, "peers"}


def test_the_help_names_every_topic():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    for name in EVERY:
        assert name in done.stdout
