"""Serializers: values as bytes, and back.

`serialize` and `deserialize` are the graph generations' names, `dumps` and `loads`
those of today; a serializer has both. Bytes that were tampered with can do anything to
those who unpickle them, so read only what you trust.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import cloudpickle


class Serializer:
    """Base of the serializers.

    Notes
    -----
    A serializer of one's own overrides `serialize` and `deserialize`, and compares
    equal to those that do the same; a frozen dataclass does. Any other object with
    these two methods, or with `dumps` and `loads`, can be given to a result as well.
    """

    def serialize(self, value: Any) -> bytes:
        """Value as bytes."""
        raise NotImplementedError(f"{type(self).__name__} does not define serialize().")

    def deserialize(self, value: bytes) -> Any:
        """Value that `serialize` made these bytes of."""
        raise NotImplementedError(
            f"{type(self).__name__} does not define deserialize()."
        )

    def dumps(self, value: Any) -> bytes:
        """Value as bytes."""
        return self.serialize(value)

    def loads(self, blob: bytes) -> Any:
        """Value that `dumps` made these bytes of."""
        return self.deserialize(blob)


@dataclass(frozen=True)
class PickleSerializer(Serializer):
    """Values of any kind, by cloudpickle.

    Examples
    --------
    >>> serializer = PickleSerializer()
    >>> serializer.deserialize(serializer.serialize({"a": (1, 2)}))
    {'a': (1, 2)}
    """

    def serialize(self, value: Any) -> bytes:
        """Value as a pickle."""
        blob: bytes = cloudpickle.dumps(value)
        return blob

    def deserialize(self, value: bytes) -> Any:
        """Value of a pickle."""
        return cloudpickle.loads(value)


@dataclass(frozen=True)
class JSONSerializer(Serializer):
    """Values that JSON has: text, numbers, booleans, `None`, lists and dicts.

    A tuple comes back as a list, and a key of a dict as a text.

    Examples
    --------
    >>> JSONSerializer().serialize({"a": (1, None)})
    b'{"a": [1, null]}'
    """

    def serialize(self, value: Any) -> bytes:
        """Value as JSON in UTF-8."""
        return json.dumps(value).encode()

    def deserialize(self, value: bytes) -> Any:
        """Value of a JSON text."""
        return json.loads(value)


@dataclass(frozen=True)
class DateTimeSerializer(Serializer):
    """Datetimes, as a text in ISO format that people can read.

    Examples
    --------
    >>> DateTimeSerializer().serialize(datetime(2024, 3, 1, 12))
    b'2024-03-01T12:00:00'
    """

    def serialize(self, value: datetime) -> bytes:
        """Datetime as a text."""
        return value.isoformat().encode()

    def deserialize(self, value: bytes) -> datetime:
        """Datetime of a text."""
        return datetime.fromisoformat(value.decode())


def _gzip(blob: bytes) -> bytes:
    # Without the time of day, so that equal values give equal bytes.
    return gzip.compress(blob, mtime=0)


_COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "bz2": bz2.compress,
    "gzip": _gzip,
    "lzma": lzma.compress,
    "zlib": zlib.compress,
}
_DECOMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "bz2": bz2.decompress,
    "gzip": gzip.decompress,
    "lzma": lzma.decompress,
    "zlib": zlib.decompress,
}


@dataclass(frozen=True)
class CompressedSerializer(Serializer):
    """What another serializer makes, compressed.

    Parameters
    ----------
    serializer : Serializer
        The other serializer.
    format : str
        One of ``"bz2"``, ``"gzip"``, ``"lzma"`` and ``"zlib"``.

    Raises
    ------
    ValueError
        If the format is none of these.

    Examples
    --------
    >>> small = CompressedSerializer(JSONSerializer(), "zlib")
    >>> len(small.serialize([0] * 1000)) < 50
    True
    """

    serializer: Serializer
    format: str

    def __post_init__(self) -> None:
        if self.format not in _COMPRESS:
            raise ValueError(
                f"CompressedSerializer(format={self.format!r}): the formats are "
                f"{', '.join(_COMPRESS)}."
            )
        object.__setattr__(self, "serializer", as_serializer(self.serializer))

    def serialize(self, value: Any) -> bytes:
        """Value as compressed bytes."""
        return _COMPRESS[self.format](self.serializer.serialize(value))

    def deserialize(self, value: bytes) -> Any:
        """Value of compressed bytes."""
        return self.serializer.deserialize(_DECOMPRESS[self.format](value))


@dataclass(frozen=True)
class PandasSerializer(Serializer):
    """Data frames, in a format that pandas reads and writes.

    Parameters
    ----------
    file_type : str
        A format such as ``"csv"``, ``"parquet"`` or ``"json"``: pandas has a function
        ``read_<file_type>`` and its frames a method ``to_<file_type>``.
    deserialize_kwargs, serialize_kwargs : mapping, optional
        Further arguments of the function and of the method.

    Examples
    --------
    >>> PandasSerializer("csv", serialize_kwargs={"index": False}).file_type
    'csv'
    """

    file_type: str
    # Not part of the hash: a dict has none.
    deserialize_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    serialize_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)

    def serialize(self, value: Any) -> bytes:
        """Frame as bytes of the format."""
        write = getattr(value, f"to_{self.file_type}", None)
        if write is None:
            raise TypeError(
                f"PandasSerializer({self.file_type!r}) cannot write a "
                f"{type(value).__name__}: it has no method to_{self.file_type}."
            )
        buffer = io.BytesIO()
        write(buffer, **(self.serialize_kwargs or {}))
        return buffer.getvalue()

    def deserialize(self, value: bytes) -> Any:
        """Frame of bytes of the format."""
        # pandas is heavy and optional: loaded by those who use it.
        pandas = importlib.import_module("pandas")
        read = getattr(pandas, f"read_{self.file_type}")
        return read(io.BytesIO(value), **(self.deserialize_kwargs or {}))


@dataclass(frozen=True)
class _Foreign(Serializer):
    """An object of somebody else that can serialize."""

    of: Any
    write: str
    read: str

    def serialize(self, value: Any) -> bytes:
        found = getattr(self.of, self.write)(value)
        return found.encode() if isinstance(found, str) else bytes(found)

    def deserialize(self, value: bytes) -> Any:
        return getattr(self.of, self.read)(value)


#: Serializers that have a name.
_NAMED: Final[Mapping[str, Callable[[], Serializer]]] = {
    "pickle": PickleSerializer,
    "json": JSONSerializer,
    "compressed/pickle": lambda: CompressedSerializer(PickleSerializer(), "zlib"),
    "compressed/json": lambda: CompressedSerializer(JSONSerializer(), "zlib"),
}


def as_serializer(given: Any) -> Serializer:
    """Serializer of a name, or of an object that can serialize by either pair of names.

    Parameters
    ----------
    given : str, object or None
        ``"pickle"``, ``"json"``, ``"compressed/pickle"`` or ``"compressed/json"``; a
        `Serializer`, an object with ``serialize`` and ``deserialize`` or with
        ``dumps`` and ``loads``; or `None` for pickle.

    Raises
    ------
    TypeError
        If it can do neither.
    ValueError
        If there is no serializer of the name.

    Examples
    --------
    >>> as_serializer(None), as_serializer("json")
    (PickleSerializer(), JSONSerializer())
    >>> import json
    >>> as_serializer(json).serialize([1, 2])
    b'[1, 2]'
    """
    if given is None:
        return PickleSerializer()
    if isinstance(given, Serializer):
        return given
    if isinstance(given, str):
        if given not in _NAMED:
            raise ValueError(
                f"there is no serializer {given!r}; the names are "
                f"{', '.join(_NAMED)}, and any object with dumps() and loads() is one."
            )
        return _NAMED[given]()
    for write, read in (("serialize", "deserialize"), ("dumps", "loads")):
        if callable(getattr(given, write, None)) and callable(
            getattr(given, read, None)
        ):
            return _Foreign(given, write, read)
    raise TypeError(
        f"{given!r} is no serializer: it has neither serialize() and deserialize() nor "
        "dumps() and loads()."
    )


def label_of(serializer: Serializer) -> str:
    """How metadata name a serializer.

    Examples
    --------
    >>> label_of(as_serializer("compressed/json")), label_of(DateTimeSerializer())
    ('compressed/json', 'DateTimeSerializer')
    """
    for name, make in _NAMED.items():
        if serializer == make():
            return name
    kind = serializer.of if isinstance(serializer, _Foreign) else type(serializer)
    return str(getattr(kind, "__name__", type(kind).__name__))
