"""Pairs, bars and verdicts on made-up measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds

ROOT = Path(__file__).parents[2]
COSTS = st.floats(min_value=1e-6, max_value=1e6)


def line(*pairs, bar=None):
    return Measurement("chain", "s", tuple(Pair(*pair) for pair in pairs), bar)


@given(factors=st.lists(COSTS, min_size=1, max_size=9), ratio=COSTS)
def test_a_machine_that_changes_its_speed_does_not_change_the_ratio(factors, ratio):
    measured = line(*[(ratio * factor, factor) for factor in factors])

    assert measured.ratio == pytest.approx(ratio)


def test_one_disturbed_pair_does_not_change_the_ratio():
    assert line((1.0, 1.0), (90.0, 1.0), (2.0, 2.0)).ratio == 1.0


def test_the_sides_take_turns_in_going_first():
    calls = []

    def ours():
        calls.append("ours")
        return 1.0

    def peer():
        calls.append("peer")
        return 2.0

    pairs = in_turns(ours, peer, rounds=3, warm_up=0)

    assert calls == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert pairs == (Pair(1.0, 2.0),) * 3


def test_what_is_measured_to_warm_up_is_thrown_away():
    numbers = count()

    pairs = in_turns(lambda: next(numbers), lambda: next(numbers), 1, warm_up=2)

    assert pairs == (Pair(4, 5),)


def test_without_a_peer_there_is_neither_ratio_nor_difference():
    alone = line((3.0,), (5.0,))

    assert alone.ours == 4.0
    assert alone.peer is alone.ratio is alone.difference is None


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [
        (None, ""),
        (Bar("ratio", 2.0), "holds"),
        (Bar("ratio", 1.99), "missed"),
        (Bar("ratio", 2.01, at_least=True), "missed"),
        (Bar("difference", 1.0), "holds"),
        (Bar("ours", 1.0), "missed"),
        (Bar("ours", 1.0, binding=False), "open"),
        (Bar("ours", 2.0, binding=False), "met"),
    ],
)
def test_a_bar_is_held_if_its_limit_is_not_passed(bar, verdict):
    measured = line((2.0, 1.0), bar=bar)

    assert measured.verdict == verdict
    assert measured.is_missed == (verdict == "missed")


def test_a_bar_of_a_ratio_without_a_peer_is_a_mistake():
    with pytest.raises(ValueError, match="bar of ratio, but no peer was measured"):
        _ = line((2.0,), bar=Bar("ratio", 2.0)).verdict


def test_a_goal_is_not_missed():
    measured = line((2.0, 1.0), bar=Bar("ratio", 1.0))

    assert measured.without_obligation().verdict == "open"
    assert not measured.without_obligation().is_missed
    assert measured.is_missed


def test_a_measurement_survives_json():
    record = line((2.0, 1.0), (4.0, 1.0), bar=Bar("ratio", 3.0)).as_record()

    assert json.loads(json.dumps(record)) == record
    assert record["ratio"] == 3.0
    assert record["bar"] == "ratio ≤ 3"
    assert record["pairs"] == [[2.0, 1.0], [4.0, 1.0]]


def test_time_is_measured_around_the_work():
    done = []

    assert seconds(lambda: done.append(1)) > 0
    assert done == [1]


@pytest.mark.slow
def test_the_command_measures_and_writes_its_files(tmp_path):
    numbers, table = tmp_path / "numbers.json", tmp_path / "table.md"

    done = subprocess.run(
        [
            sys.executable,
            *("-m", "benchmarks", "static_graphs", "--quick"),
            *("--json", str(numbers), "--markdown", str(table)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text("utf-8"))["measurements"]
    kinds = [each["what"].split()[0] for each in found if each["bar"]]
    assert kinds == ["wide", "tree", "random", "chain"]
    assert all(each["ours"] > 0 for each in found)
    for each in found:
        assert each["what"].strip() in done.stdout
        assert each["what"].strip() in table.read_text("utf-8")
