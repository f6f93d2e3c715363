"""Each private part of distributed that is used exists, and does what it is used for.

If one of these fails after an update of distributed, `runners/_private.py` is the only
place to look at.
"""

import contextvars
import gc
import queue
import threading
import weakref

import dask
import pytest
from distributed import Client, Event, Worker, get_client, get_worker
from distributed.worker import thread_state

from prefect_dask_core.runners._private import (
    carry_thread_state,
    client_here,
    current_client,
    find_blamed,
    find_ended,
    forget_topic,
)
from tests.leftovers import tasks_on, wait_until


def beside(prepare):
    """Ask for the worker in another thread, as the shell does for a limited body."""
    found = []
    variables = contextvars.copy_context()

    def ask():
        try:
            prepare()
            found.append((get_worker().address, get_client().scheduler.address))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=variables.run, args=(ask,))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_beside_a_task_stands_in_for_its_worker(client):
    def body():
        return get_worker().address, beside(carry_thread_state())

    mine, found = client.submit(body, pure=False).result()
    assert not isinstance(found, BaseException), found
    address, scheduler = found
    assert (address, scheduler) == (mine, client.scheduler.address)


def test_a_client_is_the_current_one_in_a_block(client):
    before = dask.config.get("scheduler", None)
    with current_client(client):
        assert Client.current() is client
        assert dask.config.get("scheduler", None) == before
    with pytest.raises(ValueError, match="as_current"):
        Client.current(allow_global=False)


def test_a_worker_has_one_client_that_closes_with_it(client):
    def body():
        made = client_here()
        return made is get_client(), made in Worker._initialized_clients

    assert client.submit(body, pure=False).result() == (True, True)


def test_the_thread_state_is_a_thread_local():
    assert isinstance(thread_state, threading.local)


def test_a_topic_is_known_to_the_scheduler_until_it_is_forgotten(client):
    def topics(dask_scheduler=None):
        return list(dask_scheduler._broker._topics)

    topic, heard = "a-topic-of-a-test", queue.SimpleQueue()
    client.subscribe_topic(topic, heard.put)
    while topic not in client.run_on_scheduler(topics):
        pass  # the subscription goes another way than what follows
    client.log_event(topic, "hello")
    assert heard.get(timeout=30)[1] == "hello"
    assert topic in client.run_on_scheduler(topics)
    forget_topic(client, topic)
    assert topic not in client.run_on_scheduler(topics)
    # What is told later reaches nobody, and breaks nothing.
    client.log_event(topic, "hello again")
    assert client.submit(lambda: 1, pure=False).result() == 1
    assert heard.empty()
    forget_topic(client, topic)
    forget_topic(client, "never-was")


def test_a_forgotten_topic_holds_nothing_in_the_client(client):
    class Handler:
        def __call__(self, event):
            pass

    handler = Handler()
    seen = weakref.ref(handler)
    client.subscribe_topic("a-topic-of-a-test", handler)
    forget_topic(client, "a-topic-of-a-test")
    del handler
    gc.collect()
    assert seen() is None


def test_the_key_that_is_to_blame_is_found(client):
    def fail():
        raise ValueError("mine")

    bad = client.submit(fail, key="culprit-of-a-test")
    below = client.submit(lambda x: x, bad, key="victim-of-a-test")
    further = client.submit(lambda x: x, below, key="victims-victim-of-a-test")
    good = client.submit(lambda: 1, key="good-of-a-test")
    for future in (bad, below, further, good):
        future.exception()
    keys = [future.key for future in (bad, below, further, good)]
    assert client.run_on_scheduler(find_blamed, [*keys, "unknown"]) == dict.fromkeys(
        keys[:3], "culprit-of-a-test"
    )


def test_keys_that_ended_are_found(client):
    going_on = Event("going-on-of-a-test", client=client)
    done = client.submit(lambda: 1, key="done-of-a-test")
    runs = client.submit(going_on.wait, key="running-of-a-test")
    done.result()
    asked = [
        ("done-of-a-test", None),
        ("running-of-a-test", None),
        ("forgotten-of-a-test", "done-of-a-test"),
        ("forgotten-too-of-a-test", None),
        ("not-yet-there-of-a-test", "nor-its-witness"),
    ]
    (worker,) = client.who_has(done)["done-of-a-test"]
    assert wait_until(lambda: "running-of-a-test" in tasks_on(client))
    assert client.run_on_scheduler(find_ended, asked) == [
        ("done-of-a-test", worker),
        ("forgotten-of-a-test", None),
        ("forgotten-too-of-a-test", None),
    ]
    going_on.set()
    runs.result()
