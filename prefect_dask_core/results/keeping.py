"""Keeping: find the stored value of a run, and store one.

These functions do I/O and call what users wrote; the pipeline asks for them to be
called, as it does for a body. There is one way in which a value is kept, in a store
under a key; a `Result` of the graph generations takes the part of both.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from prefect_dask_core.config import (
    names_storage,
    persists_by_default,
    refreshes_by_default,
    results_dir,
)
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.naming import Template, format_run_name, template_variables
from prefect_dask_core.results.locks import (
    LOCKED,
    Held,
    LockManager,
    check_not_held,
    is_shared_with,
    locks_of,
)
from prefect_dask_core.results.places import (
    KeyContext,
    folder_name,
    key_of_policy,
    key_of_template,
    own_key,
)
from prefect_dask_core.results.policies import CachePolicy, IsolationLevel
from prefect_dask_core.results.result import PLACE_OF_RUN, LocalResult, Result
from prefect_dask_core.results.storage import is_memory
from prefect_dask_core.results.store import ResultStore, as_store
from prefect_dask_core.results.transactions import (
    Transaction,
    TransactionHook,
    get_transaction,
)

_LOGGER: Final = logging.getLogger("prefect_dask_core.results")
#: Context variable: what the flow of a run says of keeping values.
KEEPING: Final = "_keeping"
#: Context variable: id of the transaction whose commit a stored value waits for.
STAGED_IN: Final = "_staged_in"
#: Context variable: what of the own values of a node is not taken; a `MadeAnew`.
MADE_ANEW: Final = "_made_anew"


class MadeAnew(NamedTuple):
    """Own values that are not taken, because they were made of something else.

    Parameters
    ----------
    since : float
        When the run was resumed, in seconds since the epoch; later ones are taken.
    indexes : frozenset of int or None
        Children that they are of; `None`: all of the node.
    before : MadeAnew or None
        What was not taken when the run was resumed an earlier time.
    """

    since: float
    indexes: frozenset[int] | None = None
    before: MadeAnew | None = None

    def covers(self, index: int | None, created: float) -> bool:
        """Whether the value of a run is one of them."""
        if created < self.since and (self.indexes is None or index in self.indexes):
            return True
        return self.before is not None and self.before.covers(index, created)


@dataclass(frozen=True, slots=True)
class FlowKeeping:
    """What a flow run says of keeping values, for tasks that do not say.

    Parameters
    ----------
    result : Result, optional
        Where and how values are kept, in a graph flow.
    persist : bool
        Whether they are.
    store : ResultStore, optional
        Where they are.
    serializer : str or Serializer, optional
        How, where a task says where and not how.
    refresh : bool
        Whether kept values are never taken.
    folder : str, optional
        Where targets are that have neither a store nor a result.
    says_where : bool
        Whether the store was named, by a flow or by the settings.
    places : tuple of str
        Where a run that is resumed has stored its values: stores whose places are
        relative are meant to be there.
    """

    result: Result | None = None
    persist: bool = False
    store: ResultStore | None = None
    serializer: Any = None
    refresh: bool = False
    folder: str | None = None
    says_where: bool = False
    places: tuple[str, ...] = ()


def flow_keeping(
    result: Result | None = None,
    persist: bool | None = None,
    storage: Any = None,
    serializer: Any = None,
    around: FlowKeeping | None = None,
) -> FlowKeeping:
    """What a flow run says of keeping values.

    Worked out where the flow is run, and not where its tasks are: workers may have
    other settings.

    Parameters
    ----------
    result : Result, optional
        That of a graph flow.
    persist, storage, serializer : optional
        Options of the flow; one that says where or how also says that.
    around : FlowKeeping, optional
        What the flow around says.
    """
    said = storage is not None or serializer is not None
    if around is None:
        around = FlowKeeping(
            persist=persists_by_default(),
            store=ResultStore(),
            refresh=refreshes_by_default(),
            folder=results_dir(),
            says_where=names_storage(),
        )
    store = around.store if storage is None else storage
    if persist is None:
        persist = said or around.persist
    return FlowKeeping(
        result,
        persist,
        as_store(store, serializer),
        around.serializer if serializer is None else serializer,
        around.refresh,
        around.folder,
        storage is not None or around.says_where,
        around.places,
    )


@dataclass(frozen=True, slots=True)
class Keeper:
    """How the values of a task are kept in a flow run.

    Parameters
    ----------
    store : ResultStore or None
        Where; `None` if `result` says.
    result : Result or None
        Where and how, in the words of the graph generations.
    target : str, callable or None
        Template of the key, or of the location of `result`.
    policy : CachePolicy or None
        What gives the key, without a template.
    writes : bool
        Whether values are written, and not only taken.
    expiration : float or None
        Seconds for which a value may stand for that of another run.
    refresh : bool
        Whether a value of another run is never taken.
    in_memory : bool
        Whether a kept value also stays in memory.
    folder : str, optional
        Folder of the locations of a target without a result.
    is_of_flow : bool
        Whether flows of different names have different keys: the task does not name a
        store, and what others keep in a store that all share is not its own.
    """

    store: ResultStore | None
    result: Result | None = None
    target: Template | None = None
    policy: CachePolicy | None = None
    writes: bool = True
    expiration: float | None = None
    refresh: bool = False
    in_memory: bool = True
    folder: str | None = None
    is_of_flow: bool = False

    @property
    def is_locking(self) -> bool:
        """Whether one run at a time computes a key."""
        policy = self.policy
        return (
            policy is not None and policy.isolation_level is IsolationLevel.SERIALIZABLE
        )

    @property
    def local_place(self) -> str | None:
        """Where values are kept that not everybody sees; `None` if everybody does.

        A folder of this machine, or a ``"memory://"`` URL, which is of one process.
        """
        if self.store is not None:
            is_own = self.store.is_local or is_memory(self.store.url)
            return self.store.url if is_own else None
        if self.result is None:
            return self.folder
        return self.result.dir if isinstance(self.result, LocalResult) else None

    def locks(self) -> LockManager:
        """What lets one run at a time compute a key."""
        if self.policy is not None and self.policy.lock_manager is not None:
            found: LockManager = self.policy.lock_manager
            return found
        return locks_of(self.store)

    @property
    def locks_everywhere(self) -> bool:
        """Whether the lock of a key excludes those who want it in another store."""
        store, policy = self.store, self.policy
        if policy is not None and policy.lock_manager is not None:
            return True
        return store is None or store.lock_manager is not None or not store.is_local

    def key_store(self) -> ResultStore | None:
        """Where it is noted which keys are taken, if not beside the values."""
        if self.policy is None or self.policy.key_storage is None:
            return None
        return as_store(self.policy.key_storage)


def run_name(option: Any, variables: Mapping[str, Any], inputs: Any) -> str:
    """Name of a run from its option."""
    return format_run_name(option, template_variables(variables, inputs))


# -- looking -----------------------------------------------------------------------


class Place(NamedTuple):
    """What was found out about the value of a run before its body.

    Parameters
    ----------
    key : str or None
        Its key in the store; `None` where a `Result` has a location instead.
    own : str or None
        The key of the run itself, which may be the same.
    location : Result or None
        The `Result` with its location.
    found : str
        ``"nothing"``; ``"own"``, the run has stored its value before; ``"other"``, the
        value of another run stands for it; ``"busy"``, another run computes it.
    value : object
        The value that was found.
    holder : str or None
        Who has the lock of the key.
    """

    key: str | None
    own: str | None = None
    location: Result | None = None
    found: str = "nothing"
    value: Any = None
    holder: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other runs may have the key too."""
        return self.key != self.own


def look(keeper: Keeper, run: KeyContext, now: float) -> Place:
    """Find the key of a run, and its value if that is stored.

    Parameters
    ----------
    keeper : Keeper
        How the values of its task are kept.
    run : KeyContext
        The run.
    now : float
        Seconds since the epoch.
    """
    if keeper.store is None:
        return _look_for_location(keeper, run)
    own = own_key(run.variables)
    key = _key_of(keeper, run) or own
    holder = None
    held: Held = run.variables.get(LOCKED) or {}
    if (
        keeper.is_locking
        and key != own
        and not _has_lock(keeper.store, key)
        and not is_shared_with(held, (keeper.store.url, key))
    ):
        holder = own
        # Nobody waits in here: whoever waits lends its thread to others.
        if not keeper.locks().acquire_lock(key, holder, acquire_timeout=0):
            name = str(run.variables.get("task_full_name") or run.task.name)
            check_not_held(held, keeper.store.url, key, keeper.locks_everywhere, name)
            return Place(key, own, found="busy")
    place = Place(key, own, holder=holder)
    try:
        return _look_in(keeper, place, run.variables, now)
    except BaseException:
        give_back(keeper, place)
        raise


def locked_by(keeper: Keeper, place: Place | None, name: str) -> Held:
    """Locks that a run has while its body runs."""
    if place is None or place.holder is None or place.key is None:
        return {}
    assert keeper.store is not None
    return {(keeper.store.url, place.key): name}


def _has_lock(store: ResultStore, key: str) -> bool:
    """Whether the transaction in which a run is called has the lock of a key."""
    around = get_transaction()
    return around is not None and around.has_lock((store.url, key))


def _look_in(
    keeper: Keeper, place: Place, variables: Mapping[str, Any], now: float
) -> Place:
    assert keeper.store is not None
    assert place.key is not None
    notes = keeper.key_store()
    if notes is not None and notes.find(place.key) is None:
        return place
    record = keeper.store.find(place.key)
    if record is None:
        return place
    # A run that is made again, because it is resumed or because its worker died after
    # it had stored its value, has its own value whatever it would take of others.
    if record.metadata.run == place.own:
        anew: MadeAnew | None = variables.get(MADE_ANEW)
        # A key that other runs share is made of what the run reads.
        if anew is not None and not place.is_shared:
            created = record.metadata.created
            if anew.covers(variables.get("map_index"), created):
                return place
        return place._replace(found="own", value=record.value)
    if keeper.refresh or not place.is_shared or record.metadata.is_expired(now):
        return place
    return place._replace(found="other", value=record.value)


def _key_of(keeper: Keeper, run: KeyContext) -> str | None:
    if keeper.target is not None:
        key = key_of_template(keeper.target, run)
        if keeper.is_of_flow:
            return f"{folder_name(str(run.variables.get('flow_name')))}/{key}"
        return key
    return None if keeper.policy is None else key_of_policy(keeper.policy, run)


def give_back(keeper: Keeper, place: Place) -> None:
    """Free the lock of a key, or let it be freed when the value is written.

    That is at the end of the block around, if the run was called in one: until then
    others do not find it.
    """
    if place.holder is None or place.key is None or keeper.store is None:
        return
    free = partial(_free, keeper.locks(), place.key, place.holder)
    around = get_transaction()
    staged = None if around is None else around.staged_under(place.key)
    if staged is None:
        free()
    else:
        staged.hold((keeper.store.url, place.key), free)


def _free(locks: LockManager, key: str, holder: str) -> None:
    # Lost already if it was held for too long.
    with contextlib.suppress(ValueError):
        locks.release_lock(key, holder)


# -- storing -----------------------------------------------------------------------


class Origin(NamedTuple):
    """What metadata tell of the run that made a value."""

    task: str
    flow_run_id: str | None
    staged_in: str | None


def origin_of(task: str, variables: Mapping[str, Any]) -> Origin:
    """What metadata tell of a run."""
    return Origin(task, variables.get("flow_run_id"), variables.get(STAGED_IN))


def store_value(
    keeper: Keeper, place: Place, origin: Origin, now: float, value: Any
) -> None:
    """Store the value of a run."""
    if place.location is not None:
        place.location.write(value)
        return
    assert keeper.store is not None
    assert place.key is not None
    key, aside = place.key, origin.staged_in is not None
    length = keeper.expiration
    known: dict[str, Any] = {
        "expiration": None if length is None else now + length,
        "task": origin.task,
        "flow_run_id": origin.flow_run_id,
        "run": place.own,
    }
    if origin.staged_in is not None and place.own is not None:
        staged = staged_key(origin.staged_in, place.own)
        keeper.store.write(staged, value, **known, notes={"key": key})
    else:
        keeper.store.write(key, value, **known)
    notes = keeper.key_store()
    if notes is not None and not aside:
        # After the value: a key that is noted has one.
        notes.write(key, None, **known)


def staged_key(transaction: str, own: str) -> str:
    """Key of a value that waits for the commit of a transaction, by its run's own."""
    return f"staged/{transaction}/{own}"


def settle(
    transaction: Transaction,
    value: Any,
    on_rollback: tuple[TransactionHook, ...],
    on_commit: tuple[TransactionHook, ...],
) -> bool:
    """Stage the value of a run that ended well; commit it unless it has to wait.

    Returns
    -------
    bool
        Whether it is stored now.
    """
    transaction.stage(value, on_rollback, on_commit)
    transaction.end()
    return transaction.is_committed()


def publish(keeper: Keeper, transaction: str, own: str) -> None:
    """Put a value that waited for a commit in its place."""
    assert keeper.store is not None
    metadata = keeper.store.publish(staged_key(transaction, own))
    notes = keeper.key_store()
    if notes is not None:
        notes.write(metadata.key, None, metadata.expiration, run=own)


def is_staged(keeper: Keeper, transaction: str, own: str) -> bool:
    """Whether a value of a run waits for a commit."""
    assert keeper.store is not None
    return keeper.store.exists(staged_key(transaction, own))


def withdraw(keeper: Keeper, transaction: str, own: str) -> None:
    """Remove a value that waited for a commit."""
    assert keeper.store is not None
    keeper.store.delete(staged_key(transaction, own))


# -- results of the graph generations ------------------------------------------------


def _look_for_location(keeper: Keeper, run: KeyContext) -> Place:
    place = _location(keeper, run)
    if keeper.target is None or keeper.refresh:  # written, and not taken
        return Place(None, location=place)
    location = place.location
    if not isinstance(location, str) or not place.exists(location):
        return Place(None, location=place)
    try:
        value = place.read(location).value
    except MissingResult as error:
        _LOGGER.warning("%s; it counts as missing", error)
        return Place(None, location=place)
    return Place(None, location=place, found="other", value=value)


def _location(keeper: Keeper, run: KeyContext) -> Result:
    """Where the value of one run is stored."""
    result, target = keeper.result, keeper.target
    if result is not None:
        place = result if target is None else result.with_location(target)
    elif target is None:
        place = LocalResult(location=PLACE_OF_RUN)
    else:
        # All flows of a person share the default folder; values of another flow must
        # not be taken for those of this one only because their targets are called
        # alike.
        folder = folder_name(str(run.variables.get("flow_name")))
        whole = os.path.join(keeper.folder or results_dir(), folder)
        place = LocalResult(whole, location=target)
    return place.format(**template_variables(run.variables, run.parameters))
