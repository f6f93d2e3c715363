"""The census of the standard library: its figures, and the same from a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import stdlib_census
from prefect_dask_core import DaskTaskRunner, SequentialTaskRunner
from stdlib_census import FileCensus, SourceFile, census_of_bytes, census_of_source

BROKEN = {
    "broken/syntax.py": b"def f(:\n",
    "broken/null.py": b"x = 1\0\n",
    "broken/encoding.py": "# -*- coding: ascii -*-\nx = 'é'\n".encode(),
    "broken/unknown.py": b"# -*- coding: no-such-coding -*-\n",
    "broken/deep.py": b"x = " + b"(" * 5000 + b")" * 5000 + b"\n",
}
SOUND = {
    "alone.py": b"import os, sys\n",
    "empty/__init__.py": b"",
    "pack/one.py": b"class A:\n    def f(self):\n        return '\\d'\n",
    "pack/sub/two.py": b"async def g():\n    def h(): pass\n    return h",
    "pack/sub/latin.py": "# coding: latin-1\nname = 'é'\n".encode("latin-1"),
    "site-packages/other.py": b"import no_part_of_the_library\n",
}


@pytest.fixture
def library(tmp_path):
    for name, data in (SOUND | BROKEN).items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(tmp_path / "library")


def run_census(runner, source=None, limit=None):
    flow, tasks = stdlib_census.census_flow()
    parameters = {"source": source, "limit": limit}
    return flow.run(parameters=parameters, task_runner=runner), tasks


@pytest.fixture(scope="module")
def plain_totals():
    return stdlib_census.plain_census(stdlib_census.source_files())


# -- the figures --------------------------------------------------------------------


def test_methods_and_nested_functions_count_as_functions():
    text = (
        "class A:\n  def f(self):\n    async def g():\n      return 1\n    return g\n"
    )
    assert census_of_source(text) == FileCensus(
        lines=5, classes=1, imports=0, lengths=(4, 2), longest="A.f"
    )


def test_the_first_of_two_equally_long_functions_is_the_longest():
    assert census_of_source("def b(): pass\ndef a(): pass\n").longest == "b"


@pytest.mark.parametrize(
    ("text", "lines"), [("", 0), ("\n", 1), ("x = 1", 1), ("x = 1\n\f\ny = 2", 3)]
)
def test_lines_are_counted_with_and_without_a_last_newline(text, lines):
    assert census_of_source(text).lines == lines


def test_a_file_is_read_in_the_encoding_it_declares():
    assert census_of_bytes(SOUND["pack/sub/latin.py"]).lines == 2


def test_warnings_about_a_parsed_file_are_not_shown():
    # Warnings are errors in this suite, and an invalid escape would be one.
    assert census_of_source(r"x = '\d'").lines == 1


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_raises_while_it_is_parsed(name):
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        census_of_bytes(BROKEN[name])


def test_only_source_files_of_the_library_itself_are_listed(library):
    names = [file.name for file in stdlib_census.source_files(library)]
    assert names == sorted({*SOUND, *BROKEN} - {"site-packages/other.py"})
    assert [f.name for f in stdlib_census.source_files(library, limit=1)] == names[:1]


def test_a_directory_without_source_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no \.py file below"):
        stdlib_census.source_files(str(tmp_path))


def test_a_module_is_its_own_package():
    names = ["os.py", "json/decoder.py", "test/support/os_helper.py"]
    packages = [SourceFile("lib", name).package for name in names]
    assert packages == ["os", "json", "test"]


def test_totals_are_kept_by_package(library):
    totals = stdlib_census.plain_census(stdlib_census.source_files(library))
    packages = {package.package: package for package in totals.packages}

    assert list(packages) == ["alone", "broken", "empty", "pack"]
    assert packages["broken"].files == packages["broken"].unparsed == len(BROKEN)
    assert packages["broken"].lines == 0
    pack = packages["pack"]
    assert (pack.files, pack.lines, pack.functions, pack.classes) == (3, 8, 3, 1)
    assert pack.longest == "pack/sub/two.py: g"
    assert totals.functions_by_length == {1: 1, 2: 1, 3: 1}
    assert dict(totals.unparsed)["broken/syntax.py"].startswith("SyntaxError: ")
    assert sorted(BROKEN) == [name for name, _ in totals.unparsed]


# -- the flow -----------------------------------------------------------------------


def test_files_that_cannot_be_parsed_fail_and_are_settled(library):
    state, (files, _, censuses, rows, totals) = run_census(
        SequentialTaskRunner(), library
    )

    assert state.is_successful()
    names = [file.name for file in state[files].result()]
    failed = [n for n, s in zip(names, state[censuses], strict=True) if s.is_failed()]
    assert failed == sorted(BROKEN)
    assert all(child.is_successful() for child in state[rows])
    assert state[totals].result() == stdlib_census.plain_census(
        stdlib_census.source_files(library)
    )


def test_a_part_of_the_library_counts_as_in_a_plain_loop():
    state, (*_, totals) = run_census(SequentialTaskRunner(), limit=80)

    files = stdlib_census.source_files(limit=80)
    assert state[totals].result() == stdlib_census.plain_census(files)


def test_the_summary_counts_states_by_task(library):
    state, tasks = run_census(SequentialTaskRunner(), library)

    lines = stdlib_census.summary(state, tasks).splitlines()
    assert lines[0] == "Completed"
    parse = next(line.split() for line in lines if line.split()[0] == "parse")
    assert parse[1:] == [
        str(len(SOUND) - 1),
        "Completed,",
        str(len(BROKEN)),
        "Failed",
    ]


@pytest.mark.slow
def test_the_whole_library_on_worker_processes_counts_as_in_a_plain_loop(plain_totals):
    workers = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    runner = DaskTaskRunner(cluster_kwargs=workers)
    state, (_, _, censuses, _, totals) = run_census(runner)

    assert state.is_successful()
    assert state[totals].result() == plain_totals
    failures = [child for child in state[censuses] if child.is_failed()]
    assert len(failures) == len(plain_totals.unparsed)


@pytest.mark.slow
def test_figures_stay_exact_when_a_worker_is_killed_midway(plain_totals):
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        before = client.run(os.getpid)
        killing = thread.submit(kill_one_midway, client, list(before.values()))
        runner = DaskTaskRunner(address=cluster.scheduler_address)
        state, (*_, totals) = run_census(runner)
        killed = killing.result()

        assert state.is_successful()
        assert state[totals].result() == plain_totals
        client.wait_for_workers(2, timeout=60)
        assert killed not in client.run(os.getpid).values()


def kill_one_midway(client, pids, seconds=120):
    """Kill the first worker once some blocks of the census are done."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if sum(len(keys) for keys in client.has_what().values()) >= 4:
            os.kill(pids[0], signal.SIGKILL)
            return pids[0]
        time.sleep(0.05)
    raise TimeoutError(f"the census did not begin within {seconds} s")


@pytest.mark.slow
def test_the_script_writes_one_page_and_ends_with_zero(library, tmp_path):
    done = run_script("--source", library, "--out", tmp_path / "census.html")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Completed\n")
    assert str(tmp_path / "census.html") in done.stdout
    assert "broken/null.py" in (tmp_path / "census.html").read_text("utf-8")


@pytest.mark.slow
def test_the_script_ends_with_one_if_the_flow_fails(tmp_path):
    done = run_script("--source", tmp_path, "--out", tmp_path / "census.html")

    assert done.returncode == 1
    assert done.stdout.startswith("Failed\n")
    assert not (tmp_path / "census.html").exists()


def run_script(*arguments):
    script = Path(stdlib_census.__file__)
    command = [sys.executable, script, "--workers", "1", *arguments]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
