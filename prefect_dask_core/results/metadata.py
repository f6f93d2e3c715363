"""Metadata: what is known of a stored value, and how both become one record of bytes.

A record is one object, so that a value is never there without its metadata nor with
those of another. Its first line has a checksum of all that follows: whatever byte of it
is damaged or missing, the record is refused as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, Final

#: Begin of each record: the format, and its version.
MAGIC: Final = b"prefect-dask-core-record 1 "
#: Characters of a checksum.
_DIGITS: Final = 32


class DamagedRecord(ValueError):
    """Bytes that are no record, or no longer the one that was written."""


@dataclass(frozen=True, slots=True)
class ResultMetadata:
    """What is known of a stored value.

    Parameters
    ----------
    key : str
        Its key in the store.
    serializer : str
        How the value became bytes.
    size : int
        Bytes of the value.
    created : float
        Seconds since the epoch.
    expiration : float or None
        Seconds since the epoch from which on it stands for no other run.
    task : str or None
        Name of the task.
    flow_run_id : str or None
        The flow run that made it.
    run : str or None
        Name of the task run that made it, unique in its flow run.
    notes : mapping of str to object
        Whatever else the writer wants to tell the reader, as JSON has it.
    """

    key: str
    serializer: str = "pickle"
    size: int = 0
    created: float = 0.0
    expiration: float | None = None
    task: str | None = None
    flow_run_id: str | None = None
    run: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def is_expired(self, now: float) -> bool:
        """Whether the value stands for no other run any more.

        Parameters
        ----------
        now : float
            Seconds since the epoch.
        """
        return self.expiration is not None and now >= self.expiration

    def is_of(self, flow_run_id: str | None, run: str | None) -> bool:
        """Whether a certain task run made the value."""
        return flow_run_id is not None and (self.flow_run_id, self.run) == (
            flow_run_id,
            run,
        )


#: Without looking for an encoding, as `json.loads` does.
_decode: Final = json.JSONDecoder().decode
#: Names of the fields, in their order.
_FIELDS: Final = dict.fromkeys(found.name for found in fields(ResultMetadata)).keys()


def pack_record(metadata: ResultMetadata, value: bytes) -> bytes:
    r"""A record of some metadata and the bytes of a value.

    Examples
    --------
    >>> blob = pack_record(ResultMetadata("total", size=2), b"12")
    >>> blob.count(b"\n"), blob.endswith(b"\n12")
    (2, True)
    """
    known = {name: getattr(metadata, name) for name in _FIELDS}
    told = json.dumps(known, separators=(",", ":")).encode()
    body = told + b"\n" + value
    return MAGIC + _checksum(body) + b"\n" + body


def unpack_record(blob: bytes) -> tuple[ResultMetadata, bytes]:
    """Metadata and value of a record.

    Raises
    ------
    DamagedRecord
        If a byte of it differs from what was written.

    Examples
    --------
    >>> blob = pack_record(ResultMetadata("total", size=2), b"12")
    >>> unpack_record(blob)[1]
    b'12'
    >>> unpack_record(blob[:-1] + b"3")
    Traceback (most recent call last):
    prefect_dask_core.results.metadata.DamagedRecord: its checksum does not fit
    """
    begin = len(MAGIC) + _DIGITS
    if not blob.startswith(MAGIC) or blob[begin : begin + 1] != b"\n":
        raise DamagedRecord("it is no record of a result")
    body = memoryview(blob)[begin + 1 :]
    if _checksum(body) != blob[len(MAGIC) : begin]:
        raise DamagedRecord("its checksum does not fit")
    end = blob.index(b"\n", begin + 1)
    told = _decode(blob[begin + 1 : end].decode())
    if told.keys() != _FIELDS:  # a later version may tell more
        told = {name: value for name, value in told.items() if name in _FIELDS}
    return ResultMetadata(**told), blob[end + 1 :]


def _checksum(body: bytes | memoryview) -> bytes:
    return blake2b(body, digest_size=_DIGITS // 2).hexdigest().encode()
