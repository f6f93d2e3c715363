"""Store: where results live, a folder or whatever has an `fsspec` URL.

A value is kept under a key, in one record with its metadata. A record that is damaged
counts as missing, and a warning says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from prefect_dask_core.config import default_serializer, default_storage
from prefect_dask_core.errors import MissingResult, OptionTypeError, StoreError
from prefect_dask_core.results.metadata import (
    DamagedRecord,
    ResultMetadata,
    pack_record,
    unpack_record,
)
from prefect_dask_core.results.serializers import as_serializer, label_of
from prefect_dask_core.results.storage import (
    LocalStorage,
    RemoteStorage,
    Storage,
    is_url,
)

_LOGGER: Final = logging.getLogger("prefect_dask_core.results")
#: Characters of a key that is a hash; such keys are spread over folders.
HASH_LENGTH: Final = 32
#: Bytes of the longest part of a key: the longest name of a file.
LONGEST_PART: Final = 255
#: Characters of a wrong key that are shown.
_SHOWN: Final = 80
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """A value with its metadata.

    Parameters
    ----------
    value : object
        The value.
    metadata : ResultMetadata
        What is known of it.
    """

    value: Any
    metadata: ResultMetadata


class ResultStore:
    """Values under keys.

    Parameters
    ----------
    storage : str or path, optional
        A folder, or a URL that `fsspec` knows, such as ``"s3://bucket/results"``; that
        of the setting ``prefect-dask-core.result-storage`` unless given, else the
        folder of ``prefect-dask-core.results-dir``.
    serializer : str or Serializer, optional
        How values become bytes: ``"pickle"``, ``"json"``, ``"compressed/pickle"``,
        ``"compressed/json"``, or an object with ``dumps`` and ``loads``; that of the
        setting ``prefect-dask-core.result-serializer`` unless given.
    storage_options : mapping of str to object, optional
        Arguments of the file system of a URL, such as keys and the endpoint.
    lock_manager : LockManager, optional
        What lets one run at a time compute a key; see `results.locks`.

    Notes
    -----
    Nothing is made or opened before something is written or read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ResultStore(folder)
    ...     written = store.write("monday/total", 12)
    ...     store.read("monday/total").value, store.exists("tuesday/total")
    (12, False)
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | None = None,
        serializer: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        lock_manager: Any = None,
    ) -> None:
        given = default_storage() if storage is None else storage
        if not isinstance(given, str | os.PathLike):
            raise OptionTypeError(
                f"result storage {given!r}: expected a folder, or a URL that fsspec "
                'knows, such as "s3://bucket/results", or a ResultStore.'
            )
        place = os.fspath(given)
        if place.startswith("file://"):
            place = place.removeprefix("file://")
        # Worked out here and not where the store is used: all workers then agree.
        self.is_local = not is_url(place)
        self.url = (
            os.path.abspath(os.path.expanduser(place)) if self.is_local else place
        )
        #: The place as it was given, if that depends on the folder of the process.
        self.relative: str | None = None
        if self.is_local and not os.path.isabs(os.path.expanduser(place)):
            self.relative = os.path.normpath(place)
        self.storage_options = dict(storage_options or {})
        self.serializer = as_serializer(
            default_serializer() if serializer is None else serializer
        )
        self._label = label_of(self.serializer)
        self.lock_manager = lock_manager
        self._storage: Storage = (
            LocalStorage(self.url)
            if self.is_local
            else RemoteStorage(self.url, self.storage_options)
        )

    def with_serializer(self, serializer: Any) -> ResultStore:
        """The store with another serializer."""
        return self._at(self.url, serializer)

    def at_one_of(self, places: Collection[str]) -> ResultStore:
        """The store at the place that an earlier process gave it.

        Parameters
        ----------
        places : collection of str
            Where values were stored. A store whose place was given relative to the
            folder of its process is meant by one that ends alike.

        Examples
        --------
        >>> store = ResultStore("results")
        >>> store.at_one_of(["/data/monday/results", "/data/other"]).url
        '/data/monday/results'
        >>> ResultStore("/data/results").at_one_of(["/data/monday/results"]).url
        '/data/results'
        """
        if self.relative is None or not places or self.url in places:
            return self
        end = os.sep + self.relative
        found = [place for place in places if place.endswith(end)]
        # Of two nobody knows which is meant.
        return self._at(found[0], self.serializer) if len(found) == 1 else self

    def _at(self, url: str, serializer: Any) -> ResultStore:
        return _rebuilt(
            url, serializer, self.storage_options, self.lock_manager, self.relative
        )

    def has_values_of(self, run_id: str) -> bool | None:
        """Whether values of a flow run are kept here; `None` if that is not known.

        Parameters
        ----------
        run_id : str
            Hexadecimal id of the flow run.

        Notes
        -----
        Values under keys that other runs share say in their metadata whose they are.
        They are read in a folder that has up to 1,000 of them, which takes 0.1 s; a
        larger one, and what is not a folder, may have others.
        """
        if self._storage.names(f"runs/{run_id}"):
            return True
        if not isinstance(self._storage, LocalStorage):
            return None
        names = self._storage.names("")
        shared = [name for name in names if not name.startswith(("runs/", "."))]
        if len(shared) > _MOST_READ:
            return None
        for name in shared:
            with contextlib.suppress(DamagedRecord, OSError):
                metadata, _ = unpack_record(self._storage.read(name))
                if metadata.flow_run_id == run_id:
                    return True
        return False

    # -- values -----------------------------------------------------------------

    def write(
        self, key: str, value: Any, expiration: float | None = None, **known: Any
    ) -> ResultMetadata:
        """Keep a value.

        Parameters
        ----------
        key : str
            Its key; a path of parts between slashes.
        value : object
            The value; `None` is a value like any other.
        expiration : float, optional
            Seconds since the epoch from which on it stands for no other run.
        **known
            Further fields of its `ResultMetadata`.

        Raises
        ------
        Exception
            What the serializer or the file system raises.
        """
        name = name_of(key)
        blob = self.serializer.serialize(value)
        metadata = ResultMetadata(
            key,
            self._label,
            len(blob),
            time.time(),
            expiration,
            **known,
        )
        self._storage.write(name, pack_record(metadata, blob))
        return metadata

    def read(self, key: str) -> ResultRecord:
        """Value of a key, expired or not.

        Raises
        ------
        MissingResult
            If nothing is kept under the key, or nothing that can be read.
        """
        found = self._read(key)
        if isinstance(found, str):
            raise MissingResult(f"the result {key!r} in {self.url} {found}")
        return found

    def find(self, key: str) -> ResultRecord | None:
        """Value of a key, expired or not; `None`, and a warning, if it is damaged."""
        found = self._read(key)
        if not isinstance(found, str):
            return found
        if found is not _NOT_THERE:
            _LOGGER.warning(
                "the result %r in %s %s; it counts as missing", key, self.url, found
            )
        return None

    def _read(self, key: str) -> ResultRecord | str:
        """A record, or why there is none."""
        try:
            blob = self._storage.read(name_of(key))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return _NOT_THERE
        except (ConnectionError, TimeoutError):
            # Nothing is known of the record: what is there must not run again.
            raise
        except OSError as error:
            return f"cannot be read: {type(error).__name__}: {error}"
        try:
            metadata, value = unpack_record(blob)
        except DamagedRecord as error:
            return f"is damaged: {error}"
        if metadata.key != key:
            return f"is damaged: it was written as {metadata.key!r}"
        try:
            return ResultRecord(self.serializer.deserialize(value), metadata)
        except Exception as error:  # a class that has moved, another serializer
            return (
                f"cannot be read: it was written by the serializer "
                f"{metadata.serializer!r} and read by {self._label!r}: "
                f"{type(error).__name__}: {error}"
            )

    def exists(self, key: str) -> bool:
        """Whether something is kept under a key."""
        return self._storage.exists(name_of(key))

    def delete(self, key: str) -> None:
        """Forget a value; nothing happens if there is none."""
        self._storage.delete(name_of(key))

    def list_keys(self, under: str = "") -> list[str]:
        """Keys that begin with some parts, in no order."""
        top = name_of(under) if under else ""
        return sorted(map(_key_of, self._storage.names(top)))

    async def awrite(self, key: str, value: Any, **known: Any) -> ResultMetadata:
        """Keep a value, without holding the event loop; see `write`."""
        return await asyncio.to_thread(self.write, key, value, **known)

    async def aread(self, key: str) -> ResultRecord:
        """Value of a key, without holding the event loop; see `read`."""
        return await asyncio.to_thread(self.read, key)

    async def aexists(self, key: str) -> bool:
        """Whether something is kept under a key, without holding the event loop."""
        return await asyncio.to_thread(self.exists, key)

    # -- staging ----------------------------------------------------------------

    def publish(self, staged: str) -> ResultMetadata:
        """Put a value that was written aside under the key that it notes."""
        metadata, value = unpack_record(self._storage.read(name_of(staged)))
        told = replace(metadata, key=str(metadata.notes["key"]), notes={})
        self._storage.write(name_of(told.key), pack_record(told, value))
        self.delete(staged)
        return told

    # -- a value ----------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResultStore):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self.url)

    def _identity(self) -> tuple[Any, ...]:
        return self.url, self.storage_options, self.serializer, self.lock_manager

    def __repr__(self) -> str:
        # Without the options, which may hold a secret.
        return f"ResultStore({self.url!r}, {self._label!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (
            self.url,
            self.serializer,
            self.storage_options,
            self.lock_manager,
            self.relative,
        )


def _rebuilt(
    url: str,
    serializer: Any,
    storage_options: Mapping[str, Any],
    lock_manager: Any,
    relative: str | None,
) -> ResultStore:
    found = ResultStore(url, serializer, storage_options, lock_manager)
    found.relative = relative
    return found


#: Most records that are read to know whose they are.
_MOST_READ: Final = 1000
_NOT_THERE: Final = "is not there"


def as_store(storage: Any, serializer: Any = None) -> ResultStore:
    """Store of what people give as one.

    Parameters
    ----------
    storage : ResultStore, str, path or None
        A store as it is; else the place of one.
    serializer : str or Serializer, optional
        Serializer, in the place of the store's own.
    """
    if isinstance(storage, ResultStore):
        return storage if serializer is None else storage.with_serializer(serializer)
    return ResultStore(storage, serializer)


def name_of(key: str) -> str:
    """Name in the storage of a key: hashes are spread over 256 folders.

    Raises
    ------
    StoreError
        If the key is no path inside of the store, or one that no file can have: a
        part of it may come from the value of an input.

    Examples
    --------
    >>> name_of("monday/total"), name_of("0123456789abcdef0123456789abcdef")
    ('monday/total', 'cache/01/0123456789abcdef0123456789abcdef')
    >>> name_of("../total")
    Traceback (most recent call last):
    prefect_dask_core.errors.StoreError: '../total' is no key of a result: it leads \
out of the store.
    """
    if len(key) == HASH_LENGTH and _HEXADECIMAL.issuperset(key):
        return f"cache/{key[:2]}/{key}"
    if not key or "\n" in key or "\0" in key:
        raise _no_key(key, "it is empty, or has a line break or a zero in it")
    parts = key.split("/")
    if "" in parts:
        raise _no_key(key, "a key is a path of parts between slashes")
    if "." in key and (".." in parts or "." in parts):
        raise _no_key(key, "it leads out of the store")
    # No character has more than four bytes; most keys are short.
    if len(key) > LONGEST_PART // 4:
        longest = max(len(part.encode(errors="surrogatepass")) for part in parts)
        if longest > LONGEST_PART:
            raise _no_key(
                key,
                f"a part of it has {longest} bytes, and file systems take "
                f"{LONGEST_PART}; put a hash of it in its place",
            )
    return key


def _no_key(key: str, why: str) -> StoreError:
    shown = key if len(key) <= _SHOWN else f"{key[:_SHOWN]}..."
    return StoreError(f"{shown!r} is no key of a result: {why}.")


def _key_of(name: str) -> str:
    last = name.rpartition("/")[2]
    return last if name == f"cache/{last[:2]}/{last}" else name
