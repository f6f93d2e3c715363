"""What type checkers are to know of tasks, futures and flows; checked by mypy only."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from prefect_dask_core import State, as_completed, flow, task, wait
from prefect_dask_core.calls import Future, Futures


@task
def length(text: str, scale: float = 1.0) -> int:
    return int(len(text) * scale)


@task(retries=2)
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def count(texts: list[str]) -> int:
    assert_type(length("a"), int)
    assert_type(length("a", scale=2.0), int)
    assert_type(length("a", return_state=True), State)
    assert_type(length.submit("a"), Future[int])
    assert_type(length.submit("a").result(), int)
    assert_type(length.submit("a", return_state=True), State)
    assert_type(length.map(texts), Futures[int])
    assert_type(length.map(texts).result(), list[int])
    assert_type(length.map(texts)[0].result(), int)
    assert_type(length.map(texts)[:2].result(), list[int])
    assert_type(length.with_options(retries=3)("a"), int)
    assert_type(fetch.submit("a"), Future[bytes])
    assert_type(fetch.map(texts).result(), list[bytes])
    length.submit(length.submit("a"))
    done, not_done = wait([length.submit("a")], timeout=1)
    assert_type(done, set[Future[Any]])
    assert_type(not_done, set[Future[Any]])
    wait(length.map(texts))
    for future in as_completed([length.submit("a")]):
        assert_type(future, Future[int])
        assert_type(future.result(), int)
    for child in as_completed(length.map(texts), timeout=1):
        assert_type(child.result(), int)
    length(3)  # type: ignore[call-overload]
    length()  # type: ignore[call-overload]
    return 3


@flow(retries=1)
async def gather(url: str) -> list[bytes]:
    assert_type(await fetch(url), bytes)
    assert_type(await fetch.submit(url), bytes)
    return [await fetch(url)]


def call() -> Coroutine[Any, Any, list[bytes]]:
    assert_type(count(["a"]), int)
    assert_type(count(["a"], return_state=True), State)
    count(3)  # type: ignore[call-overload]
    return gather("a")
