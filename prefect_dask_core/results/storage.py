"""Storage: bytes under names, in a folder or behind an `fsspec` URL.

Nobody ever sees a part of what is written: a local file is written aside and then moved
in its place, an object of a bucket is there once the whole of it is, and elsewhere the
bytes are written aside and moved by the file system. Nothing is opened before the first
read or write.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

from prefect_dask_core.errors import StoreError

#: Protocols whose files appear as a whole, so that they need not be moved: buckets,
#: where a move is a copy, and the memory of this process.
_WHOLE_AT_ONCE: Final = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "s3", "s3a"}
)
_URL: Final = re.compile(r"[A-Za-z][\w+.-]*://|[a-z][a-z0-9+.-]*::")


def is_url(place: str) -> bool:
    """Whether a place is named by a URL, and not by a path.

    Examples
    --------
    >>> is_url("s3://bucket/results"), is_url("/data/results"), is_url("C:/data")
    (True, False, False)
    """
    return _URL.match(place) is not None


def is_memory(place: str) -> bool:
    """Whether a place is the memory of one process.

    Examples
    --------
    >>> is_memory("memory://results"), is_memory("/data/memory"), is_memory("s3://a")
    (True, False, False)
    """
    return place.startswith("memory://")


class Storage(Protocol):
    """Bytes under names; a name is a path of parts between slashes."""

    def read(self, name: str) -> bytes:
        """Bytes of a name; `FileNotFoundError` if there are none."""

    def write(self, name: str, blob: bytes) -> None:
        """Put bytes in the place of a name, all of them or none."""

    def exists(self, name: str) -> bool:
        """Whether there are bytes under a name."""

    def delete(self, name: str) -> None:
        """Forget a name; nothing happens if it is unknown."""

    def names(self, under: str) -> list[str]:
        """Names in a folder and below, in no order."""


class LocalStorage:
    """Files of a folder of this machine.

    Parameters
    ----------
    folder : str
        An absolute path.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        # Twice as fast as a file object: most records are small, and are looked for
        # by each of many children.
        number = os.open(self._path(name), _READ)
        try:
            begin = os.read(number, _AT_ONCE)
            if len(begin) < _AT_ONCE:
                return begin
            with open(number, "rb", closefd=False) as file:
                return begin + file.read()
        finally:
            os.close(number)

    def write(self, name: str, blob: bytes) -> None:
        """Write a file aside, and move it in its place."""
        write_aside(self._path(name), blob)

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        return os.path.isfile(self._path(name))

    def delete(self, name: str) -> None:
        """Remove a file, and the folders that are empty without it."""
        path = self._path(name)
        try:
            os.remove(path)
        except FileNotFoundError:
            return
        folder = os.path.dirname(path)
        while len(folder) > len(self.folder):
            try:
                os.rmdir(folder)
            except OSError:  # there is something else in it
                return
            folder = os.path.dirname(folder)

    def names(self, under: str) -> list[str]:
        """Files of a folder and of those in it."""
        top = self._path(under)
        return [
            os.path.relpath(os.path.join(folder, file), self.folder).replace(
                os.sep, "/"
            )
            for folder, _, files in os.walk(top)
            for file in files
            if not file.endswith(_PART)
        ]

    def _path(self, name: str) -> str:
        return f"{self.folder}{os.sep}{name}"


class RemoteStorage:
    """Objects behind an `fsspec` URL.

    Parameters
    ----------
    url : str
        Such as ``"s3://bucket/results"`` or ``"memory://results"``.
    options : mapping of str to object
        Arguments of the file system.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self._options = options
        self._opened: tuple[int, Any, str] | None = None
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """Bytes of an object; asked of the place itself, not of a listing of it."""
        system, path = self._open(name)
        blob: bytes = system.cat_file(path)
        return blob

    def write(self, name: str, blob: bytes) -> None:
        """Write an object."""
        system, path = self._open(name)
        if self._is_whole_at_once(system):
            system.pipe_file(path, blob)
            return
        folder = posixpath.dirname(path)
        system.makedirs(folder, exist_ok=True)
        aside = posixpath.join(folder, f".{uuid.uuid4().hex}{_PART}")
        try:
            system.pipe_file(aside, blob)
            system.mv(aside, path)
        except BaseException:
            if system.exists(aside):
                system.rm_file(aside)
            raise

    def exists(self, name: str) -> bool:
        """Whether there is an object."""
        system, path = self._open(name)
        system.invalidate_cache(system._parent(path))
        return bool(system.exists(path))

    def delete(self, name: str) -> None:
        """Remove an object."""
        system, path = self._open(name)
        try:
            system.rm_file(path)
        except FileNotFoundError:
            return

    def names(self, under: str) -> list[str]:
        """Objects of a folder and of those in it."""
        system, path = self._open(under)
        _, top = self._open("")
        system.invalidate_cache()
        try:
            found = system.find(path)
        except FileNotFoundError:
            return []
        base = top.strip("/")
        return [
            posixpath.relpath(name.strip("/"), base)
            for name in found
            if not name.endswith(_PART)
        ]

    def _is_whole_at_once(self, system: Any) -> bool:
        protocol = system.protocol
        known = (protocol,) if isinstance(protocol, str) else protocol
        return not _WHOLE_AT_ONCE.isdisjoint(known)

    def _open(self, name: str) -> tuple[Any, str]:
        with self._lock:
            # A file system made before a fork has threads that the child lacks.
            if self._opened is None or self._opened[0] != os.getpid():
                # fsspec is loaded by those who store somewhere else than in a folder.
                from fsspec.core import url_to_fs

                try:
                    system, top = url_to_fs(self.url, **self._options)
                except ValueError as error:
                    raise StoreError(
                        f"the store {self.url!r} cannot be opened: {error}; give "
                        "result_storage a folder, or a URL whose protocol fsspec knows."
                    ) from error
                self._opened = os.getpid(), system, top
            _, system, top = self._opened
        return system, f"{top.rstrip('/')}/{name}" if name else top

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStorage, (self.url, dict(self._options))


#: How a file is opened that is read.
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0)
#: Bytes that are read with the first call.
_AT_ONCE: Final = 1 << 14
#: End of the names of files that are being written.
_PART: Final = ".part"
#: How often a folder that vanishes is made before that is an error.
_TRIES: Final = 100


def write_aside(path: str, blob: bytes) -> None:
    """Write a local file so that nobody ever sees a part of it."""
    folder = os.path.dirname(path)
    # In the same folder, because a file is moved at once within a file system only;
    # under a name of its own, because others may write the same result.
    aside = os.path.join(folder, f".{uuid.uuid4().hex}{_PART}")
    try:
        for left in reversed(range(_TRIES)):
            try:
                _write_new(aside, blob)
                break
            except FileNotFoundError:
                # Not made yet, or removed by somebody who found it empty: it may
                # happen again, between making it and writing.
                if not left:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    os.makedirs(folder, exist_ok=True)
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.remove(aside)
        raise


def _write_new(path: str, blob: bytes) -> None:
    with open(path, "xb") as file:
        file.write(blob)
