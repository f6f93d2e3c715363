"""Blocks: transactions of users, as ``with transaction():``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

from prefect_dask_core.context import context
from prefect_dask_core.errors import OptionValueError, TransactionError
from prefect_dask_core.results.locks import (
    LAST_LOOK,
    LOCKED,
    Held,
    check_not_held,
    is_shared_with,
    locks_of,
)
from prefect_dask_core.results.policies import IsolationLevel, as_isolation_level
from prefect_dask_core.results.store import ResultStore, as_store
from prefect_dask_core.results.transactions import (
    TRANSACTION,
    CommitMode,
    Transaction,
    TransactionState,
    get_transaction,
)

_LOGGER: Final = logging.getLogger("prefect_dask_core.transactions")


class _Block:
    """What a `transaction` block does at its begin and at its end."""

    def __init__(
        self,
        key: str | None,
        store: Any,
        commit_mode: CommitMode | str | None,
        isolation_level: IsolationLevel | str | None,
        overwrite: bool,
        write_on_commit: bool,
        logger: Any,
    ) -> None:
        level = None if isolation_level is None else as_isolation_level(isolation_level)
        self._store = as_store(store) if key is not None else None
        self._overwrite = overwrite
        self._logger = logger
        self.txn = Transaction(
            key,
            get_transaction(),
            None if commit_mode is None else as_commit_mode(commit_mode),
            level,
            write=self._write if key is not None and write_on_commit else None,
        )
        self.txn.is_block = True
        self._is_left = False

    def _write(self, value: Any) -> None:
        assert self._store is not None
        assert self.txn.key is not None
        self._store.write(self.txn.key, value)

    def begin(self) -> None:
        txn, store = self.txn, self._store
        txn.begin()
        if txn.key is None or store is None:
            return
        try:
            if txn.isolation_level is IsolationLevel.SERIALIZABLE:
                self._lock(txn.key, store)
            found = None if self._overwrite else store.find(txn.key)
        except BaseException:
            txn.rollback()
            txn.free_locks()
            raise
        if found is not None:
            txn.stage(found.value)
            txn.state = TransactionState.COMMITTED
            txn.free_locks()

    def _lock(self, key: str, store: ResultStore) -> None:
        locks, txn = locks_of(store), self.txn
        locked = store.url, key
        held: Held = context.get(LOCKED) or {}
        everywhere = store.lock_manager is not None or not store.is_local
        while not (txn.has_lock(locked) or is_shared_with(held, locked)):
            # Who waits looks up now and then, whether it is still waited for.
            if locks.acquire_lock(key, txn.id, acquire_timeout=LAST_LOOK):
                txn.hold(locked, partial(locks.release_lock, key, txn.id))
            else:
                check_not_held(held, store.url, key, everywhere, txn.name)
            if self._is_left:
                raise TransactionError(f"nobody waits for {txn.name!r} any more.")

    def leave(self) -> None:
        """Give up, whether it has begun or still waits for a lock in its thread."""
        self._is_left = True
        self.txn.rollback()
        self.txn.free_locks()

    def end(self) -> None:
        self.txn.end()

    def fail(self, error: BaseException) -> None:
        logger = self._logger or _LOGGER
        logger.info("transaction %r is rolled back: %r", self.txn.name, error)
        self.txn.rollback()


def as_commit_mode(given: CommitMode | str) -> CommitMode:
    """A commit mode by its name."""
    try:
        return CommitMode(given)
    except ValueError:
        known = ", ".join(mode.value for mode in CommitMode)
        raise OptionValueError(
            f"there is no commit mode {given!r}; the modes are {known}."
        ) from None


@contextmanager
def transaction(
    key: str | None = None,
    store: Any = None,
    commit_mode: CommitMode | str | None = None,
    isolation_level: IsolationLevel | str | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> Iterator[Transaction]:
    """A block whose runs count together: all, or none if an exception leaves it.

    Parameters
    ----------
    key : str, optional
        Key under which a value that the block stages is written. If one is kept there
        already, the transaction is committed from the begin, and `read` gives it.
    store : ResultStore, str or path, optional
        Where that is; the default store unless given.
    commit_mode : CommitMode or str, optional
        ``"LAZY"``: at the end of the outermost block; ``"EAGER"``: at its own end;
        ``"OFF"``: never, it is rolled back. That of the block around unless given.
    isolation_level : IsolationLevel or str, optional
        ``"SERIALIZABLE"``: others that want the key wait until the value is written or
        undone, which is at the end of the outermost block unless it is ``"EAGER"``.
    overwrite : bool
        Whether a value that is kept under the key is not looked at.
    write_on_commit : bool
        Whether the staged value is written.
    logger : logging.Logger, optional
        Told of a rollback.

    Notes
    -----
    Source of the rules: transactions of 3.x. An exception that is caught inside of the
    block around rolls back the inner block only (decision F18).

    Examples
    --------
    >>> from prefect_dask_core.tasks import Task
    >>> load = Task(print, name="load", on_rollback=[lambda txn: print("undone")])
    >>> try:
    ...     with transaction():
    ...         load("loaded")
    ...         raise ValueError("no")
    ... except ValueError as error:
    ...     print(error)
    loaded
    undone
    no
    """
    block = _Block(
        key,
        store,
        commit_mode,
        isolation_level,
        overwrite,
        write_on_commit,
        logger,
    )
    block.begin()
    with context({TRANSACTION: block.txn}):
        try:
            yield block.txn
        except BaseException as error:
            block.fail(error)
            raise
        block.end()


@asynccontextmanager
async def atransaction(
    key: str | None = None,
    store: Any = None,
    commit_mode: CommitMode | str | None = None,
    isolation_level: IsolationLevel | str | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> AsyncIterator[Transaction]:
    """A `transaction` for ``async with``; the event loop goes on while it waits."""
    block = _Block(
        key,
        store,
        commit_mode,
        isolation_level,
        overwrite,
        write_on_commit,
        logger,
    )
    begun = asyncio.ensure_future(asyncio.to_thread(block.begin))
    try:
        await asyncio.shield(begun)
    except asyncio.CancelledError:
        # Its thread may wait for the lock a little longer; nobody asks how that ends.
        begun.add_done_callback(lambda done: done.cancelled() or done.exception())
        block.leave()
        raise
    with context({TRANSACTION: block.txn}):
        try:
            yield block.txn
        except BaseException as error:
            await asyncio.to_thread(block.fail, error)
            raise
        await asyncio.to_thread(block.end)
