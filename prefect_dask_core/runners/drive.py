"""Drive: carry out the steps of a run where it was called, and hand back its end.

The steps are those of the pipeline: a generator that asks for calls and waits. There is
one way to drive them per kind of function, because a coroutine function is awaited on
the caller's own event loop, and a generator hands out values as they come. Whatever
interrupts the caller is thrown into the steps, which know how to end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from prefect_dask_core.calls import (
    SCOPE,
    BodyScope,
    abandoned,
    finished,
    has_submitted,
)
from prefect_dask_core.engine.effects import (
    Answer,
    Call,
    Effect,
    Overran,
    Raised,
    Returned,
    Wait,
)
from prefect_dask_core.runners.own_threads import in_own_thread
from prefect_dask_core.runners.shell import GRACE, ThreadShell, surroundings
from prefect_dask_core.runners.yielded import Yielded

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


def drive(steps: Steps[EndT]) -> EndT:
    """Drive steps to their end, in the calling thread."""
    shell = ThreadShell()
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
            except GeneratorExit:  # the loop is gone: nothing can be awaited any more
                raise
            except BaseException as error:  # whoever awaits the run was cancelled
                go_on = partial(steps.throw, error)
    except StopIteration as stop:
        end: EndT = stop.value
        return end


async def _carry_out_async(effect: Effect | Blocking) -> Any:
    if isinstance(effect, Blocking):
        return await in_own_thread(effect.function)
    if isinstance(effect, Wait):
        return await asyncio.sleep(max(0.0, effect.until - time.time()))
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
            return Returned(await _finished(value))
        except BaseException as error:
            await _ended_by(error)
            return Raised(error)


async def _finished(value: Any) -> Any:
    """What a body returned, once what it has submitted is final."""
    if not has_submitted():
        return value
    return await in_own_thread(partial(finished, value))


async def _ended_by(error: BaseException) -> None:
    """End what a body has submitted that raised; see `shell._raised`."""
    if not has_submitted():
        return
    if isinstance(error, asyncio.CancelledError):
        # Nobody waits for the body any longer, so not for what it submitted either.
        await in_own_thread(partial(abandoned, "the task was cancelled"))
    else:
        await in_own_thread(partial(finished, None))


# -- generators --------------------------------------------------------------------


def drive_generator(
    steps: Steps[Any],
    body: Callable[..., Any],
    end: Callable[[Any], Any],
    keeps: bool = False,
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
    keeps : bool
        Whether the value of the run outlives it. It is then the list of what was
        yielded, as if it had been submitted; and if the body need not run, that is
        handed out. Else what was yielded is not held.
    """
    shell = ThreadShell()
    go_on: Callable[[], Any] = partial(steps.send, None)
    yielded = Yielded(keeps)
    while True:
        try:
            effect = go_on()
        except StopIteration as stop:
            value = end(stop.value)
            break
        try:
            if isinstance(effect, Call) and effect.function is body:
                answer = yielded.answer((yield from _stream(effect, yielded)))
            else:
                answer = _carry_out(effect, shell)
            go_on = partial(steps.send, answer)
        except GeneratorExit:
            # The reader has what it wanted: the run completes, and says so.
            go_on = partial(steps.send, yielded.answer_of_a_part())
        except BaseException as error:  # of a body that is closed, too
            go_on = partial(steps.throw, error)
    yield from yielded.left(value)
    return yielded.returned if keeps else value


def _values_of(call: Call) -> Any:
    """The generator itself, which a plain call of the body would read to its end."""
    owner, inputs = call.args
    return owner.call_body(inputs)


def _with_one_scope(call: Call) -> Call:
    """A call whose code submits to one scope, however often it is entered."""
    if SCOPE in call.variables:
        return call
    return replace(call, variables={**call.variables, SCOPE: BodyScope()})


def _stream(call: Call, yielded: Yielded) -> Generator[Any, Any, Answer]:
    """Values of a generator; its surroundings are there only while it runs.

    Its limit is looked at between two values: nothing ends it in between.
    """
    begin = time.time()
    yielded.begin()
    call = _with_one_scope(call)
    with surroundings(call):
        values = _values_of(call)
    go_on: Callable[[], Any] = partial(next, values)
    while True:
        if call.timeout is not None and time.time() - begin > call.timeout:
            with surroundings(call):
                abandoned(f"the task ran longer than {call.timeout:g} s")
                with contextlib.suppress(Exception):
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
        yielded.note(value)
        try:
            go_on = partial(values.send, (yield value))
        except GeneratorExit:
            with surroundings(call):
                try:
                    values.close()
                finally:
                    finished(None)
            raise
        except BaseException as error:  # the reader has thrown it in
            go_on = partial(values.throw, error)


async def drive_async_generator(
    steps: Steps[Any],
    body: Callable[..., Any],
    end: Callable[[Any], Any],
    keeps: bool = False,
) -> AsyncGenerator[Any, Any]:
    """Drive steps whose body is an asynchronous generator function."""
    go_on: Callable[[], Any] = partial(steps.send, None)
    yielded = Yielded(keeps)
    while True:
        try:
            effect = go_on()
        except StopIteration as stop:
            value = end(stop.value)
            break
        try:
            if isinstance(effect, Call) and effect.function is body:
                yielded.begin()
                stream = _AsyncStream(effect)
                is_left = False
                while (value := await stream.next()) is not _END:
                    yielded.note(value)
                    try:
                        stream.send((yield value))
                    except GeneratorExit:
                        is_left = True
                        await stream.close()
                    except BaseException as error:  # the reader has thrown it in
                        stream.throw(error)
                answer = yielded.answer(stream.answer)
                if is_left:
                    answer = yielded.answer_of_a_part()
            else:
                answer = await _carry_out_async(effect)
            go_on = partial(steps.send, answer)
        except BaseException as error:  # of a body that is closed, too
            go_on = partial(steps.throw, error)
    for item in yielded.left(value):
        yield item


#: Stands for the value after the last.
_END: Final = object()


class _AsyncStream:
    """Values of an asynchronous generator; see `_stream`.

    Parameters
    ----------
    call : Call
        The call of the body.
    """

    def __init__(self, call: Call) -> None:
        self._call = _with_one_scope(call)
        self._begin = time.time()
        with surroundings(self._call):
            self._values = _values_of(self._call)
        self._go_on: Callable[[], Awaitable[Any]] = self._values.__anext__
        self._is_open = True
        #: What came of the body, once there is no further value.
        self.answer: Answer = None

    def send(self, value: Any) -> None:
        """Go on with what the reader sent."""
        self._go_on = partial(self._values.asend, value)

    def throw(self, error: BaseException) -> None:
        """Go on with what the reader threw in."""
        self._go_on = partial(self._values.athrow, error)

    async def next(self) -> Any:
        """The next value; `_END` if there is none, and the answer then."""
        if not self._is_open:
            return _END
        with surroundings(self._call):
            try:
                return await self._value_in_time()
            except StopAsyncIteration:
                self.answer = Returned(await _finished(None))
            except _TooLate as late:
                await in_own_thread(partial(abandoned, "the task ran too long"))
                self.answer = Overran(late.limit, late.left_behind)
            except BaseException as error:
                await _ended_by(error)
                self.answer = Raised(error)
        self._is_open = False
        return _END

    async def _value_in_time(self) -> Any:
        limit = self._call.timeout
        if limit is None:
            return await self._go_on()
        task = asyncio.ensure_future(self._go_on())
        left = max(0.0, self._begin + limit - time.time())
        try:
            done, _ = await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        task.cancel()
        stopped, _ = await asyncio.wait({task}, timeout=GRACE)
        raise _TooLate(limit, left_behind=not stopped)

    async def close(self) -> None:
        """End the body, because the reader has what it wanted."""
        self._is_open = False
        with surroundings(self._call):
            try:
                await self._values.aclose()
            finally:
                await _finished(None)
        self.answer = Returned(None)


class _TooLate(Exception):
    """A generator reached its limit."""

    def __init__(self, limit: float, left_behind: bool) -> None:
        super().__init__(limit)
        self.limit = limit
        self.left_behind = left_behind
