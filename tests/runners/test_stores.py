"""Values that tasks keep in a store, on every runner, in both kinds of flows."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

import prefect_dask_core
from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    Task,
    cached_values,
    flow,
    task,
    unmapped,
)
from prefect_dask_core.cache_validators import all_inputs
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.results import (
    DEFAULT,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    LocalResult,
    ResultStore,
    task_input_hash,
)

ROOT = Path(prefect_dask_core.__file__).parents[1]
#: What ran; the workers of the shared cluster are in this process.
LOG = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    LOG.clear()
    monkeypatch.setattr(cached_values, "_KNOWN", {})


@task
def inc(x):
    LOG.append(f"inc {x}")
    return x + 1


@task
def total(xs):
    LOG.append("total")
    return sum(xs)


@task
def boom(x):
    LOG.append(f"boom {x}")
    if x:
        raise ValueError("boom")


def note(line):
    # By its name, so that workers in this process write on the same list.
    LOG.append(line)


def ran():
    found = sorted(LOG)
    LOG.clear()
    return found


def kind(state):
    return type(state).__name__


def kinds(states):
    return [kind(state) for state in states]


def runs_of(store):
    """Ids of the flow runs that have stored something under their own keys."""
    return sorted({key.split("/")[1] for key in store.list_keys("runs")})


# -- graph flows -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"cache_policy": INPUTS},
        {"cache_policy": INPUTS + TASK_SOURCE},
        {"cache_key_fn": task_input_hash},
        {"result_storage_key": "inc-{parameters[x]}"},
        {"result_storage_key": lambda x: f"inc-{x}"},
        {"target": "inc-{x}"},
        {"cache_for": 60, "cache_validator": all_inputs},
    ],
    ids=str,
)
def test_a_value_stands_for_those_of_later_runs(runner, tmp_path, options):
    made = inc.with_options(result_storage=tmp_path, **options)
    with Flow("kept") as graph:
        one = made(1)
        many = made.map([1, 2, 2])
    first = graph.run(task_runner=runner)
    assert first[many].result() == [2, 3, 3]
    # Those that run at the same time may compute one key more than once.
    assert set(ran()) == {"inc 1", "inc 2"}
    second = graph.run(task_runner=runner)
    assert kind(second[one]) == "Cached"
    assert second[one].message == "taken from the store."
    assert kinds(second[many].states) == ["Cached"] * 3
    assert second[many].result() == [2, 3, 3]
    assert second[many][1].message == "taken from the store."
    # No state stands for itself: a million of them take little room.
    assert not any(part.details for part in second[many].states.segments)
    assert ran() == []


def test_by_default_a_run_computes_the_same_inputs_once(runner, tmp_path):
    made = inc.with_options(persist_result=True, result_storage=tmp_path)
    assert made.options.policy == DEFAULT
    with Flow("kept") as graph:
        first = made(1)
        second = made(1, upstream_tasks=[first])
    for _ in range(2):  # the next flow run is another one
        state = graph.run(task_runner=runner)
        assert [kind(state[first]), kind(state[second])] == ["Completed", "Cached"]
        assert ran() == ["inc 1"]


def test_without_a_policy_a_value_is_the_runs_own(runner, tmp_path):
    store = ResultStore(tmp_path)
    made = inc.with_options(
        persist_result=True, cache_policy=NO_CACHE, result_storage=store
    )
    with Flow("kept") as graph:
        made(1)
        made.map([1, 1])
    for _ in range(2):
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 6
    assert [key.partition("/")[2].partition("/")[2] for key in store.list_keys()] == [
        "inc-1/value",
        "inc-2/0",
        "inc-2/1",
    ] * 2
    record = store.read(store.list_keys()[1])
    assert (record.value, record.metadata.task) == (2, "inc")
    assert record.metadata.flow_run_id == runs_of(store)[0]


def test_a_resumed_run_takes_what_the_first_had_stored(runner, tmp_path):
    store = ResultStore(tmp_path)
    made = inc.with_options(
        persist_result=True, cache_policy=NO_CACHE, result_storage=store
    )
    with Flow("kept") as graph:
        one = made(1)
        many = made.map([3, 4])
        other = inc(one)
    graph.run(task_runner=runner)
    (first,) = runs_of(store)
    store.delete(f"runs/{first}/inc-2/1")
    ran()
    state = graph.run(task_runner=runner, resume=first, ledger=False)
    assert ran() == ["inc 2", "inc 4"]
    assert [kind(state[one]), *kinds(state[many].states)] == ["Completed"] * 3
    assert state[one].message is None
    assert (state[many].result(), state[other].result()) == ([4, 5], 3)
    assert runs_of(store) == [first]  # and the next one resumes the first too


@pytest.mark.parametrize("policy", [DEFAULT, RUN_ID + INPUTS, INPUTS])
def test_a_resumed_run_has_its_values_whatever_it_takes_of_others(
    runner, tmp_path, policy
):
    store = ResultStore(tmp_path)
    made = inc.with_options(
        cache_policy=policy,
        result_storage=store,
        refresh_cache=True,
        cache_expiration=timedelta(microseconds=1),
    )
    with Flow("kept") as graph:
        many = made.map([1, 2])
    graph.run(task_runner=runner)
    (first,) = {store.read(key).metadata.flow_run_id for key in store.list_keys()}
    assert ran() == ["inc 1", "inc 2"]
    state = graph.run(task_runner=runner, resume=first, ledger=False)
    assert ran() == []
    assert kinds(state[many].states) == ["Completed"] * 2
    graph.run(task_runner=runner)
    assert ran() == ["inc 1", "inc 2"]


def test_a_value_that_has_expired_is_made_anew(runner, tmp_path):
    made = inc.with_options(
        cache_policy=INPUTS, result_storage=tmp_path, cache_expiration=1e-6
    )
    for _ in range(2):
        with Flow("kept") as graph:
            made(1)
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 2


def test_a_value_may_be_refreshed(runner, tmp_path):
    made = inc.with_options(cache_policy=INPUTS, result_storage=tmp_path)
    fresh = made.with_options(refresh_cache=True)
    with Flow("kept") as graph:
        fresh(1)
    with Flow("taken") as other:
        result = made(1)
    for _ in range(2):
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 2
    assert kind(other.run(task_runner=runner)[result]) == "Cached"


def test_nothing_is_kept_that_should_not(runner, tmp_path):
    for options in (
        {"persist_result": False, "cache_expiration": 3},
        {"persist_result": False, "result_storage_key": "x"},
    ):
        with Flow("kept") as graph:
            inc.with_options(result_storage=tmp_path, **options)(1)
        graph.run(task_runner=runner)
    with Flow("failed") as graph:
        boom.with_options(result_storage=tmp_path)(1)
    graph.run(task_runner=runner)
    assert list(tmp_path.iterdir()) == []


def test_none_is_a_value(runner, tmp_path):
    with Flow("kept") as graph:
        result = boom.with_options(result_storage=tmp_path, cache_policy=INPUTS)(0)
    states = [graph.run(task_runner=runner)[result] for _ in range(2)]
    assert kinds(states) == ["Completed", "Cached"]
    assert [state.result() for state in states] == [None, None]
    assert ran() == ["boom 0"]


def test_a_damaged_record_is_made_anew_with_a_warning(runner, tmp_path, caplog):
    with Flow("kept") as graph:
        result = inc.with_options(result_storage=tmp_path, result_storage_key="one")(1)
    graph.run(task_runner=runner)
    blob = bytearray((tmp_path / "one").read_bytes())
    blob[-1] ^= 1
    (tmp_path / "one").write_bytes(blob)
    with caplog.at_level(logging.WARNING, "prefect_dask_core"):
        state = graph.run(task_runner=runner)[result]
    assert "is damaged" in caplog.text
    assert (kind(state), state.result()) == ("Completed", 2)
    assert ran() == ["inc 1"] * 2
    assert kind(graph.run(task_runner=runner)[result]) == "Cached"


def test_it_may_be_noted_elsewhere_which_keys_are_taken(runner, tmp_path):
    values, notes = ResultStore(tmp_path / "values"), ResultStore(tmp_path / "keys")
    policy = INPUTS.configure(key_storage=notes)
    with Flow("kept") as graph:
        result = inc.with_options(cache_policy=policy, result_storage=values)(1)
    graph.run(task_runner=runner)
    assert notes.list_keys() == values.list_keys()
    assert kind(graph.run(task_runner=runner)[result]) == "Cached"
    notes.delete(notes.list_keys()[0])
    assert kind(graph.run(task_runner=runner)[result]) == "Completed"
    assert ran() == ["inc 1"] * 2


def test_a_serializer_may_be_chosen(runner, tmp_path):
    made = inc.with_options(result_storage=tmp_path, result_serializer="json")
    with Flow("kept") as graph:
        result = made.with_options(result_storage_key="one")(1)
    graph.run(task_runner=runner)
    assert (tmp_path / "one").read_bytes().endswith(b"\n2")
    assert graph.run(task_runner=runner)[result].result() == 2


def test_a_value_that_cannot_be_stored_fails_the_attempt(runner, tmp_path):
    @task(result_storage=tmp_path, result_serializer="json")
    def unfit():
        return {1, 2}

    with Flow("kept") as graph:
        result = unfit()
    state = graph.run(task_runner=runner)[result]
    assert state.is_failed()
    assert "the value could not be stored: TypeError" in state.message


@pytest.mark.parametrize("template", ["{nothing}", "../{x}", lambda x: 3])
def test_a_wrong_key_fails_the_run_without_its_body(runner, tmp_path, template):
    with Flow("kept") as graph:
        result = inc.with_options(
            result_storage=tmp_path / "in", result_storage_key=template
        )(1)
    assert graph.run(task_runner=runner)[result].is_failed()
    assert ran() == []
    assert not (tmp_path / "in").exists()


# -- values that are in the store only -----------------------------------------------


def test_a_value_may_be_in_the_store_only(runner, tmp_path):
    store = ResultStore(tmp_path)
    made = inc.with_options(
        persist_result=True,
        cache_policy=NO_CACHE,
        result_storage=store,
        cache_result_in_memory=False,
    )
    with Flow("kept") as graph:
        one = made(1)
        many = made.map([1, 2, 3])
        result = total(many)
        each = made.map(many, upstream_tasks=[unmapped(one)])
    state = graph.run(task_runner=runner)
    assert state[result].result() == 9
    assert state[one].result() == 2
    assert state[many].result() == [2, 3, 4]
    assert state[each][2].result() == 5
    segments = [part for node in (many, each) for part in state[node].states.segments]
    assert [part.values.held() for part in segments] == [[]] * len(segments)
    for key in store.list_keys():
        store.delete(key)
    for lost in (state[one], state[many][1]):
        with pytest.raises(MissingResult, match="is not there"):
            lost.result()


def test_large_values_are_read_from_the_store_once_the_cluster_is_gone(tmp_path):
    @task(result_storage=tmp_path)
    def large(n):
        return bytes(300_000 + n)

    with Flow("kept") as graph:
        many = large.map([1, 2])
        size = total.with_options()([1])
        size.set_upstream(many, flow=graph)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        state = graph.run(task_runner=DaskTaskRunner(client))
    assert [len(child.result()) for child in state[many].states] == [300_001, 300_002]


# -- transactions of graph flows -----------------------------------------------------


def test_a_run_is_committed_before_its_value_is_written(runner, tmp_path):
    store = ResultStore(tmp_path)

    def tell(txn):
        note(f"commit {txn.name} {txn.read()} {store.exists('one')}")

    with Flow("kept") as graph:
        result = inc.with_options(
            result_storage=store, result_storage_key="one", on_commit=[tell]
        )(1)
    assert graph.run(task_runner=runner)[result].result() == 2
    assert ran() == ["commit inc 2 False", "inc 1"]
    assert kind(graph.run(task_runner=runner)[result]) == "Cached"
    assert ran() == []  # what was committed is not committed again


def test_a_commit_hook_that_raises_undoes_its_run(runner, tmp_path):
    def refuse(txn):
        raise RuntimeError("no")

    def undo(txn):
        note(f"undo {txn.read()}")

    made = inc.with_options(
        result_storage=tmp_path,
        result_storage_key="one",
        on_commit=[refuse],
        on_rollback=[undo],
    )
    with Flow("kept") as graph:
        result = made(1)
    assert graph.run(task_runner=runner)[result].is_completed()
    assert ran() == ["inc 1", "undo 2"]
    assert not (tmp_path / "one").exists()


def test_calls_in_a_plain_body_count_with_it(runner):
    kept = Task(lambda: 1, name="kept", on_rollback=[_note_undo], on_commit=[_note_do])

    @task
    def outer(bad):
        kept()
        note("inside")
        if bad:
            raise ValueError("outer")

    for bad, expected in ((False, ["inside", "do"]), (True, ["inside", "undo"])):
        with Flow("nested") as graph:
            outer(bad)
        graph.run(task_runner=runner)
        assert expected == LOG
        LOG.clear()


def _note_do(txn):
    note("do")


def _note_undo(txn):
    note("undo")


# -- function flows ----------------------------------------------------------------


def test_a_function_flow_keeps_what_its_tasks_return(flow_runner, tmp_path):
    store = ResultStore(tmp_path)
    other = ResultStore(tmp_path / "own")

    @flow(task_runner=flow_runner, persist_result=True, result_storage=store)
    def kept():
        one = inc.submit(1)
        many = inc.map([1, 2])
        own = inc.with_options(result_storage=other).submit(1)
        called = inc(2)
        off = inc.with_options(persist_result=False).submit(5)
        return [one.result(), *many.result(), own.result(), called, off.result()]

    for _ in range(2):
        assert kept() == [2, 2, 3, 2, 3, 6]
        assert set(ran()) == {"inc 1", "inc 2", "inc 5"}
    keys = [key for key in store.list_keys() if not key.startswith("own")]
    assert len([key for key in keys if len(key) == 32]) == 4  # by run and input
    assert [key.rpartition("/")[2] for key in store.list_keys("runs")] == ["flow"] * 2
    assert store.read(store.list_keys("runs")[0]).value == [2, 2, 3, 2, 3, 6]
    assert len(other.list_keys()) == 2


def test_what_a_function_flow_says_counts_for_flows_inside(local_flow_runner, tmp_path):
    @flow(task_runner=local_flow_runner)
    def inner():
        return inc.submit(1).result()

    @flow(task_runner=local_flow_runner, result_storage=tmp_path)
    def outer():
        return inner()

    assert outer() == 2
    assert len(ResultStore(tmp_path).list_keys("cache")) == 1


def test_a_function_flow_may_keep_its_value_in_the_store_only(tmp_path):
    @flow(result_storage=tmp_path, cache_result_in_memory=False)
    def kept():
        return [1, 2]

    state = kept(return_state=True)
    assert state.result() == [1, 2]
    assert repr(state.data).endswith(f"/flow in {tmp_path}>")


def test_a_resumed_function_flow_takes_what_the_first_had_stored(flow_runner, tmp_path):
    store = ResultStore(tmp_path)
    made = inc.with_options(
        persist_result=True, cache_policy=NO_CACHE, result_storage=store
    )

    @flow(task_runner=flow_runner)
    def kept():
        one = made.submit(1)
        return [one.result(), *made.map([one, 5]).result(), made(7)]

    assert kept() == [2, 3, 6, 8]
    assert ran() == ["inc 1", "inc 2", "inc 5", "inc 7"]
    (first,) = runs_of(store)
    store.delete(f"runs/{first}/inc-1/0")
    assert kept.resume(first, ledger=False) == [2, 3, 6, 8]
    assert ran() == ["inc 2"]


def test_values_of_submitted_runs_may_be_in_the_store_only(flow_runner, tmp_path):
    made = inc.with_options(
        cache_policy=INPUTS, result_storage=tmp_path, cache_result_in_memory=False
    )

    @flow(task_runner=flow_runner)
    def kept():
        one, many = made.submit(1), made.map([1, 2, 3])
        called = made(9, return_state=True)
        return [total(many), total.submit(many).result(), one.result(), called.result()]

    assert kept() == [9, 9, 2, 10]


def test_the_settings_decide_for_who_does_not_say(flow_runner, tmp_path):
    @flow(task_runner=flow_runner)
    def kept():
        return inc.submit(1).result()

    with dask.config.set(
        {
            "prefect-dask-core.persist-results": True,
            "prefect-dask-core.result-storage": str(tmp_path),
            "prefect-dask-core.result-serializer": "json",
        }
    ):
        kept()
    (found,) = ResultStore(tmp_path, "json").list_keys("cache")
    assert ResultStore(tmp_path, "json").read(found).value == 2


def test_a_call_outside_of_a_flow_keeps_its_value(tmp_path):
    made = inc.with_options(cache_policy=INPUTS, result_storage=tmp_path)
    assert [made(1), made(1)] == [2, 2]
    assert ran() == ["inc 1"]
    own = made.with_options(cache_policy=NO_CACHE, persist_result=True)
    assert [own(1), own(1)] == [2, 2]
    assert len(ResultStore(tmp_path).list_keys("runs")) == 2


# -- checkpoint, flow.result, C21 ----------------------------------------------------


def test_the_result_of_a_flow_gives_way_to_a_storage_of_a_task(runner, tmp_path):
    with Flow("kept", result=LocalResult(tmp_path, location="{task_name}")) as graph:
        inc(1)
        inc.with_options(result_storage=tmp_path / "own", result_storage_key="k")(2)
    graph.run(task_runner=runner)
    assert LocalResult(tmp_path).read("inc").value == 2
    assert ResultStore(tmp_path / "own").read("k").value == 3


def test_with_a_store_cached_values_outlive_the_process(runner, tmp_path, monkeypatch):
    made = inc.with_options(
        cache_for=60, cache_validator=all_inputs, result_storage=tmp_path
    )
    for expected in (["inc 1"], []):
        with Flow("kept") as graph:
            made(1)
        graph.run(task_runner=runner)
        assert cached_values._KNOWN == {}
        assert ran() == expected


def test_a_cached_value_in_a_store_is_too_old_when_the_option_says(runner, tmp_path):
    made = inc.with_options(
        cache_for=0, cache_validator=all_inputs, result_storage=tmp_path
    )
    for _ in range(2):
        with Flow("kept") as graph:
            made(1)
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 2


def test_a_template_without_a_cache_is_written_and_not_taken(runner, tmp_path):
    made = inc.with_options(
        result_storage=tmp_path, result_storage_key="one", cache_policy=NO_CACHE
    )
    with Flow("kept") as graph:
        made(1)
    for _ in range(2):
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 2
    assert ResultStore(tmp_path).read("one").value == 2


@pytest.mark.parametrize("by", ["flow", "settings"])
def test_a_target_goes_where_the_flow_or_the_settings_say(flow_runner, tmp_path, by):
    names = iter(["a", "a", "b"])
    given = {"result_storage": tmp_path} if by == "flow" else {}
    settings = {"prefect-dask-core.result-storage": str(tmp_path)}

    def kept():
        future = inc.with_options(target="{x}").submit(1)
        future.wait()
        return kind(future.state)

    with dask.config.set({} if by == "flow" else settings):
        found = [
            flow(kept, name=name, task_runner=flow_runner, **given)() for name in names
        ]
    # Flows do not take what others have written under that name.
    assert found == ["Completed", "Cached", "Completed"]
    keys = ResultStore(tmp_path).list_keys()
    assert {"a/1", "b/1"} <= set(keys)


def test_a_target_with_a_result_may_be_refreshed(runner, tmp_path):
    made = inc.with_options(
        target="one", result=LocalResult(tmp_path), refresh_cache=True
    )
    with Flow("kept") as graph:
        made(1)
    for _ in range(2):
        graph.run(task_runner=runner)
    assert ran() == ["inc 1"] * 2


# -- one at a time -------------------------------------------------------------------

SERIAL = INPUTS.configure(isolation_level="SERIALIZABLE")


@task(cache_policy=SERIAL)
def slow(x):
    LOG.append(f"slow {x}")
    time.sleep(0.1)
    return x


def test_one_run_at_a_time_computes_a_key(flow_runner, tmp_path):
    made = slow.with_options(result_storage=tmp_path)

    @flow(task_runner=flow_runner)
    def kept():
        return made.map([1, 1, 1, 1, 2]).result()

    assert kept() == [1, 1, 1, 1, 2]
    assert ran() == ["slow 1", "slow 2"]


def test_one_run_at_a_time_computes_a_key_of_a_bucket(client, bucket):
    url, options = bucket
    store = ResultStore(f"{url}/locks", storage_options=options)
    made = slow.with_options(result_storage=store)

    @flow(task_runner=DaskTaskRunner(client))
    def kept():
        return made.map([1, 1, 1, 1, 2]).result()

    assert kept() == [1, 1, 1, 1, 2]
    assert ran() == ["slow 1", "slow 2"]


def test_who_waits_for_a_key_lets_its_holder_try_again(tmp_path):
    """One thread: the holder waits for its next attempt, the other for the key."""

    @task(
        cache_policy=SERIAL,
        result_storage=tmp_path,
        retries=1,
        retry_delay_seconds=0.2,
    )
    def flaky(x):
        note("flaky")
        if len(LOG) == 1:
            raise ValueError("once")
        return x

    with Flow("kept") as graph:
        many = flaky.map([1, 1])
    state = graph.run(task_runner=SequentialTaskRunner())
    assert state[many].result() == [1, 1]
    assert len(LOG) == 2


def test_a_run_that_fails_gives_its_key_back(runner, tmp_path):
    @task(cache_policy=SERIAL - "y", result_storage=tmp_path)
    def once(x, y):
        note(y)
        if y == "bad":
            raise ValueError("bad")
        return y

    with Flow("kept") as graph:
        first = once(1, "bad")
        second = once(1, "good", upstream_tasks=[first])
        second.set_upstream(first, flow=graph)
    made = second.with_options(trigger=prefect_dask_core.triggers.all_finished)
    assert made
    graph.run(task_runner=runner)
    with Flow("again") as other:
        result = once(1, "good")
    assert other.run(task_runner=runner)[result].result() == "good"


ASKS = """
    import sys, time
    from prefect_dask_core import flow, task
    from prefect_dask_core.results import INPUTS

    @task(
        cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"),
        result_storage=sys.argv[1],
    )
    def compute(x):
        with open(sys.argv[2], "a") as log:
            log.write("computed\\n")
        time.sleep(0.5)
        return x * 2

    @flow
    def ask():
        return compute.submit(21).result()

    print("ready", flush=True)
    sys.stdin.readline()
    print(ask(), flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_that_ask_for_a_key_at_once_one_computes(tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(textwrap.dedent(ASKS), encoding="utf-8")
    log = tmp_path / "log"
    command = [sys.executable, str(script), str(tmp_path / "store"), str(log)]
    asking = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    for process in asking:
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in asking]
    assert answers == ["42", "42"]
    assert log.read_text() == "computed\n"


# -- other places and other hosts ------------------------------------------------------


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_values_are_kept_behind_a_url(flow_runner, request, place, tmp_path):
    if place == "memory":
        store = ResultStore(f"memory://{tmp_path.name}")
    else:
        url, options = request.getfixturevalue("bucket")
        store = ResultStore(f"{url}/{tmp_path.name}", storage_options=options)
    made = inc.with_options(cache_policy=INPUTS, result_storage=store)

    @flow(task_runner=flow_runner)
    def kept():
        states = [
            made.submit(1, return_state=True),
            *made.map([2, 3], return_state=True),
        ]
        return [(kind(state), state.result()) for state in states]

    assert kept() == [("Completed", 2), ("Completed", 3), ("Completed", 4)]
    assert kept() == [("Cached", 2), ("Cached", 3), ("Cached", 4)]


@pytest.mark.slow
def test_a_source_is_the_same_on_workers_that_do_not_have_its_text(
    process_client, tmp_path
):
    cell = tmp_path / "cell.py"
    cell.write_text("def body(x):\n    return x + 1\n", encoding="utf-8")
    namespace = {"__name__": "__main__"}
    exec(compile(cell.read_text(), str(cell), "exec"), namespace)
    made = Task(
        namespace["body"], cache_policy=TASK_SOURCE + INPUTS, result_storage=tmp_path
    )
    assert "x + 1" in made.source_code
    assert made.source_token
    cell.unlink()

    @flow(task_runner=DaskTaskRunner(process_client))
    def kept():
        return kind(made.submit(1, return_state=True)), kind(made(1, return_state=True))

    assert kept() == ("Completed", "Cached")


@pytest.mark.slow
def test_a_body_whose_value_was_stored_is_not_run_again_by_a_death(
    process_client, tmp_path
):
    """The worker dies after it has stored the values and before it has reported."""
    counts = tmp_path / "counts"

    @task(persist_result=True, cache_policy=NO_CACHE, result_storage=tmp_path / "store")
    def body(x):
        with open(counts, "a") as log:
            log.write(f"{x}\n")
        if x == 19 and counts.read_text().count("19\n") == 1:
            os._exit(1)
        return x

    with Flow("dies") as graph:
        many = body.map(list(range(20)))
    state = graph.run(task_runner=DaskTaskRunner(process_client))
    assert state[many].result() == list(range(20))
    found = sorted(map(int, counts.read_text().split()))
    assert found == sorted([*range(20), 19])


@pytest.mark.slow
def test_the_memory_of_this_process_is_refused_where_workers_have_their_own(
    process_client, tmp_path
):
    place = f"memory://{tmp_path.name}"
    runner = DaskTaskRunner(process_client)
    refused = pytest.raises(
        prefect_dask_core.errors.StoreError,
        match=rf"does not share the memory of this process, where '{place}' is.*s3://",
    )
    with Flow("kept") as graph:
        inc.with_options(result_storage=place)(1)
    with refused:
        graph.run(task_runner=runner)

    @flow(task_runner=runner, result_storage=place, persist_result=True)
    def kept():
        return inc.submit(1)

    with refused:
        kept()


def test_a_folder_that_a_worker_does_not_see_is_refused(tmp_path):
    """A worker in a mount namespace of its own stands for another host."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    folder = tmp_path / "store"
    folder.mkdir()
    hidden = f"mount -t tmpfs none {folder} && exec "
    with (
        LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", protocol="tcp://"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        command = f"{sys.executable} -m distributed.cli.dask_worker"
        stack = contextlib.ExitStack()
        with (
            subprocess.Popen(
                [
                    *("unshare", "-m", "sh", "-c"),
                    f"{hidden}{command} {cluster.scheduler_address} --no-nanny "
                    "--no-dashboard",
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=subprocess.DEVNULL,
            ) as worker,
            stack,
        ):
            stack.callback(worker.terminate)
            client.wait_for_workers(1, timeout=60)
            runner = DaskTaskRunner(client)
            with Flow("kept") as graph:
                inc.with_options(result_storage=folder)(1)
            with pytest.raises(
                prefect_dask_core.errors.StoreError,
                match=r"does not see the folder .*set result_storage= .*s3://",
            ):
                graph.run(task_runner=runner)

            @flow(task_runner=runner, result_storage=folder)
            def kept():
                return inc.submit(1)

            with pytest.raises(
                prefect_dask_core.errors.StoreError, match="does not see the folder"
            ):
                kept()
            with Flow("elsewhere") as graph:
                result = inc.with_options(result_storage=tmp_path)(1)
            assert graph.run(task_runner=runner)[result].result() == 2
