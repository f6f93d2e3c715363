"""What a worker logged before it was killed reaches the client nevertheless."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_dask_core import DaskTaskRunner, Flow, flow, get_run_logger, task
from prefect_dask_core.runners.spool import Spool, left_behind, records_in

ROOT = Path(__file__).parent.parent.parent


@task
def die_after_a_word(x):
    logger = get_run_logger()
    logger.info("the last word of %d", x)
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_the_last_words_of_a_killed_worker_are_heard(process_client, caplog):
    caplog.set_level("INFO")
    with Flow("deadly") as deadly:
        die_after_a_word.map([0, 1, 2])
    state = deadly.run(task_runner=DaskTaskRunner(cluster=process_client))
    assert state["die_after_a_word"][1].is_crashed()
    told = [line.split("| ")[1] for line in state.states.view.log_lines()]
    for index in range(3):
        word = f"Task 'die_after_a_word[{index}]': the last word of {index}"
        assert word in told
        assert word in caplog.messages


@pytest.mark.slow
def test_no_word_is_heard_twice(process_client, caplog):
    caplog.set_level("INFO")

    @flow(task_runner=DaskTaskRunner(cluster=process_client))
    def deadly():
        return die_after_a_word.submit(1)

    view = deadly(return_state=True).states.view
    words = [line for line in view.log_lines() if "the last word of 1" in line]
    assert len(words) == len(set(words)) > 0


def run_in_another_process(folder, code):
    script = (
        "import os, sys\n"
        "from prefect_dask_core.runners.spool import Spool\n"
        f"spool = Spool('run/1', {str(folder)!r})\n{code}\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_records_of_a_dead_process_are_read_once(tmp_path):
    run_in_another_process(tmp_path, "spool.add(b'one'); spool.add(b'two')")
    assert left_behind("run/2", str(tmp_path)) == []
    assert left_behind("run/1", str(tmp_path)) == [b"one", b"two"]
    assert left_behind("run/1", str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_records_of_a_living_process_stay_with_it(tmp_path):
    spool = Spool("run/1", str(tmp_path))
    spool.add(b"mine")
    assert left_behind("run/1", str(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_written_before_the_last_turn_is_forgotten(tmp_path):
    code = (
        "spool.add(b'first'); spool.turn(); spool.add(b'second'); "
        "spool.turn(); spool.add(b'third')"
    )
    run_in_another_process(tmp_path, code)
    assert sorted(left_behind("run/1", str(tmp_path))) == [b"second", b"third"]


def test_a_process_that_logs_no_more_leaves_no_file(tmp_path):
    spool = Spool("run/1", str(tmp_path))
    spool.add(b"mine")
    assert not spool.rest()
    assert spool.rest()
    assert list(tmp_path.iterdir()) == []
    spool.add(b"again")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_record_that_was_cut_short_is_left_out(tmp_path):
    spool = Spool("run/1", str(tmp_path))
    spool.add(b"whole")
    spool.add(b"torn")
    (path,) = tmp_path.iterdir()
    assert records_in(path.read_bytes()) == [b"whole", b"torn"]
    assert records_in(path.read_bytes()[:-1]) == [b"whole"]


def test_what_is_no_file_of_this_user_is_not_read(tmp_path, monkeypatch):
    run_in_another_process(tmp_path, "spool.add(b'one')")
    (path,) = tmp_path.iterdir()
    # Whoever may write there could have put there what runs when it is unpickled.
    monkeypatch.setattr(os, "getuid", lambda: os.stat(path).st_uid + 1)
    assert left_behind("run/1", str(tmp_path)) == []
    monkeypatch.undo()
    link = tmp_path / path.name.replace("-0", "-1")
    link.symlink_to(path)
    (tmp_path / f"{path.name}-other").write_bytes(b"no record")
    assert left_behind("run/1", str(tmp_path)) == [b"one"]


def test_a_file_that_stands_in_the_way_is_not_written_through(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    folder = tmp_path / "spool"
    folder.mkdir()
    Path(folder, f"dask-logs-run-1-{os.getpid()}-0").symlink_to(elsewhere)
    Spool("run/1", str(folder)).add(b"mine")
    assert elsewhere.read_text() == "precious"
