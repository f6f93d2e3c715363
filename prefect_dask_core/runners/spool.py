"""Spool: log records that may not have been sent yet, in files that outlive a process.

A record is written when it is made and forgotten half a second after it was sent. When
a worker is killed its last records are still there: another process of the same host,
its nanny or a worker, reads them for the client.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import threading
from pathlib import Path
from typing import Final

_LENGTH: Final = struct.Struct("<I")


class Spool:
    """The latest records of one run in this process.

    Parameters
    ----------
    topic : str
        Topic of the run.
    folder : str, optional
        Where the files are; that for temporary files of this host unless given.

    Notes
    -----
    There are two files. All goes into one; at each turn the other one, which is a turn
    older, is emptied and takes over. A record costs one short write.
    """

    def __init__(self, topic: str, folder: str | None = None) -> None:
        base = _stem(topic, folder)
        self._paths = [Path(f"{base}-{os.getpid()}-{n}") for n in range(2)]
        self._files: list[int | None] = [None, None]
        self._now = 0
        self._lock = threading.Lock()
        self._used = False

    def add(self, blob: bytes) -> None:
        """Write a record down."""
        with self._lock:
            file = self._files[self._now]
            if file is None:
                # Made anew: what stands there under this name is of somebody else, or
                # of a process that had this number before.
                self._paths[self._now].unlink(missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                file = os.open(self._paths[self._now], flags, 0o600)
                self._files[self._now] = file
            os.write(file, _LENGTH.pack(len(blob)) + blob)
            self._used = True

    def turn(self) -> None:
        """Forget what was written before the last turn; all of it has been sent."""
        with self._lock:
            self._now = 1 - self._now
            self._empty(self._now)

    def rest(self) -> bool:
        """Forget everything, unless something was written since the last time."""
        with self._lock:
            used, self._used = self._used, False
            if not used:
                for number in range(2):
                    self._empty(number)
            return not used

    def _empty(self, number: int) -> None:
        file, self._files[number] = self._files[number], None
        if file is not None:
            os.close(file)
            self._paths[number].unlink(missing_ok=True)


def _stem(topic: str, folder: str | None) -> str:
    name = re.sub(r"[^\w.-]+", "-", topic)
    return os.path.join(folder or tempfile.gettempdir(), f"dask-logs-{name}")


def left_behind(topic: str, folder: str | None = None) -> list[bytes]:
    """Records of processes of this host that have died, which are forgotten then.

    Parameters
    ----------
    topic : str
        Topic of the run.
    folder : str, optional
        As for `Spool`.
    """
    stem = Path(_stem(topic, folder))
    found: list[bytes] = []
    for path in sorted(stem.parent.glob(f"{stem.name}-*")):
        process = re.fullmatch(r"(\d+)-[01]", path.name[len(stem.name) + 1 :])
        if process is None or _is_alive(int(process[1])):
            continue
        # Another reader may be faster; and what is not ours is not for us to take.
        with contextlib.suppress(OSError):
            content = _own_content(path)
            path.unlink()
            found += records_in(content)
    return found


def _own_content(path: Path) -> bytes:
    """What is in a file of this user.

    Records are unpickled, which runs what they say, and anybody may write into the
    folder for temporary files.

    Raises
    ------
    OSError
        If it is gone, a link, or not a file of this user.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(file, "rb") as opened:
        if hasattr(os, "getuid") and os.fstat(file).st_uid != os.getuid():
            raise PermissionError(f"{path} is not a file of this user")
        return opened.read()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def records_in(content: bytes) -> list[bytes]:
    """Records of a file; one that was cut short by the death is left out.

    Examples
    --------
    >>> records_in(bytes([2, 0, 0, 0]) + b"ab" + bytes([9, 0, 0, 0]) + b"c")
    [b'ab']
    """
    found, at = [], 0
    while at + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size + length
        if at <= len(content):
            found.append(content[at - length : at])
    return found
