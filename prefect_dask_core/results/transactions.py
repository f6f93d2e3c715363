"""Transactions: writes and hooks that count together, or not at all.

A run that succeeds stages its value and its hooks. They are committed when the
outermost transaction around it ends well: those inside first, in the order in which
they ended, and of each first the hooks, then the write. If it does not, nothing is
written, and the rollback hooks are called, the last first.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import inspect
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

from prefect_dask_core.context import context
from prefect_dask_core.errors import TransactionError
from prefect_dask_core.results.locks import Locked
from prefect_dask_core.results.policies import IsolationLevel

_LOGGER: Final = logging.getLogger("prefect_dask_core.transactions")
#: Context variable: the innermost transaction.
TRANSACTION: Final = "_transaction"
#: A hook is called with its transaction; what it returns is ignored, or awaited.
TransactionHook = Callable[[Any], Any]


class CommitMode(str, enum.Enum):
    """When a transaction that ended well is committed."""

    #: With the one around it, or at its end if there is none.
    LAZY = "LAZY"
    #: At its own end.
    EAGER = "EAGER"
    #: Never: it is rolled back at its end.
    OFF = "OFF"


class TransactionState(str, enum.Enum):
    """How far a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class Adopted(Protocol):
    """Runs elsewhere that belong to a transaction here."""

    def transactions(self, parent: Transaction) -> Iterable[Transaction]:
        """A staged transaction for each that succeeded; waits for their end."""


_NOT_GIVEN: Final = object()


class Transaction:
    """A unit of writes and hooks; see `transaction_blocks.transaction`.

    Parameters
    ----------
    key : str, optional
        Key under which a staged value is written.
    parent : Transaction, optional
        The one around it.
    commit_mode : CommitMode, optional
        That of the parent unless given, else `LAZY`.
    isolation_level : IsolationLevel, optional
        That of the parent unless given, else `READ_COMMITTED`.
    write : callable, optional
        Given the staged value, writes it.
    name : str, optional
        Name for messages.
    """

    #: Key under which a staged value is written.
    key: str | None = None
    #: How far it is.
    state: TransactionState = TransactionState.PENDING
    #: Whether it was opened by `transaction`, and not by a task run.
    is_block: bool = False
    _given_mode: CommitMode | None = None
    _given_level: IsolationLevel | None = None
    _write: Callable[[Any], Any] | None = None
    _discard: Callable[[], Any] | None = None
    _values: Mapping[str, Any] = MappingProxyType({})
    _staged: Any = _NOT_GIVEN
    _commit_hooks: tuple[TransactionHook, ...] = ()
    _rollback_hooks: tuple[TransactionHook, ...] = ()
    _children: list[Transaction | Adopted] | None = None
    _locks: list[tuple[Locked, Callable[[], Any]]] | None = None
    #: Of the outermost one: who holds the locks that it and those inside hold.
    _holders: dict[Locked, Transaction] | None = None
    _id: str | None = None

    def __init__(
        self,
        key: str | None = None,
        parent: Transaction | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        write: Callable[[Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.parent = parent
        self.name = name or key or "transaction"
        # Each attempt of each run has one, and most never hold anything.
        if key is not None:
            self.key = key
        if commit_mode is not None:
            self._given_mode = commit_mode
        if isolation_level is not None:
            self._given_level = isolation_level
        if write is not None:
            self._write = write

    @property
    def id(self) -> str:
        """What tells it from all others."""
        if self._id is None:
            self._id = uuid.uuid4().hex
        return self._id

    @property
    def commit_mode(self) -> CommitMode:
        """When it is committed."""
        if self._given_mode is not None:
            return self._given_mode
        return CommitMode.LAZY if self.parent is None else self.parent.commit_mode

    @property
    def isolation_level(self) -> IsolationLevel:
        """Whether others may compute its key at the same time."""
        if self._given_level is not None:
            return self._given_level
        if self.parent is None:
            return IsolationLevel.READ_COMMITTED
        return self.parent.isolation_level

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it has begun, and nothing is staged yet."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Whether it ended well, and waits for its commit."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether it counts."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it does not count."""
        return self.state is TransactionState.ROLLED_BACK

    # -- values -----------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Note a value for the hooks, and for transactions inside of this one."""
        self._values = {**self._values, name: value}

    def get(self, name: str, default: Any = _NOT_GIVEN) -> Any:
        """A copy of a value that was noted here or in a transaction around.

        Raises
        ------
        TransactionError
            If there is none and no default; also a `ValueError`.
        """
        found: Transaction | None = self
        while found is not None:
            if name in found._values:
                # A copy: what one hook changes is not what another one sees.
                return copy.deepcopy(found._values[name])
            found = found.parent
        if default is _NOT_GIVEN:
            raise TransactionError(
                f"the transaction {self.name!r} has no value {name!r}, nor has one "
                f"around it; note it with set({name!r}, ...), or give a default."
            )
        return default

    @property
    def values(self) -> Mapping[str, Any]:
        """What was noted here."""
        return self._values

    def read(self) -> Any:
        """The staged value; `None` if there is none."""
        return None if self._staged is _NOT_GIVEN else self._staged

    # -- steps ------------------------------------------------------------------

    def begin(self) -> None:
        """Become active."""
        self.state = TransactionState.ACTIVE

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Iterable[TransactionHook] | None = None,
        on_commit_hooks: Iterable[TransactionHook] | None = None,
    ) -> None:
        """Hand in a value and hooks; they count once the transaction is committed.

        Parameters
        ----------
        value : object
            What is written under the key, if there is one.
        on_rollback_hooks, on_commit_hooks : iterable of callables (transaction)
            Called, the former the last first, when it is rolled back or committed.
        """
        if self.is_committed() or self.is_rolled_back():
            raise TransactionError(
                f"the transaction {self.name!r} is {self.state.value} and takes no "
                "value any more."
            )
        self._staged = value
        self._rollback_hooks = tuple(on_rollback_hooks or ())
        self._commit_hooks = tuple(on_commit_hooks or ())
        self.state = TransactionState.STAGED

    def adopt(self, runs: Adopted) -> None:
        """Take runs elsewhere along: they are committed or rolled back with this.

        Their place is that of now: what is called later may build on them, and is
        undone before them.
        """
        self._take(runs)

    def take(self, child: Transaction) -> None:
        """Take a staged transaction along: it is committed or rolled back with this."""
        self._take(child)

    def _take(self, inside: Transaction | Adopted) -> None:
        if self._children is None:
            self._children = []
        self._children.append(inside)

    @property
    def children(self) -> Sequence[Transaction]:
        """Staged ones inside of it, in their order; not those still elsewhere.

        A transaction has the place in which it ended, runs elsewhere that in which they
        were submitted.
        """
        inside = self._children or ()
        return [child for child in inside if isinstance(child, Transaction)]

    def gather(self) -> None:
        """Wait for the runs elsewhere, and take their transactions as children."""
        inside = self._children or []
        position = 0
        while position < len(inside):
            child = inside[position]
            if isinstance(child, Transaction):
                position += 1
            else:
                # Out before it is waited for: whoever interrupts that waits only once.
                del inside[position]
                inside[position:position] = child.transactions(self)

    def write_with(
        self,
        write: Callable[[Any], Any],
        key: str | None = None,
        discard: Callable[[], Any] | None = None,
    ) -> None:
        """Say what writes the staged value, or does away with it at a rollback."""
        self._write = write
        self._discard = discard
        self.key = key

    @property
    def writes(self) -> bool:
        """Whether a staged value is written."""
        return self._write is not None

    @property
    def has_content(self) -> bool:
        """Whether its commit or rollback does anything."""
        return bool(
            self._children
            or self._commit_hooks
            or self._rollback_hooks
            or self._write is not None
            or self._locks
        )

    # -- locks ------------------------------------------------------------------

    @property
    def root(self) -> Transaction:
        """The outermost one around."""
        found = self
        while found.parent is not None:
            found = found.parent
        return found

    def staged_under(self, key: str) -> Transaction | None:
        """The last one directly inside that ended well and is to write a key."""
        for child in reversed(self.children):
            if child.key == key and child.is_staged() and child.writes:
                return child
        return None

    def hold(self, locked: Locked, free: Callable[[], Any]) -> None:
        """Keep a lock until it is committed or rolled back.

        Others who wait for a key find its value only then.
        """
        self._locks = [*(self._locks or ()), (locked, free)]
        root = self.root
        root._holders = {**(root._holders or {}), locked: self}

    def has_lock(self, locked: Locked) -> bool:
        """Whether it need not wait for a lock: its outermost transaction has that.

        One that runs beside it, as coroutines do, still excludes it.
        """
        holder = (self.root._holders or {}).get(locked)
        if holder is None:
            return False
        found: Transaction | None = self
        while found is not None and found is not holder:
            found = found.parent
        return found is holder or holder.is_staged()

    @property
    def held(self) -> frozenset[Locked]:
        """The locks that it holds, and those around and inside of it."""
        return frozenset(self.root._holders or ())

    def free_locks(self) -> None:
        """Give back the locks that were kept."""
        locks, self._locks = self._locks, None
        for locked, free in locks or ():
            root = self.root
            root._holders = {
                k: v for k, v in (root._holders or {}).items() if k != locked
            }
            free()

    def end(self) -> None:
        """End well: be committed now, or with the transaction around.

        Raises
        ------
        Exception
            What a write raised; the transactions it was not of are committed.
        """
        if self.is_committed() or self.is_rolled_back():
            return
        mode = self.commit_mode
        if mode is CommitMode.OFF:
            self.rollback()
        elif self.parent is None or mode is CommitMode.EAGER:
            self.commit()
        else:
            self.state = TransactionState.STAGED
            if self.has_content:
                self.parent.take(self)

    def commit(self) -> bool:
        """Call the commit hooks and write, those of the transactions inside first.

        Returns
        -------
        bool
            Whether it counts now: if a commit hook raised, it was rolled back.

        Raises
        ------
        Exception
            What a write raised: the transaction it was of is rolled back.
        """
        if self.is_committed() or self.is_rolled_back():
            return self.is_committed()
        try:
            return self._commit()
        finally:
            self.free_locks()

    def _commit(self) -> bool:
        failed: list[Exception] = []
        self.gather()
        for child in self.children:
            try:
                child.commit()
            except Exception as error:
                failed.append(error)
        try:
            for hook in self._commit_hooks:
                _call(hook, self)
        except Exception as error:
            _LOGGER.error(
                "transaction %r: a commit hook raised, so it is rolled back",
                self.name,
                exc_info=error,
            )
            self.rollback()
            return False
        if self._write is not None and self._staged is not _NOT_GIVEN:
            try:
                self._write(self._staged)
            except Exception as error:
                self.rollback()
                failed.append(error)
        if not self.is_rolled_back():
            self.state = TransactionState.COMMITTED
        if failed:
            raise failed[0]
        return self.is_committed()

    def rollback(self) -> bool:
        """Call the rollback hooks, those of the transactions inside after its own.

        Returns
        -------
        bool
            Whether it is rolled back: what is committed stays.

        Notes
        -----
        A hook that raises is logged, and the further hooks of its transaction are not
        called; all other transactions still roll back.
        """
        if self.is_committed() or self.is_rolled_back():
            return self.is_rolled_back()
        try:
            return self._rollback()
        finally:
            self.free_locks()

    def _rollback(self) -> bool:
        self.gather()
        self.state = TransactionState.ROLLED_BACK
        try:
            for hook in reversed(self._rollback_hooks):
                _call(hook, self)
        except Exception as error:
            _LOGGER.error(
                "transaction %r: a rollback hook raised; its further hooks are skipped",
                self.name,
                exc_info=error,
            )
        if self._discard is not None:
            try:
                self._discard()
            except Exception as error:
                _LOGGER.warning(
                    "transaction %r: what it had staged was not removed: %s",
                    self.name,
                    error,
                )
        for child in reversed(self.children):
            child.rollback()
        return True

    def __repr__(self) -> str:
        return f"<Transaction {self.name!r}: {self.state.value}>"


def _call(hook: TransactionHook, txn: Transaction) -> None:
    """Call a hook; one that is asynchronous is awaited in a thread of its own."""
    answer = hook(txn)
    if not inspect.isawaitable(answer):
        return
    raised: list[BaseException] = []

    async def wait() -> None:
        await answer

    def run() -> None:
        try:
            asyncio.run(wait())
        except BaseException as error:
            raised.append(error)

    # The thread here may run an event loop already.
    thread = threading.Thread(target=run, name="prefect-dask-core-hook")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def get_transaction() -> Transaction | None:
    """The innermost transaction the caller stands in; `None` outside of any."""
    found: Transaction | None = context.get(TRANSACTION)
    return found
