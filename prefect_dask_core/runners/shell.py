"""Shell: calls user code in threads, ends it at its limit, and waits."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import inspect
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from prefect_dask_core.calls import SCOPE, BodyScope, abandoned, finished
from prefect_dask_core.context import (
    ContextBlock,
    RunVariables,
    reset_variables,
    set_variables,
    surrounding,
)
from prefect_dask_core.engine.compile import run_work
from prefect_dask_core.engine.effects import (
    Answer,
    AsyncCalls,
    Call,
    Overran,
    QuickCalls,
    QuickRaised,
    Raised,
    Returned,
)
from prefect_dask_core.engine.packing import SmallPart
from prefect_dask_core.engine.tallies import ONE_COMPLETED
from prefect_dask_core.engine.task_run import TaskRun
from prefect_dask_core.engine.whole import Outcome
from prefect_dask_core.results.transactions import TRANSACTION, Transaction
from prefect_dask_core.runners._private import LEND
from prefect_dask_core.runners.prints import are_captured, captured, released
from prefect_dask_core.runners.run_logger import run_logger

#: Seconds that code is given to end after it was asked to.
GRACE: Final = 0.5


class _Ended(BaseException):
    """Raised inside code that reached its limit."""


class ThreadShell:
    """Runs user code in the calling thread, or beside it where there is a limit.

    Notes
    -----
    Code with a limit runs in a thread of its own, so that the worker's thread is
    given back at the limit even if the code hangs in C, where no exception reaches
    it; such code is left behind.
    """

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, until: float) -> None:
        """Wait; a subclass lends the thread to others meanwhile."""
        delay = until - time.time()
        if delay > 0:
            time.sleep(delay)

    def call(self, call: Call) -> Answer:
        """Call user code; whatever it raises is an answer."""
        # Written out, and not `surroundings`: it runs for each of a million children.
        with ContextBlock({**call.variables, **_more(call)}), _prints_of(call):
            if call.timeout is None and not _loop_is_running():
                return _invoke(call, None)
            return self._beside(call)

    def async_calls(self) -> AsyncCalls | None:
        """None: coroutines take turns."""
        return None

    def quick_calls(
        self, task: Any, variables: Mapping[str, Any], mapped: bool
    ) -> QuickCalls | None:
        """What calls plain bodies here; `None` in a thread that runs an event loop."""
        if _loop_is_running() or variables.get("log_prints"):
            return None
        around = surrounding()
        step = {**around, **variables} if around else variables

        def call(
            body: Callable[..., Any],
            inputs: dict[str, Any],
            index: int,
            begin: float,
            by_keyword: bool,
        ) -> Any:
            child = index if mapped else None
            own = RunVariables(step, task, child, inputs, begin, _MADE_WHEN_READ)
            token = set_variables(own)
            try:
                value = body(**inputs) if by_keyword else body(inputs)
                if own.made is None:
                    return value
                value = finished(value)
                _end_transaction(own, Transaction.end)
                return value
            except BaseException as error:
                _end_transaction(own, Transaction.rollback)
                return QuickRaised(_raised(error).error)
            finally:
                reset_variables(token)

        return call

    def prepare_thread(self) -> Callable[[], None]:
        """What a thread beside the worker's has to do before it runs user code."""
        return _nothing

    def lend_place(self) -> None:
        """Let others use this thread's place: the body beside it waits for them."""

    def _beside(self, call: Call) -> Answer:
        runner = _Beside(call, self.prepare_thread())
        runner.start()
        if runner.attend(call.timeout, self.lend_place) or call.timeout is None:
            return runner.answer
        # A coroutine is cancelled by its own loop; an exception raised somewhere in
        # that loop would leave it half closed.
        if runner.is_async and runner.done.wait(2 * GRACE):
            return runner.answer
        # What the code itself submitted is not waited for any longer either.
        abandoned(f"the task ran longer than {call.timeout:g} s")
        runner.end()
        stopped = runner.done.wait(GRACE)
        return Overran(call.timeout, left_behind=not stopped)


class _Beside(threading.Thread):
    """A thread for one call."""

    def __init__(self, call: Call, prepare: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="prefect-dask-core-body")
        self._call = call
        self._prepare = prepare
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._over = False
        self._asked: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self.is_async = False
        self.done = threading.Event()
        self.answer: Answer = None

    def attend(self, timeout: float | None, lend: Callable[[], None]) -> bool:
        """Wait for the end, and do what is asked for meanwhile; whether it has ended.

        Only the thread that has a place in a pool can give it away.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                asked = self._asked.get(timeout=left)
            except queue.Empty:
                return self.done.is_set()
            if asked is None:
                return True
            lend()
            asked.set()

    def _lend(self) -> None:
        lent = threading.Event()
        self._asked.put(lent)
        # Nobody answers any more once the limit has been reached.
        lent.wait(GRACE)

    def run(self) -> None:
        self._context.run(LEND.set, self._lend)
        try:
            self._prepare()
            self.answer = self._context.run(self._invoke)
            with self._lock:
                self._over = True
        except _Ended:
            pass  # it arrived after the code, on the last steps of this thread
        finally:
            self.done.set()
            self._asked.put(None)

    def _invoke(self) -> Answer:
        return _invoke(self._call, self._call.timeout, self._note_async)

    def _note_async(self) -> None:
        self.is_async = True

    def end(self) -> None:
        """Ask the code to end, by an exception raised where it is."""
        with self._lock:
            if not self._over and self.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.ident), ctypes.py_object(_Ended)
                )


def _invoke(
    call: Call, timeout: float | None, on_async: Callable[[], None] | None = None
) -> Answer:
    try:
        value = call.function(*call.args, **call.kwargs)
        if inspect.iscoroutine(value):
            if on_async is not None:
                on_async()
            return _finished(asyncio.run(limited(value, timeout)))
        return Returned(finished(value))
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> Raised:
    """The answer that an exception is; inside of ``except`` only."""
    if isinstance(error, KeyboardInterrupt):
        abandoned("interrupted")
        if threading.current_thread() is threading.main_thread():
            raise error  # a person at the keyboard, not the task
    elif isinstance(error, _Ended):
        # The limit is that of something around this code, which is to end as a whole.
        abandoned("the limit of what it ran in has passed")
        raise error
    else:
        finished(None)  # nothing that was submitted is dropped
    return Raised(error)


def _finished(answer: Answer) -> Answer:
    if isinstance(answer, Returned):
        return Returned(finished(answer.value))
    return answer


async def limited(body: Coroutine[Any, Any, Any], timeout: float | None) -> Answer:
    """Await a coroutine; cancel it a little before its thread would be ended."""
    task = asyncio.ensure_future(body)
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if done:
        return Returned(task.result())
    task.cancel()
    stopped, _ = await asyncio.wait({task}, timeout=GRACE)
    assert timeout is not None
    return Overran(timeout, left_behind=not stopped)


@contextlib.contextmanager
def surroundings(call: Call) -> Iterator[None]:
    """What code sees around it: context variables, a logger, where prints go."""
    # Names were looked at when the run began.
    with ContextBlock({**call.variables, **_more(call)}), _prints_of(call):
        yield


def _more(call: Call) -> dict[str, Any]:
    # The function of a flow brings a scope of its own.
    scope = call.variables.get(SCOPE) or BodyScope()
    return {"logger": run_logger(call.variables), SCOPE: scope}


def _run_of(variables: RunVariables) -> TaskRun:
    """The run that some context variables are of, for those who ask about it."""
    return TaskRun(
        task=variables.task,
        name=variables.name,
        tally=ONE_COMPLETED,
        upstream=dict,
        inputs=lambda: variables.inputs,
        variables=variables,
        now=time.time,
        begin=variables.begin,
        started=True,
        given=variables.inputs,
    )


def _transaction_of(variables: RunVariables) -> Transaction:
    """The transaction of a run, for what its body calls."""
    found = Transaction(name=variables.name)
    found.begin()
    return found


def _end_transaction(own: RunVariables, end: Callable[[Transaction], Any]) -> None:
    """End the transaction of a run, if its body has asked for it."""
    found = (own.made or {}).get(TRANSACTION)
    if found is not None:
        end(found)


_MADE_WHEN_READ: Final[Mapping[str, Callable[[RunVariables], Any]]] = {
    "logger": run_logger,
    "_run": _run_of,
    SCOPE: lambda variables: BodyScope(),
    TRANSACTION: _transaction_of,
}


def _prints_of(call: Call) -> contextlib.AbstractContextManager[None]:
    if not call.log_prints:
        # A flow around may log its prints, and this task may not.
        return released() if are_captured() else contextlib.nullcontext()
    return captured(run_logger(call.variables))


def _loop_is_running() -> bool:
    """Whether this thread runs an event loop, as a notebook's main thread does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """A thread that needs no preparation."""


def run_compiled(
    header: bytes, inline: Sequence[SmallPart], record: Any, *arguments: Any
) -> Outcome:
    """Run a node of a compiled collection, on whatever scheduler computes it."""
    return run_work(header, inline, record, arguments, ThreadShell())
