"""Drive: carry out the steps of a run where it was called, and hand back its end.

The steps are those of the pipeline: a generator that asks for calls and waits. There is
one way to drive them per kind of function, because a coroutine function is awaited on
the caller's own event loop, and a generator hands out values as they come.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from prefect_dask_core.calls import SCOPE, BodyScope, finished, has_submitted
from prefect_dask_core.engine.effects import (
    Answer,
    Call,
    Effect,
    Overran,
    Raised,
    Returned,
    Wait,
)
from prefect_dask_core.runners.shell import GRACE, ThreadShell, surroundings

EndT = TypeVar("EndT")
Steps = Generator[Any, Any, EndT]


@dataclass(frozen=True, slots=True)
class Blocking:
    """Call something of this package that may wait for other runs.

    Parameters
    ----------
    function : callable
        Called without arguments; in a thread where an event loop would stand still.
    """

    function: Callable[[], Any]


def drive(steps: Steps[EndT], shell: ThreadShell | None = None) -> EndT:
    """Drive steps to their end, in the calling thread."""
    shell = shell or ThreadShell()
    go_on: Callable[[], Any] = partial(steps.send, None)
    try:
        while True:
            effect = go_on()
            try:
                go_on = partial(steps.send, _carry_out(effect, shell))
            except BaseException as error:  # a person at the keyboard
                go_on = partial(steps.throw, error)
    except StopIteration as stop:
        end: EndT = stop.value
        return end


def _carry_out(effect: Effect | Blocking, shell: ThreadShell) -> Any:
    if isinstance(effect, Blocking):
        return effect.function()
    if isinstance(effect, Wait):
        return shell.wait(effect.until)
    return shell.call(effect)


async def drive_async(steps: Steps[EndT]) -> EndT:
    """Drive steps to their end, on the running event loop."""
    go_on: Callable[[], Any] = partial(steps.send, None)
    try:
        while True:
            effect = go_on()
            try:
                go_on = partial(steps.send, await _carry_out_async(effect))
            except BaseException as error:  # the caller no longer wants the end
                go_on = partial(steps.throw, error)
    except StopIteration as stop:
        end: EndT = stop.value
        return end


async def _carry_out_async(effect: Effect | Blocking) -> Any:
    if isinstance(effect, Blocking):
        return await asyncio.to_thread(effect.function)
    if isinstance(effect, Wait):
        await asyncio.sleep(max(0.0, effect.until - time.time()))
        return None
    return await call_async(effect)


async def call_async(call: Call) -> Answer:
    """Call code that may be asynchronous; whatever it raises is an answer."""
    task = asyncio.ensure_future(_inside(call))
    try:
        done, _ = await asyncio.wait({task}, timeout=call.timeout)
    except asyncio.CancelledError as error:
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        return Raised(error)
    if done:
        return task.result()
    task.cancel()
    stopped, _ = await asyncio.wait({task}, timeout=GRACE)
    assert call.timeout is not None
    return Overran(call.timeout, left_behind=not stopped)


async def _inside(call: Call) -> Answer:
    with surroundings(call):
        try:
            value = call.function(*call.args, **call.kwargs)
            if inspect.isawaitable(value):
                value = await value
            if has_submitted():
                value = await asyncio.to_thread(finished, value)
            return Returned(value)
        except BaseException as error:
            if has_submitted():
                await asyncio.to_thread(finished, None)
            return Raised(error)


def drive_generator(
    steps: Steps[Any], body: Callable[..., Any], end: Callable[[Any], Any]
) -> Generator[Any, Any, Any]:
    """Drive steps whose body is a generator function; hand out what it yields.

    Parameters
    ----------
    steps : generator
        The steps.
    body : callable
        The function that the steps call for the body; it gives the generator.
    end : callable
        Given the end of the steps; raises, or returns the value of the generator.
    """
    shell = ThreadShell()
    answer: Any = None
    try:
        while True:
            effect = steps.send(answer)
            if isinstance(effect, Call) and effect.function is body:
                try:
                    answer = yield from _stream(effect)
                except GeneratorExit:
                    # The reader has what it wanted: the run completes, and says so.
                    answer = Returned(None)
            else:
                answer = _carry_out(effect, shell)
    except StopIteration as stop:
        return end(stop.value)


def _values_of(call: Call) -> Any:
    """The generator itself, which a plain call of the body would read to its end."""
    owner, inputs = call.args
    return owner.call_body(inputs)


def _with_one_scope(call: Call) -> Call:
    """A call whose code submits to one scope, however often it is entered."""
    if SCOPE in call.variables:
        return call
    return replace(call, variables={**call.variables, SCOPE: BodyScope()})


def _stream(call: Call) -> Generator[Any, Any, Answer]:
    """Values of a generator; its surroundings are there only while it runs."""
    begin = time.time()
    call = _with_one_scope(call)
    with surroundings(call):
        values = _values_of(call)
    go_on: Callable[[], Any] = partial(next, values)
    while True:
        if call.timeout is not None and time.time() - begin > call.timeout:
            values.close()
            return Overran(call.timeout)
        with surroundings(call):
            try:
                value = go_on()
            except StopIteration as stop:
                return Returned(finished(stop.value))
            except BaseException as error:
                finished(None)
                return Raised(error)
        try:
            go_on = partial(values.send, (yield value))
        except GeneratorExit:
            values.close()
            raise
        except BaseException as error:  # the reader has thrown it in
            go_on = partial(values.throw, error)


async def drive_async_generator(
    steps: Steps[Any], body: Callable[..., Any], end: Callable[[Any], Any]
) -> AsyncGenerator[Any, None]:
    """Drive steps whose body is an asynchronous generator function."""
    answer: Any = None
    while True:
        try:
            effect = steps.send(answer)
        except StopIteration as stop:
            end(stop.value)
            return
        if isinstance(effect, Call) and effect.function is body:
            effect = _with_one_scope(effect)
            with surroundings(effect):
                values = _values_of(effect)
            while True:
                try:
                    with surroundings(effect):
                        value = await values.__anext__()
                except StopAsyncIteration:
                    answer = Returned(None)
                    break
                except BaseException as error:
                    answer = Raised(error)
                    break
                try:
                    yield value
                except GeneratorExit:
                    await values.aclose()
                    answer = Returned(None)
                    break
            with surroundings(effect):
                await asyncio.to_thread(finished, None)
        else:
            answer = await _carry_out_async(effect)
