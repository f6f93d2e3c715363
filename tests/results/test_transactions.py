"""Transactions: what counts together, in which order, and what is undone."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import SequentialTaskRunner, flow, task
from prefect_dask_core.errors import OptionValueError, TransactionError
from prefect_dask_core.results import (
    INPUTS,
    CommitMode,
    IsolationLevel,
    ResultStore,
    Transaction,
    atransaction,
    get_transaction,
    transaction,
)
from prefect_dask_core.results.locks import locks_of
from prefect_dask_core.runtime import flow_run
from prefect_dask_core.states import Completed

LOG = []


@pytest.fixture(autouse=True)
def _fresh():
    LOG.clear()


def note(line):
    # By its name, so that workers in this process write on the same list.
    LOG.append(line)


def made(name, **options):
    """A task that notes its body and its hooks."""

    def body(x=0):
        note(f"run {name}")
        if x == "bad":
            raise ValueError(name)
        return x

    def hook(kind, number):
        return lambda txn: LOG.append(f"{kind} {name}{number}")

    hooks = {
        "on_commit": [hook("commit", n) for n in (1, 2)],
        "on_rollback": [hook("undo", n) for n in (1, 2)],
    }
    return task(body, name=name, **{**hooks, **options})


def committed(*names):
    return [f"commit {name}{n}" for name in names for n in (1, 2)]


def undone(*names):
    return [f"undo {name}{n}" for name in names for n in (2, 1)]


def test_without_a_block_a_run_is_committed_at_its_end():
    made("a")()
    assert ["run a", *committed("a")] == LOG


def test_runs_of_a_block_are_committed_at_its_end_in_their_order():
    with transaction() as txn:
        made("a")()
        made("b")()
        assert LOG == ["run a", "run b"]
        assert txn.is_active()
    assert ["run a", "run b", *committed("a", "b")] == LOG
    assert txn.is_committed()


def test_a_failure_undoes_the_runs_before_it_the_last_first():
    with pytest.raises(ValueError, match="c"), transaction() as txn:
        made("a")()
        made("b")()
        made("c")("bad")
    # That which failed had staged nothing.
    assert ["run a", "run b", "run c", *undone("b", "a")] == LOG
    assert txn.is_rolled_back()


def test_a_failed_attempt_undoes_nothing_of_the_attempts_after_it():
    flaky = made("a", retries=1)
    fails = iter(["bad", 0])

    @task(retries=1)
    def outer():
        made("inner")()
        if next(fails) == "bad":
            raise ValueError("again")

    outer()
    assert [
        *["run inner", *undone("inner")],
        *["run inner", *committed("inner")],
    ] == LOG
    assert flaky.retries == 1


def test_an_inner_failure_that_is_caught_undoes_the_inner_block_only():
    with transaction():
        made("a")()
        with pytest.raises(ValueError, match="c"), transaction():
            made("b")()
            made("c")("bad")
        assert ["run a", "run b", "run c", *undone("b")] == LOG
        made("d")()
    assert LOG[-5:] == ["run d", *committed("a", "d")]


def test_an_outer_failure_undoes_the_inner_blocks():
    with pytest.raises(ZeroDivisionError), transaction():
        made("a")()
        with transaction():
            made("b")()
            made("c")()
        made("d")()
        raise ZeroDivisionError
    assert LOG[4:] == undone("d", "c", "b", "a")


def test_an_eager_block_counts_at_its_own_end_and_is_not_undone():
    with pytest.raises(ZeroDivisionError), transaction():
        made("a")()
        with transaction(commit_mode="EAGER"):
            made("b")()
        assert ["run a", "run b", *committed("b")] == LOG
        raise ZeroDivisionError
    assert LOG[4:] == undone("a")


def test_a_block_that_is_off_is_undone_at_its_end():
    with transaction(commit_mode=CommitMode.OFF) as txn:
        made("a")()
    assert ["run a", *undone("a")] == LOG
    assert txn.is_rolled_back()


def test_an_inner_block_has_the_mode_and_the_level_of_the_outer():
    with (
        transaction(commit_mode="EAGER", isolation_level="SERIALIZABLE"),
        transaction() as inner,
    ):
        assert inner.commit_mode is CommitMode.EAGER
        assert inner.isolation_level is IsolationLevel.SERIALIZABLE


@pytest.mark.parametrize("option", ["commit_mode", "isolation_level"])
def test_an_unknown_mode_or_level_names_the_known_ones(option):
    with (
        pytest.raises(OptionValueError, match=r"there is no .* 'NOW'; the "),
        transaction(**{option: "NOW"}),
    ):
        pass


def test_a_task_that_calls_a_task_commits_it_with_itself():
    @task(on_commit=[lambda txn: LOG.append("commit outer")])
    def outer(bad):
        made("inner")()
        assert LOG == ["run inner"]
        if bad:
            raise ValueError("outer")

    outer(False)
    assert ["run inner", *committed("inner"), "commit outer"] == LOG
    LOG.clear()
    with pytest.raises(ValueError, match="outer"):
        outer(True)
    assert ["run inner", *undone("inner")] == LOG


# -- hooks -------------------------------------------------------------------------


def test_hooks_are_added_by_decorators():
    one = task(lambda: 1, name="one")

    @one.on_commit
    def tell(txn):
        LOG.append(("commit", txn.name))

    @one.on_rollback
    def undo(txn):
        LOG.append(("undo", txn.name))

    one()
    with pytest.raises(ZeroDivisionError), transaction():
        one()
        raise ZeroDivisionError
    assert LOG == [("commit", "one"), ("undo", "one")]
    assert (one.on_commit_hooks, one.on_rollback_hooks) == ((tell,), (undo,))


def test_a_commit_hook_that_raises_undoes_its_own_run_only(caplog, tmp_path):
    def refuse(txn):
        raise RuntimeError("no")

    bad = made("bad", on_commit=[refuse], cache_policy=INPUTS, result_storage=tmp_path)
    good = made("good", cache_policy=INPUTS, result_storage=tmp_path)
    with transaction() as txn:
        state = bad(return_state=True)
        good(1)
    assert state.is_completed()
    assert ["run bad", "run good", *undone("bad"), *committed("good")] == LOG
    assert txn.is_committed()
    assert "transaction 'bad': a commit hook raised" in caplog.text
    assert len(ResultStore(tmp_path).list_keys("cache")) == 1


def test_a_rollback_hook_that_raises_skips_the_further_hooks_of_its_run(caplog):
    def refuse(txn):
        raise RuntimeError("no")

    @task(on_rollback=[lambda txn: LOG.append("never"), refuse])
    def bad():
        made("inner")()

    with pytest.raises(ZeroDivisionError), transaction():
        made("a")()
        bad()
        made("b")()
        raise ZeroDivisionError
    assert LOG[3:] == undone("b", "inner", "a")
    assert "a rollback hook raised" in caplog.text


def test_an_asynchronous_hook_is_awaited():
    async def tell(txn):
        await asyncio.sleep(0)
        LOG.append("told")

    task(lambda: 1, on_commit=[tell])()
    assert LOG == ["told"]


def test_hooks_and_tasks_inside_read_the_values_of_a_transaction():
    def undo(txn):
        LOG.append((txn.get("path"), txn.get("own", None), txn.get("else", 3)))

    @task(on_rollback=[undo])
    def write(path):
        get_transaction().set("own", path)

    with pytest.raises(ZeroDivisionError), transaction() as txn:
        txn.set("path", ["a"])
        write("b")
        assert get_transaction() is txn
        raise ZeroDivisionError
    assert LOG == [(["a"], "b", 3)]
    assert get_transaction() is None


def test_a_value_is_read_as_a_copy_and_must_be_there():
    txn = Transaction(name="t")
    txn.set("list", [1])
    txn.get("list").append(2)
    assert txn.get("list") == [1]
    with pytest.raises(TransactionError, match="'t' has no value 'lost'"):
        txn.get("lost")


# -- keys --------------------------------------------------------------------------


def test_a_block_with_a_key_writes_what_it_stages(tmp_path):
    store = ResultStore(tmp_path)
    with transaction("total", store) as txn:
        txn.stage(5)
        assert txn.is_staged()
        assert not store.exists("total")
    assert store.read("total").value == 5
    with transaction("total", store) as again:
        assert again.is_committed()
        assert again.read() == 5
    with transaction("total", store, overwrite=True) as anew:
        assert not anew.is_committed()
        anew.stage(6)
    assert store.read("total").value == 6


def test_a_block_writes_nothing_that_fails_or_should_not(tmp_path):
    store = ResultStore(tmp_path)
    with pytest.raises(ZeroDivisionError), transaction("total", store) as txn:
        txn.stage(5)
        raise ZeroDivisionError
    with transaction("total", store, write_on_commit=False) as txn:
        txn.stage(5)
    assert not store.exists("total")


def test_blocks_of_one_key_wait_for_one_another(tmp_path):
    store = ResultStore(tmp_path)
    computed = []

    def work():
        with transaction("total", store, isolation_level="SERIALIZABLE") as txn:
            if not txn.is_committed():
                computed.append(threading.get_ident())
                txn.stage(len(computed))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert store.read("total").value == 1


def serializable(store, **more):
    return transaction("total", store, isolation_level="SERIALIZABLE", **more)


class Unreachable(ResultStore):
    """A store that fails where it is asked for a value."""

    def find(self, key):
        raise ConnectionError("the store is gone")


def test_a_block_that_cannot_begin_keeps_no_lock(tmp_path):
    with pytest.raises(ConnectionError), serializable(Unreachable(tmp_path)):
        pass
    assert not locks_of(ResultStore(tmp_path)).is_locked("total")


def test_a_block_inside_of_one_with_its_key_does_not_wait_for_it(tmp_path):
    store = ResultStore(tmp_path)
    with serializable(store) as outer:
        with serializable(store) as inner:
            inner.stage(1)
        with serializable(store) as next_one:  # the first is not written yet
            assert not next_one.is_committed()
        outer.stage(2)
    assert store.read("total").value == 2
    assert not locks_of(store).is_locked("total")


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_key_is_locked_until_its_value_is_written_or_undone(tmp_path, ends):
    store = ResultStore(tmp_path)
    locks = locks_of(store)
    try:
        with transaction():
            with serializable(store) as txn:
                txn.stage(1)
            assert locks.is_locked("total")
            if ends == "badly":
                raise ValueError
    except ValueError:
        assert not store.exists("total")
    else:
        assert store.read("total").value == 1
    assert not locks.is_locked("total")


def test_an_eager_block_frees_its_key_at_its_own_end(tmp_path):
    store = ResultStore(tmp_path)
    with transaction():
        with serializable(store, commit_mode="EAGER") as txn:
            txn.stage(1)
        assert not locks_of(store).is_locked("total")
        with serializable(store) as txn:
            assert txn.is_committed()


def test_a_key_of_a_task_that_is_called_in_a_block_is_locked_until_the_commit(tmp_path):
    once = INPUTS.configure(isolation_level="SERIALIZABLE")
    one = made("one", cache_policy=once, result_storage=tmp_path)
    locks = locks_of(ResultStore(tmp_path))
    with transaction() as txn:
        one(1)
        one(1)  # the value is not written yet, and nobody waits for it in here
        (key,) = {child.key for child in txn.children}
        assert locks.is_locked(key)
        with pytest.raises(ValueError, match="one"):
            one("bad")
    assert not locks.is_locked(key)
    assert one(1, return_state=True).name == "Cached"
    assert not list((tmp_path / ".locks").glob("*.part"))


def test_coroutines_in_one_block_exclude_one_another(tmp_path):
    store = ResultStore(tmp_path)
    inside = []

    async def work():
        async with atransaction(
            "total", store, isolation_level="SERIALIZABLE", commit_mode="EAGER"
        ) as txn:
            inside.append(txn.is_committed())
            await asyncio.sleep(0.05)
            if not txn.is_committed():
                txn.stage(1)

    async def both():
        async with atransaction():
            await asyncio.gather(work(), work())

    asyncio.run(both())
    assert inside == [False, True]


def test_who_is_cancelled_while_it_waits_for_a_key_does_not_get_it_later(tmp_path):
    store = ResultStore(tmp_path)
    locks = locks_of(store)
    assert locks.acquire_lock("total", "somebody else")

    async def wait():
        async with atransaction("total", store, isolation_level="SERIALIZABLE"):
            pass

    async def give_up():
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        locks.release_lock("total", "somebody else")

    asyncio.run(give_up())  # which waits for the threads of its loop
    assert not locks.is_locked("total")


def test_what_has_ended_takes_no_value_any_more():
    with transaction() as txn:
        pass
    with pytest.raises(TransactionError, match="is COMMITTED and takes no value"):
        txn.stage(1)
    assert txn.commit()
    assert not txn.rollback()


def test_a_write_that_fails_is_raised_and_the_others_count(tmp_path):
    good = made("good", cache_policy=INPUTS, result_storage=tmp_path)
    lock = task(lambda: threading.Lock(), name="lock", persist_result=True)
    lock = lock.with_options(result_storage=tmp_path)
    with pytest.raises(TypeError, match="pickle"), transaction():
        lock()
        good(1)
    assert committed("good") == LOG[1:]
    assert len(ResultStore(tmp_path).list_keys("cache")) == 1


def test_a_rollback_is_told(caplog):
    logger = logging.getLogger("mine")
    with (
        caplog.at_level(logging.INFO, "mine"),
        pytest.raises(ZeroDivisionError),
        transaction(logger=logger),
    ):
        raise ZeroDivisionError
    assert "is rolled back: ZeroDivisionError" in caplog.text


def test_an_asynchronous_block_does_the_same(tmp_path):
    store = ResultStore(tmp_path)
    inner = made("a")

    async def main(bad):
        async with atransaction("total", store) as txn:
            inner()
            txn.stage(1)
            if bad:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main(True))
    assert ["run a", *undone("a")] == LOG
    assert not store.exists("total")
    LOG.clear()
    asyncio.run(main(False))
    assert ["run a", *committed("a")] == LOG
    assert store.exists("total")


# -- a law -------------------------------------------------------------------------

trees = st.recursive(
    st.just("task"), lambda inner: st.lists(inner, max_size=3), max_leaves=8
)


@given(trees, st.booleans())
def test_a_tree_of_blocks_counts_as_a_whole(tree, fails):
    LOG.clear()
    order = []

    def walk(node):
        if node == "task":
            order.append(len(order))
            made(f"t{order[-1]}.")()
            return
        with transaction():
            for inner in node:
                walk(inner)

    names = lambda: [f"t{n}." for n in order]  # noqa: E731
    try:
        with transaction():
            walk(tree)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert LOG[len(order) :] == undone(*reversed(names()))
    else:
        assert LOG[len(order) :] == committed(*names())


# -- runs elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_submitted_runs_count_with_the_block(flow_runner, tmp_path, fails):
    store = ResultStore(tmp_path)
    kept = made("a", cache_policy=INPUTS, result_storage=store)

    @flow(task_runner=flow_runner)
    def both():
        with transaction():
            one = kept.submit(1)
            many = kept.map([2, 3])
            if fails:
                one.wait()
                raise ZeroDivisionError
            seen.append(store.list_keys("cache"))
        return one, many

    seen = []
    state = both(return_state=True)
    ran = [line for line in LOG if line.startswith("run")]
    assert (len(ran), len(LOG)) == (3, 9)  # each hook once
    assert not store.list_keys("staged")
    if fails:
        assert state.is_failed()
        assert LOG[-6:] == undone("a", "a", "a")
        assert not store.list_keys("cache")
    else:
        assert LOG[-6:] == committed("a", "a", "a")
        assert len(store.list_keys("cache")) == 3
        LOG.clear()
        assert both() == (1, [2, 3])
        assert LOG == []
        assert seen[0] == []


def test_a_resumed_flow_commits_what_an_earlier_attempt_had_not(tmp_path):
    one = made("one", persist_result=True, result_storage=tmp_path)
    none = made("none", persist_result=True, result_storage=tmp_path)
    bad = ["block", "after"]
    ids = []

    @flow(task_runner=SequentialTaskRunner())
    def both():
        ids.append(flow_run.id)
        with transaction():
            values = one.map([1, 2]).result()
            if "block" in bad:
                raise ValueError("block")
        with transaction():
            values += none.map([3]).result()
            values.append(one(4))
        if bad:
            raise ValueError("after")
        return values

    assert both(return_state=True).is_failed()
    assert ["run one", "run one", *undone("one", "one")] == LOG
    LOG.clear()
    bad.remove("block")
    assert both.resume(ids[0], return_state=True).is_failed()
    ran = ["run one", "run one", *committed("one", "one"), "run none", "run one"]
    assert [*ran, *committed("none", "one")] == LOG
    LOG.clear()
    bad.clear()
    assert both.resume(ids[0]) == [1, 2, 3, 4]
    assert LOG == []  # all counts already
    assert ResultStore(tmp_path).list_keys("staged") == []


def test_a_submitted_run_without_a_value_counts_with_its_block(tmp_path):
    def body():
        return Completed("by hand")

    hooks = {"on_commit": [lambda txn: LOG.append("commit")]}
    by_hand = task(body, persist_result=True, result_storage=tmp_path, **hooks)

    @flow(task_runner=SequentialTaskRunner())
    def one():
        with transaction():
            future = by_hand.submit()
        return future.state

    assert one(return_state=True).is_successful()
    assert LOG == ["commit"]


@pytest.mark.parametrize("fails", [False, True])
def test_submitted_runs_have_their_place_among_the_calls(flow_runner, fails):
    @flow(task_runner=flow_runner)
    def mixed():
        with transaction():
            made("a")()
            made("c")(made("b").submit())
            if fails:
                raise ZeroDivisionError

    mixed(return_state=True)
    ended = LOG[3:]
    assert ended == (undone("c", "b", "a") if fails else committed("a", "b", "c"))
