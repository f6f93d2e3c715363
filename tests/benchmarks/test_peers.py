"""Other packages in environments of their own, or word that they cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.comparison import Bar
from benchmarks.peers import environments, measure
from benchmarks.peers.environments import (
    EnvironmentMissingError,
    environment,
    find_python,
    what_failed,
)
from benchmarks.peers.measure import PEERS, Peer, measure_peer, rate_of_script

PYTHON = Path(sys.executable)


class FakeBench:
    """A bench without a cluster."""

    def warm_up(self):
        pass

    def choose(self, full, quick):
        return quick


def peer(script):
    bar = Bar("ratio", 100, at_least=True)
    return Peer("Other 1.0", script, (sys.executable,), 500, bar)


@pytest.fixture
def script(tmp_path):
    """A script that prints a tenth of its argument as its rate."""
    path = tmp_path / "other.py"
    path.write_text("import sys\nprint('hello')\nprint(int(sys.argv[1]) / 10)\n")
    path.with_suffix(".txt").write_text("other==1.0\n")
    return path


def test_each_peer_has_a_script_and_says_exactly_what_it_needs():
    for each in PEERS:
        assert each.script.exists()
        lines = each.script.with_suffix(".txt").read_text("utf-8").splitlines()
        needed = [line for line in lines if not line.startswith("#")]
        assert all("==" in line for line in needed)


def test_the_last_line_that_a_script_prints_is_its_rate(script):
    assert rate_of_script(PYTHON, script, 50) == 5.0


def test_a_script_that_fails_is_told_of_with_its_last_words(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ImportError('no such module')\n")

    with pytest.raises(EnvironmentMissingError, match=r"broken\.py failed: Imp.*no su"):
        rate_of_script(PYTHON, broken, 50)


def test_rates_are_compared(script, monkeypatch):
    monkeypatch.setattr(measure, "environment", lambda *given: PYTHON)
    monkeypatch.setattr(measure, "rate_of_flow", lambda bench, count: count / 1.0)

    line = measure_peer(FakeBench(), peer(script))

    assert (line.ours, line.peer, line.verdict) == (2_000.0, 5.0, "holds")
    assert "peer: Other 1.0 with 50" in line.what


def test_a_peer_that_cannot_be_had_has_no_line(script, monkeypatch, capsys):
    def refuse(*given):
        raise EnvironmentMissingError("No matching distribution found for other==1.0")

    monkeypatch.setattr(measure, "environment", refuse)
    monkeypatch.setattr(measure, "PEERS", (peer(script),))

    assert list(measure.measure(FakeBench())) == []
    said = capsys.readouterr().err
    assert said == (
        "not measured: Other 1.0: No matching distribution found for other==1.0\n"
        "not measured: the cache of Prefect 3: No matching distribution found for "
        "other==1.0\n"
    )


def test_the_cache_of_a_peer_is_measured_as_a_rate(script, monkeypatch):
    monkeypatch.setattr(measure, "environment", lambda *given: PYTHON)
    monkeypatch.setattr(measure, "cost_with_store", lambda *given, filled: 100.0)
    script.rename(script.with_name("prefect_3_cache.py"))
    monkeypatch.setattr(measure, "HERE", script.parent)

    line = measure.measure_cached(FakeBench())

    assert (line.ours, line.peer) == (10_000.0, 5.0)
    assert "50 children that find their value" in line.what


def test_the_first_python_that_starts_is_taken(tmp_path):
    shim = tmp_path / "python3.9"
    shim.write_text("#!/bin/sh\necho 'no such version is chosen' >&2\nexit 127\n")
    shim.chmod(0o755)

    assert find_python(["no-python", str(shim), sys.executable]) == sys.executable
    with pytest.raises(EnvironmentMissingError, match=r"no no-python.*PEER_PYTHON="):
        find_python(["no-python", str(shim)])


def test_an_environment_is_made_once(script, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(environments, "_call", called.append)
    needed = script.with_suffix(".txt")
    (tmp_path / "folder" / "other").mkdir(parents=True)

    def make():
        return environment("other", needed, [sys.executable], tmp_path / "folder")

    assert make() == make() == tmp_path / "folder" / "other" / "bin" / "python"
    assert [command[2] for command in called] == ["venv", "pip"]
    needed.write_text("other==2.0\n")
    make()
    assert len(called) == 4


def test_a_command_that_fails_tells_what_was_missing(monkeypatch):
    failing = "import sys; sys.exit('ERROR: No matching distribution found for a==9')"

    with pytest.raises(EnvironmentMissingError, match=r"^No matching .* for a==9$"):
        environments._call([sys.executable, "-c", failing])
    monkeypatch.setattr(environments, "PATIENCE", 0.2)
    with pytest.raises(EnvironmentMissingError, match=r"took more than 0\.2 s"):
        environments._call([sys.executable, "-c", "import time; time.sleep(60)"])


def test_without_an_error_the_last_line_is_told():
    assert what_failed("one\ntwo\n") == "two"
    assert what_failed("") == "it said nothing"
