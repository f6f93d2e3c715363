"""Locks: one holder per key."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from distributed import Client

import prefect_dask_core
from prefect_dask_core.results.locks import (
    FileSystemLockManager,
    MemoryLockManager,
    locks_of,
)
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.runners.locks import ClusterLockManager


@pytest.fixture(params=["memory", "files", "cluster"])
def locks(request, tmp_path):
    if request.param == "memory":
        return MemoryLockManager()
    if request.param == "files":
        return FileSystemLockManager(tmp_path)
    return ClusterLockManager(request.getfixturevalue("client"))


def test_one_holder_has_the_lock(locks):
    assert locks.acquire_lock("one", "me")
    assert locks.acquire_lock("one", "me")  # has it already
    assert not locks.acquire_lock("one", "you", acquire_timeout=0)
    assert not locks.acquire_lock("one", "you", acquire_timeout=0.05)
    assert locks.acquire_lock("other", "you", acquire_timeout=0)
    assert locks.is_locked("one")
    assert locks.is_lock_holder("one", "me")
    assert not locks.is_lock_holder("one", "you")
    assert not locks.wait_for_lock("one", timeout=0.05)
    locks.release_lock("one", "me")
    locks.release_lock("other", "you")
    assert not locks.is_locked("one")
    assert locks.wait_for_lock("one", timeout=5)


def test_long_keys_that_end_alike_have_locks_of_their_own(locks):
    keys = [f"{begin}/{'x' * 300}" for begin in ("one", "other")]
    assert locks.acquire_lock(keys[0], "me")
    assert locks.acquire_lock(keys[1], "you", acquire_timeout=0)
    locks.release_lock(keys[0], "me")
    locks.release_lock(keys[1], "you")


def test_a_lock_is_not_given_back_by_others(locks):
    assert locks.acquire_lock("two", "me")
    with pytest.raises(ValueError, match="'you' does not hold the lock of 'two'"):
        locks.release_lock("two", "you")
    locks.release_lock("two", "me")
    with pytest.raises(ValueError, match="'me' does not hold"):
        locks.release_lock("two", "me")


def test_threads_exclude_one_another(locks):
    inside, most = [], []

    def work(name):
        for _ in range(3):
            assert locks.acquire_lock("three", name)
            inside.append(name)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(name)
            locks.release_lock("three", name)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 12


def test_a_lock_in_memory_may_end_by_itself():
    locks = MemoryLockManager()
    assert locks.acquire_lock("one", "me", hold_timeout=0.01)
    assert locks.acquire_lock("one", "you", acquire_timeout=5)
    with pytest.raises(ValueError, match="does not hold"):
        locks.release_lock("one", "me")


def test_locks_in_memory_are_one_object_per_process():
    first = pickle.loads(pickle.dumps(MemoryLockManager()))
    assert pickle.loads(pickle.dumps(MemoryLockManager())) is first


HOLDS = """
    import sys, time
    from prefect_dask_core.results.locks import FileSystemLockManager

    locks = FileSystemLockManager(sys.argv[1])
    print(locks.acquire_lock("key", "child"), flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    locks = FileSystemLockManager(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDS), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(prefect_dask_core.__file__).parents[1],
    ) as child:
        assert child.stdout.readline().strip() == "True"
        assert not locks.acquire_lock("key", "me", acquire_timeout=0)
        assert locks.is_locked("key")
        child.kill()
        assert locks.acquire_lock("key", "me", acquire_timeout=30)
    locks.release_lock("key", "me")


def test_any_key_has_a_file(tmp_path):
    locks = FileSystemLockManager(tmp_path / "deep")
    for key in ("a/b", "..", "x" * 500, "ä"):
        assert locks.acquire_lock(key, "me")
        locks.release_lock(key, "me")
    assert {path.parent for path in tmp_path.rglob("*.lock")} == {tmp_path / "deep"}


def test_two_clients_of_a_cluster_exclude_one_another(cluster):
    with (
        Client(cluster, set_as_default=False) as one,
        Client(cluster, set_as_default=False) as other,
    ):
        mine, theirs = ClusterLockManager(one), ClusterLockManager(other)
        assert mine.acquire_lock("four", "me")
        assert not theirs.acquire_lock("four", "you", acquire_timeout=0)
        mine.release_lock("four", "me")
        assert theirs.acquire_lock("four", "you", acquire_timeout=5)
        theirs.release_lock("four", "you")


def test_the_reach_of_a_store_decides_on_its_locks(tmp_path, client):
    assert locks_of(ResultStore(tmp_path)) == FileSystemLockManager(tmp_path / ".locks")
    assert isinstance(locks_of(ResultStore("memory://x")), MemoryLockManager)
    with client.as_current():
        found = locks_of(ResultStore("memory://x"))
        assert isinstance(found, ClusterLockManager)
        local = locks_of(ResultStore(tmp_path))
        assert isinstance(local, FileSystemLockManager)
    own = MemoryLockManager()
    assert locks_of(ResultStore(tmp_path, lock_manager=own)) is own
