"""Futures: waiting, states, values, lists; on a session that ends when it is told."""

import asyncio
import gc
import pickle
import threading

import pytest

from prefect_dask_core.engine.children import Children
from prefect_dask_core.errors import OptionTypeError, OptionValueError, UnfinishedRun
from prefect_dask_core.future_lists import FutureList
from prefect_dask_core.futures import Handle, PrefectFuture
from prefect_dask_core.states import Completed, Failed, Mapped, Pending, Running
from prefect_dask_core.waiting import (
    as_completed,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)

RUN_ID = "0" * 31 + "1"


class ScriptedSession:
    """A session whose nodes end when the test says so."""

    run_id = RUN_ID

    def __init__(self):
        self.states = {}
        self.children = {}
        self.dropped = []
        self.fetched = []
        self.told = {}
        self.told_of_child = {}
        self.changed = threading.Condition()

    def future(self, node, name="load"):
        self.states.setdefault(node, Pending())
        return PrefectFuture(self.handle(node, name))

    def mapped(self, node, length=None, name="load"):
        self.states.setdefault(node, Pending())
        self.children[node] = None if length is None else [Running()] * length
        return FutureList(handle=self.handle(node, name))

    def handle(self, node, name):
        return Handle(self, node, f"{name}-{node}", RUN_ID, set(), {})

    def end(self, node, state):
        with self.changed:
            self.states[node] = state
            calls = self.told.pop(node, [])
            self.changed.notify_all()
        for call in calls:
            call()

    def set_length(self, node, length):
        with self.changed:
            self.children[node] = [Pending()] * length
            self.changed.notify_all()

    def end_child(self, node, index, state):
        with self.changed:
            self.children[node][index] = state
            calls = self.told_of_child.pop((node, index), [])
            self.changed.notify_all()
        for call in calls:
            call()

    def end_map(self, node, states):
        self.set_length(node, len(states))
        for index, state in enumerate(states):
            self.end_child(node, index, state)
        self.end(node, Mapped(states=list(states)))

    # -- what a session does

    def state(self, node):
        return self.states[node]

    def wait(self, nodes, timeout=None):
        with self.changed:
            return self.changed.wait_for(
                lambda: all(self.states[node].is_final() for node in nodes), timeout
            )

    def on_final(self, node, call):
        if self.states[node].is_final():
            call()
        else:
            self.told.setdefault(node, []).append(call)

    def wait_child(self, node, index, timeout=None):
        def is_there():
            known = self.children.get(node)
            if index is None or known is None:
                return known is not None or self.states[node].is_final()
            return known[index].is_final()

        with self.changed:
            return self.changed.wait_for(is_there, timeout)

    def on_child_final(self, node, index, call):
        if self.children[node][index].is_final():
            call()
        else:
            self.told_of_child.setdefault((node, index), []).append(call)

    def child_count(self, node):
        found = self.children.get(node)
        return None if found is None else len(found)

    def child_state(self, node, index):
        return self.children[node][index]

    def value(self, node, index=None):
        self.fetched.append((node, index))
        if index is not None:
            return self.children[node][index].result()
        return self.states[node].result()

    def drop(self, node):
        self.dropped.append(node)


@pytest.fixture
def session():
    return ScriptedSession()


def test_a_future_knows_its_run(session):
    future = session.future(3)
    assert future.name == "load-3"
    assert future.task_run_id == session.future(3).task_run_id
    assert future.task_run_id != session.future(4).task_run_id
    assert (future, hash(future)) == (session.future(3), hash(session.future(3)))
    assert future != session.future(4)
    assert repr(future) == "<PrefectFuture: load-3>"


def test_a_future_waits_no_longer_than_it_is_told(session):
    future = session.future(0)
    assert future.wait(0.01) is None
    assert future.done() is False
    with pytest.raises(TimeoutError, match=r"load-0 has not ended within 0\.01"):
        future.result(0.01)
    assert isinstance(future.state, Pending)
    assert isinstance(future.get_state(), Pending)


def test_a_future_gives_its_value_or_its_error(session):
    good, bad = session.future(0), session.future(1)
    threading.Timer(0.05, session.end, (0, Completed(data=7))).start()
    session.end(1, Failed(data=KeyError("k")))
    assert good.result(5) == 7
    bad.wait()
    with pytest.raises(KeyError):
        bad.result()
    assert isinstance(bad.result(raise_on_failure=False), KeyError)


def test_callbacks_are_called_with_the_future(session):
    seen = []
    future = session.future(0)
    future.add_done_callback(seen.append)
    assert seen == []
    session.end(0, Completed(data=1))
    future.add_done_callback(seen.append)
    assert seen == [future, future]


def test_callbacks_are_called_at_the_end_of_a_child(session):
    seen = []
    first, second = session.mapped(0, length=2)
    for child in (first, second):
        child.add_done_callback(seen.append)
    session.end_child(0, 1, Completed(data=1))
    assert seen == [second]
    second.add_done_callback(seen.append)
    assert seen == [second, second]


def test_a_child_that_is_awaited_waits_for_no_other(session):
    async def read():
        first, _ = session.mapped(0, length=2)
        threading.Timer(0.05, session.end_child, (0, 0, Completed(data=7))).start()
        return await first

    assert asyncio.run(read()) == 7


def test_the_session_hears_when_the_last_future_is_gone(session):
    first = session.future(0)
    children = session.mapped(1, length=2)
    child = children[0]
    del first, children
    gc.collect()
    assert session.dropped == [0]
    del child
    gc.collect()
    assert session.dropped == [0, 1]


def test_a_future_can_be_awaited(session):
    async def read():
        future = session.future(0)
        threading.Timer(0.05, session.end, (0, Completed(data=7))).start()
        children = session.mapped(1, length=2)
        threading.Timer(
            0.05, session.end_map, (1, [Completed(data=1), Completed(data=2)])
        ).start()
        return await future, await children[1], await children

    assert asyncio.run(read()) == (7, 2, [1, 2])


@pytest.mark.parametrize("made", ["future", "mapped"])
def test_a_future_does_not_travel(session, made):
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(getattr(session, made)(0))


# -- lists -------------------------------------------------------------------------


def test_a_list_of_children_reads_like_a_sequence(session):
    futures = session.mapped(0, length=3)
    assert len(futures) == 3
    assert [f.name for f in futures] == ["load-0[0]", "load-0[1]", "load-0[2]"]
    assert futures[-1] == futures[2]
    assert list(futures[1:]) == [futures[1], futures[2]]
    assert futures[::2] == [futures[0], futures[2]]
    assert futures[0] in futures
    more = FutureList([session.future(1)])
    assert (futures + more)[3].name == "load-1"
    with pytest.raises(IndexError, match="future 3 of <FutureList"):
        futures[3]
    assert repr(futures[:2]) == "<FutureList: 2 futures>"


def test_nothing_is_fetched_that_was_not_asked_for(session):
    futures = session.mapped(0, length=2)
    session.end_map(0, [Completed(data=1), Completed(data=2)])
    assert futures.progress() == {"Completed": 2}
    assert len(futures.states) == 2
    assert [f.state.is_completed() for f in futures] == [True, True]
    futures.wait()
    assert session.fetched == []
    assert futures[1].result() == 2
    assert session.fetched == [(0, 1)]
    assert futures.result() == [1, 2]


def test_progress_counts_without_making_states(session):
    futures = session.mapped(0)
    session.states[0] = Mapped(states=Children(1_000_000))
    assert futures.progress() == {"Pending": 1_000_000}


def test_the_length_is_waited_for_and_not_the_children(session):
    futures = session.mapped(0)
    threading.Timer(0.05, session.set_length, (0, 4)).start()
    assert len(futures) == 4
    assert not futures.done()


def test_a_list_without_children_says_why(session):
    futures = session.mapped(0)
    session.end(0, Failed(data=ValueError("nothing to map")))
    for ask in (len, list, FutureList.result):
        with pytest.raises(ValueError, match="nothing to map"):
            ask(futures)
    (error,) = futures.result(raise_on_failure=False)
    assert str(error) == "nothing to map"


def test_a_child_is_done_before_its_node_is(session):
    futures = session.mapped(0, length=2)
    session.end_child(0, 1, Completed(data=5))
    assert futures[1].done()
    assert futures[1].result() == 5
    assert not futures[0].done()
    with pytest.raises(TimeoutError):
        futures[0].result(0.05)
    threading.Timer(0.05, session.end_child, (0, 0, Completed(data=6))).start()
    assert futures[0].result(5) == 6


def test_the_first_failure_of_a_list_is_raised_or_stands_in_its_place(session):
    futures = session.mapped(0, length=2)
    session.end_map(0, [Completed(data=1), Failed(data=KeyError("k"))])
    with pytest.raises(KeyError):
        futures.result()
    assert [type(v) for v in futures.result(raise_on_failure=False)] == [int, KeyError]
    with pytest.raises(KeyError):
        futures[:].result()


def test_a_list_waits_no_longer_than_it_is_told(session):
    futures = session.mapped(0, length=1)
    with pytest.raises(TimeoutError, match="not all ended within"):
        futures.result(0.01)
    with pytest.raises(OptionValueError, match="cannot be negative"):
        futures.result(-1)


def test_futures_of_several_runs_make_a_list(session):
    futures = FutureList([session.future(0), session.future(1)])
    session.end(0, Completed(data=1))
    assert not futures.done()
    assert futures.progress() == {"Completed": 1, "Pending": 1}
    session.end(1, Completed(data=2))
    assert futures.result() == [1, 2]
    with pytest.raises(AttributeError, match="no common state"):
        _ = futures.state
    assert asyncio.run(_await(futures)) == [1, 2]


async def _await(futures):
    return await futures


# -- several -----------------------------------------------------------------------


def test_wait_tells_who_is_done(session):
    first, second = session.future(0), session.future(1)
    session.end(0, Completed(data=1))
    found = wait([first, second], timeout=0.01)
    assert (found.done, found.not_done) == ({first}, {second})
    session.end(1, Completed(data=1))
    assert wait([first, second]).not_done == set()


def test_futures_come_in_the_order_in_which_they_end(session):
    futures = [session.future(n) for n in range(3)]
    children = session.mapped(3, length=1)
    for delay, node in ((0.1, 2), (0.05, 0)):
        threading.Timer(delay, session.end, (node, Completed(data=node))).start()
    threading.Timer(0.2, session.end_child, (3, 0, Completed(data=1))).start()
    session.end(1, Completed(data=1))
    found = [f.name for f in as_completed([*futures, futures[0], children[0]])]
    assert found == ["load-1", "load-0", "load-2", "load-3[0]"]


def test_only_futures_are_waited_for(session):
    for ask in (wait, lambda given: list(as_completed(given))):
        with pytest.raises(OptionTypeError, match=r"expected futures that .* got 3"):
            ask([session.future(0), 3])


def test_what_does_not_end_in_time_is_told(session):
    session.end(0, Completed(data=1))
    found = as_completed([session.future(0), session.future(1)], timeout=0.05)
    assert next(found).name == "load-0"
    with pytest.raises(TimeoutError, match="1 of the runs have not ended"):
        next(found)


def test_futures_are_resolved_wherever_they_are(session):
    session.end(0, Completed(data=1))
    session.end(1, Failed(data=KeyError("k")))
    session.states[2] = Pending()
    futures = session.mapped(2, length=1)
    session.end_map(2, [Completed(data=5)])
    value = {"a": [session.future(0)], "b": (session.future(1), futures)}
    states = resolve_futures_to_states(value)
    assert states["a"][0].result() == 1
    assert [type(s) for s in (states["b"][0], states["b"][1][0])] == [Failed, Completed]
    assert resolve_futures_to_results(value["a"]) == [1]
    with pytest.raises(KeyError):
        resolve_futures_to_results(value)


def test_a_run_that_has_not_ended_has_no_value(session):
    with pytest.raises(UnfinishedRun):
        session.future(0).state.result()
