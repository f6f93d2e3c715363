"""The private parts of distributed that are used, all of them here.

`tests/runners/test_private.py` fails loudly when one of them moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.late_imports import import_late, is_distributed_loaded

if TYPE_CHECKING:
    import distributed
    from distributed import Client
    from distributed import client as distributed_client
    from distributed import worker as distributed_worker
else:
    distributed = import_late("distributed")
    distributed_client = import_late("distributed.client")
    distributed_worker = import_late("distributed.worker")

#: What the topics of runs begin with.
TOPIC_PREFIX: Final = "prefect-dask-core-"
#: Seconds after the end of a run at which its topic is looked for once more.
SWEPT_AFTER: Final = 10.0

#: Gives the place of the worker's thread away, for a thread that runs beside it.
LEND: Final[ContextVar[Callable[[], None] | None]] = ContextVar(
    "prefect_dask_core.lend", default=None
)


def carry_thread_state() -> Callable[[], None]:
    """Let another thread stand in for a worker's thread.

    Returns
    -------
    callable
        To be called in the other thread; `get_worker` and `get_client` work
        there afterwards.
    """
    carried = dict(vars(_thread_state()))

    def prepare() -> None:
        vars(_thread_state()).update(carried)

    return prepare


def _thread_state() -> threading.local:
    """What a thread of a worker's pool knows of its worker and task."""
    state: threading.local = distributed_worker.thread_state  # type: ignore[attr-defined]
    return state


@contextlib.contextmanager
def outside_the_pool() -> Iterator[None]:
    """Give the thread of a task back to its worker while the task waits for others.

    A thread beside the worker's gives that one's place away, until its body has ended.
    Elsewhere nothing happens.
    """
    seceded = False
    lend = LEND.get()
    if lend is not None:
        lend()
    elif is_distributed_loaded() and getattr(_thread_state(), "key", None) is not None:
        with contextlib.suppress(Exception):  # not a thread of the pool
            distributed.secede()
            seceded = True
    try:
        yield
    finally:
        if seceded:
            distributed.rejoin()


@contextlib.contextmanager
def current_client(client: Client) -> Iterator[None]:
    """Let a client be the current one of this thread or asyncio task.

    Not by `Client.as_current`, which sets `dask.config` for all threads.
    """
    token = distributed_client._current_client.set(client)
    try:
        yield
    finally:
        distributed_client._current_client.reset(token)


_seeding: Final = threading.Lock()


def client_here(timeout: Any = None) -> Client:
    """Client of the worker that runs the caller, else the current one.

    Like `get_client`, which makes the client that it opens for a worker the default one
    of the whole process: where workers are in the process of the user, everything there
    would use their cluster from then on. So a worker is given one that is not.

    Raises
    ------
    ValueError
        If there is neither.
    """
    if not is_distributed_loaded():
        raise ValueError("there is no client in this process, and no worker.")
    with contextlib.suppress(ValueError):
        worker = distributed.get_worker()
        with _seeding:
            if worker._client is None:
                worker._client = distributed.Client(
                    worker.scheduler.address,
                    loop=worker.loop,
                    security=worker.security,
                    set_as_default=False,
                    asynchronous=False,
                    direct_to_workers=True,
                    name="worker",
                    **({} if timeout is None else {"timeout": timeout}),
                )
                # Closed with the last worker of the process, as Dask's own.
                distributed.Worker._initialized_clients.add(worker._client)
    found: Client = distributed.get_client(timeout=timeout)
    return found


def forget_topic(client: Client, topic: str, last: Any = None) -> None:
    """Let scheduler and client forget a topic.

    Parameters
    ----------
    client : Client
        Who was subscribed.
    topic : str
        The topic.
    last : object, optional
        A last message, for those who listen on the scheduler.

    Notes
    -----
    Not by `Client.unsubscribe_topic`: that message may arrive after the topic was
    forgotten, and would bring it back; and it leaves the handler in the client.
    """
    client.run_on_scheduler(_forget, topic, last)
    # A report may be on its way, and the client wants a handler for it.
    client._event_handlers[topic] = _ignore


async def _forget(topic: str, last: Any, dask_scheduler: Any = None) -> None:
    topics = dask_scheduler._broker._topics
    if last is not None:
        dask_scheduler.log_event(topic, last)
    for _ in range(100):
        if topic in topics:
            break
        # The subscription, which goes another way, may arrive after this.
        await asyncio.sleep(0.01)
    topics.pop(topic, None)
    _sweep(dask_scheduler)
    # A run that was stopped has bodies that still run, and blocks that report.
    asyncio.get_running_loop().call_later(SWEPT_AFTER, _sweep, dask_scheduler)


def _sweep(scheduler: Any) -> None:
    """Drop topics of runs that nobody listens to: late reports have put them anew."""
    topics = scheduler._broker._topics
    for name in list(topics):
        nobody = topics[name].subscribers.isdisjoint(scheduler.clients)
        if nobody and name.startswith(TOPIC_PREFIX):
            del topics[name]


def _ignore(event: Any) -> None:
    """Handle an event of a run that has ended."""


def find_blamed(
    keys: Sequence[Hashable], dask_scheduler: Any = None
) -> dict[Hashable, Hashable]:
    """Key that is to blame for each erred key; runs on the scheduler."""
    blamed = {}
    for key in keys:
        task = dask_scheduler.tasks.get(key)
        if task is not None and task.exception_blame is not None:
            blamed[key] = task.exception_blame.key
    return blamed


def find_ended(
    asked: Sequence[tuple[Hashable, Hashable | None]], dask_scheduler: Any = None
) -> list[tuple[Hashable, str | None]]:
    """Keys that are done or forgotten; runs on the scheduler.

    Parameters
    ----------
    asked : sequence of tuple
        A key, and another of its graph that is still held, or `None` if the graph is
        known to have arrived: a key that is unknown may not be there yet.

    Returns
    -------
    list of (key, str or None)
        With the address of a worker that has the result; `None` if it is gone.
    """
    tasks = dask_scheduler.tasks
    ended: list[tuple[Hashable, str | None]] = []
    for key, witness in asked:
        task = tasks.get(key)
        if task is None:
            if witness is None or witness in tasks:
                ended.append((key, None))
        elif task.state == "memory":
            ended.append((key, next(iter(task.who_has)).address))
        elif task.state == "released":
            ended.append((key, None))
    return ended


def find_stranded(dask_scheduler: Any = None) -> tuple[int, list[Hashable]]:
    """Number of workers, and keys that none of them may run; runs on the scheduler."""
    keys = [task.key for task in dask_scheduler.unrunnable]
    return len(dask_scheduler.workers), keys
