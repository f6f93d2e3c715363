"""The store: values under keys, on local files, in memory and in a bucket."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prefect_dask_core
from prefect_dask_core.errors import MissingResult, OptionTypeError, StoreError
from prefect_dask_core.results.metadata import (
    DamagedRecord,
    ResultMetadata,
    pack_record,
    unpack_record,
)
from prefect_dask_core.results.storage import LocalStorage
from prefect_dask_core.results.store import ResultStore, as_store, name_of

HASH = "0123456789abcdef0123456789abcdef"


# -- records -----------------------------------------------------------------------


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_is_packed_is_unpacked(value, key):
    metadata = ResultMetadata(key, size=len(value), notes={"x": [1, key]})
    assert unpack_record(pack_record(metadata, value)) == (metadata, value)


@given(st.data())
def test_a_record_with_one_wrong_byte_is_refused(data):
    value = data.draw(st.binary(max_size=50))
    blob = bytearray(pack_record(ResultMetadata("key", size=len(value)), value))
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedRecord):
        unpack_record(bytes(blob))


@given(st.integers(0, 200), st.binary(max_size=50))
def test_a_record_that_ends_early_is_refused(length, value):
    blob = pack_record(ResultMetadata("key", size=len(value)), value)
    with pytest.raises(DamagedRecord):
        unpack_record(blob[: min(length, len(blob) - 1)])


def test_what_a_later_version_tells_more_is_passed_over():
    blob = pack_record(ResultMetadata("key", notes={"a": 1}), b"")
    head, _, body = blob.partition(b"\n")
    assert b'"notes"' in body
    later = pack_record.__globals__["_checksum"]
    more = body.replace(b'{"key"', b'{"later":1,"key"')
    found, _ = unpack_record(head[:-32] + later(more) + b"\n" + more)
    assert found.key == "key"


# -- every kind of place -----------------------------------------------------------


def test_what_is_written_is_read(store):
    metadata = store.write("a/b", {"x": 1}, task="load", run="runs/1/load/value")
    found = store.read("a/b")
    assert found.value == {"x": 1}
    assert found.metadata == metadata
    assert (metadata.key, metadata.task, metadata.serializer) == (
        "a/b",
        "load",
        "pickle",
    )
    assert metadata.size > 0
    assert metadata.created > 0
    assert store.exists("a/b")


def test_what_was_never_written_is_missing(store):
    assert not store.exists("nothing")
    assert store.find("nothing") is None
    with pytest.raises(MissingResult, match=r"'nothing' in .* is not there"):
        store.read("nothing")


def test_a_folder_is_no_value(store):
    store.write("a/b", 1)
    assert store.find("a") is None


def test_the_last_write_counts(store):
    for value in (1, None, [3]):
        store.write(HASH, value)
        assert store.read(HASH).value == value


def test_another_store_of_the_same_place_sees_a_value_at_once(store):
    other = pickle.loads(pickle.dumps(store))
    assert other == store
    assert not other.exists("seen")
    assert other.find("seen") is None
    store.write("seen", 1)
    assert other.exists("seen")
    assert other.find("seen").value == 1
    store.delete("seen")
    assert not other.exists("seen")
    store.delete("seen")


def test_keys_are_listed(store):
    assert store.list_keys() == []
    for key in ("a/b", "a/c/d", HASH):
        store.write(key, 1)
    assert store.list_keys() == sorted(["a/b", "a/c/d", HASH])
    assert store.list_keys("a") == ["a/b", "a/c/d"]


def test_a_value_that_was_written_aside_is_put_in_its_place(store):
    store.write("staged/1", 5, notes={"key": "total"}, task="load")
    assert store.publish("staged/1").key == "total"
    assert store.read("total").value == 5
    assert store.read("total").metadata.task == "load"
    assert not store.exists("staged/1")


def test_a_value_that_cannot_be_serialized_leaves_the_old_one(store):
    store.write("total", 1)
    with pytest.raises(Exception, match="pickle"):
        store.write("total", threading.Lock())
    assert store.read("total").value == 1
    assert store.list_keys() == ["total"]


@pytest.mark.parametrize("serializer", ["json", "compressed/json", "compressed/pickle"])
def test_a_serializer_may_be_chosen(store, serializer):
    chosen = store.with_serializer(serializer)
    chosen.write("total", [1, 2])
    assert chosen.read("total").value == [1, 2]
    assert chosen.read("total").metadata.serializer == serializer


def test_what_another_serializer_wrote_is_missing_with_a_warning(store, caplog):
    store.write("total", [1, 2])
    with caplog.at_level(logging.WARNING):
        assert store.with_serializer("json").find("total") is None
    assert "written by the serializer 'pickle' and read by 'json'" in caplog.text


class Shouting:
    """A serializer of a user's own."""

    def dumps(self, value):
        return value.upper().encode()

    def loads(self, blob):
        return blob.decode()


def test_an_object_with_dumps_and_loads_serializes(store):
    chosen = store.with_serializer(Shouting())
    chosen.write("total", "abc")
    assert chosen.read("total").value == "ABC"
    assert chosen.read("total").metadata.serializer == "Shouting"


# -- damage ------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 30, 70, 200, -1])
def test_a_flipped_byte_is_a_miss_and_a_warning(tmp_path, caplog, position):
    store = ResultStore(tmp_path)
    store.write("total", list(range(50)))
    path = tmp_path / "total"
    blob = bytearray(path.read_bytes())
    blob[position] ^= 1
    path.write_bytes(blob)
    with caplog.at_level(logging.WARNING):
        assert store.find("total") is None
    assert "'total'" in caplog.text
    assert "is damaged" in caplog.text
    with pytest.raises(MissingResult, match="is damaged"):
        store.read("total")


def test_a_record_under_another_key_is_a_miss_and_a_warning(tmp_path, caplog):
    store = ResultStore(tmp_path)
    store.write("total", 1)
    os.rename(tmp_path / "total", tmp_path / "other")
    assert store.find("other") is None
    assert "it was written as 'total'" in caplog.text


KILLED = """
    import os, random, signal, sys, time
    from prefect_dask_core.results.store import ResultStore
    from prefect_dask_core.results.storage import write_aside

    folder, trials = sys.argv[1], int(sys.argv[2])
    store = ResultStore(folder)
    bad = begun = 0
    for trial in range(trials):
        told, tells = os.pipe()
        child = os.fork()
        if child == 0:
            number = trial
            os.write(tells, b"begun")
            while True:
                number += 1
                store.write("total", bytes([number % 256]) * 500_000)
        os.read(told, 5)
        time.sleep(random.random() * 0.006)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told), os.close(tells)
        for name in os.listdir(folder):
            if name.startswith("."):
                begun += 1
                os.remove(os.path.join(folder, name))
            elif name == "total":
                found = store.find(name)
                value = b"" if found is None else found.value
                bad += len(value) != 500_000 or value != value[:1] * 500_000
            else:
                bad += 1
    print(bad, begun)
"""


class Refusing(LocalStorage):
    """What a folder on another machine does that fails."""

    def __init__(self, folder, error):
        super().__init__(folder)
        self.error = error

    def read(self, name):
        raise self.error


@pytest.mark.parametrize(
    "error", [PermissionError(13, "not allowed"), OSError(5, "input/output error")]
)
def test_a_record_that_cannot_be_read_is_a_miss_and_a_warning(tmp_path, caplog, error):
    store = ResultStore(tmp_path)
    store._storage = Refusing(str(tmp_path), error)
    assert store.find("total") is None
    assert "cannot be read: " in caplog.text
    assert "it counts as missing" in caplog.text
    with pytest.raises(MissingResult, match="cannot be read"):
        store.read("total")


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError()])
def test_a_store_that_is_out_of_reach_is_no_miss(tmp_path, error):
    # What is stored there must not run again.
    store = ResultStore(tmp_path)
    store._storage = Refusing(str(tmp_path), error)
    with pytest.raises(type(error)):
        store.find("total")


@pytest.mark.slow
def test_who_is_killed_while_writing_leaves_no_half_record(tmp_path):
    """A thousand writers, each killed at some moment."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), "1000"],
        capture_output=True,
        text=True,
        cwd=Path(prefect_dask_core.__file__).parents[1],
    )
    assert found.returncode == 0, found.stderr
    bad, begun = map(int, found.stdout.split())
    assert bad == 0
    assert begun > 50  # so many were killed while they wrote
    assert signal.SIGKILL


# -- keys and places ---------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../up", "a/../../b", "a/./b", "a/", "a//b", "a\nb", "a\0b"],
)
def test_a_key_does_not_lead_out_of_the_store(tmp_path, key):
    with pytest.raises(StoreError, match="is no key of a result"):
        ResultStore(tmp_path / "in").write(key, 1)
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("part", [256 * "x", 128 * "ü"])
def test_a_key_that_no_file_can_have_is_told(tmp_path, part):
    with pytest.raises(StoreError, match="a part of it has 256 bytes, and file sys"):
        ResultStore(tmp_path).write(f"a/{part}", 1)


@pytest.mark.parametrize("part", [255 * "x", 127 * "ü", "é ø?*:|<>"])
def test_a_key_is_any_path(tmp_path, part):
    store = ResultStore(tmp_path)
    store.write(f"a/{part}", 1)
    assert store.read(f"a/{part}").value == 1
    assert store.list_keys() == [f"a/{part}"]


@given(st.text(max_size=12))
def test_every_key_is_refused_or_inside(key):
    try:
        name = name_of(key)
    except StoreError:
        return
    path = os.path.normpath(os.path.join("/store", name))
    assert path.startswith("/store/")


def test_hashes_are_spread_over_folders(tmp_path):
    ResultStore(tmp_path).write(HASH, 1)
    assert (tmp_path / "cache" / "01" / HASH).is_file()


@pytest.mark.parametrize("place", [3, b"folder", object()])
def test_a_place_is_a_folder_or_a_url(place):
    with pytest.raises(OptionTypeError, match="expected a folder, or a URL"):
        ResultStore(place)


def test_a_path_and_a_file_url_are_the_same_place(tmp_path):
    stores = {
        as_store(tmp_path),
        as_store(str(tmp_path)),
        as_store(f"file://{tmp_path}"),
    }
    assert len(stores) == 1
    assert all(store.is_local for store in stores)


def test_a_folder_is_made_by_the_first_write_and_not_before(tmp_path):
    store = ResultStore(tmp_path / "a" / "b")
    assert store.find("x") is None
    assert not (tmp_path / "a").exists()
    store.write("x", 1)
    assert (tmp_path / "a" / "b" / "x").is_file()


def test_folders_that_a_delete_empties_are_removed(tmp_path):
    store = ResultStore(tmp_path)
    store.write("a/b/c", 1)
    store.write("a/d", 1)
    store.delete("a/b/c")
    assert not (tmp_path / "a" / "b").exists()
    assert store.list_keys() == ["a/d"]


def test_a_folder_may_be_removed_by_others_while_one_writes_into_it(tmp_path):
    store = ResultStore(tmp_path)
    raised = []

    def write_and_delete(name):
        try:
            for _ in range(500):
                store.write(f"staged/{name}/a/b/value", 1)
                store.delete(f"staged/{name}/a/b/value")
        except OSError as error:
            raised.append(error)

    threads = [threading.Thread(target=write_and_delete, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    assert store.list_keys() == []


def test_the_repr_hides_the_options_of_a_file_system():
    store = ResultStore("memory://x", storage_options={"secret": "hush"})
    assert "hush" not in repr(store)


def test_threads_that_write_one_key_leave_one_whole_value(store):
    def write(number):
        for _ in range(5):
            store.write("total", [number] * 1000)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read("total").value
    assert len(found) == 1000
    assert len(set(found)) == 1


def test_a_protocol_that_nobody_knows_is_told_with_the_store():
    with pytest.raises(StoreError, match="'nope://x' cannot be opened: Protocol not"):
        ResultStore("nope://x").write("a", 1)
