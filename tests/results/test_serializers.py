import dataclasses
import io
import json
import math
import pickle
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.results import (
    CompressedSerializer,
    DateTimeSerializer,
    JSONSerializer,
    PandasSerializer,
    PickleSerializer,
    Serializer,
)
from prefect_dask_core.results.serializers import as_serializer, label_of

FORMATS = ("bz2", "gzip", "lzma", "zlib")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
values = json_values | st.binary() | st.tuples(st.integers(), st.text())
zones = st.none() | st.integers(-14, 14).map(lambda h: timezone(timedelta(hours=h)))


@given(values)
def test_a_value_of_any_kind_survives_pickling(value):
    serializer = PickleSerializer()
    assert serializer.deserialize(serializer.serialize(value)) == value


def test_a_function_without_a_name_survives_pickling():
    serializer = PickleSerializer()
    assert serializer.loads(serializer.dumps(lambda x: x + 1))(2) == 3


@given(json_values)
def test_a_value_of_json_survives_json(value):
    serializer = JSONSerializer()
    assert serializer.deserialize(serializer.serialize(value)) == value


def test_json_has_a_word_for_what_is_not_a_number():
    serializer = JSONSerializer()
    assert math.isnan(serializer.deserialize(serializer.serialize(math.nan)))


def test_json_refuses_what_it_does_not_have():
    with pytest.raises(TypeError, match="not JSON serializable"):
        JSONSerializer().serialize({1, 2})


@given(st.datetimes(timezones=zones))
def test_a_datetime_survives_as_text(value):
    serializer = DateTimeSerializer()
    copy = serializer.deserialize(serializer.serialize(value))
    assert copy == value
    assert copy.utcoffset() == value.utcoffset()


@pytest.mark.parametrize("format", FORMATS)
@given(value=json_values)
def test_a_value_survives_compression(format, value):
    serializer = CompressedSerializer(JSONSerializer(), format)
    assert serializer.deserialize(serializer.serialize(value)) == value


@pytest.mark.parametrize("format", FORMATS)
def test_compression_makes_less_of_much(format):
    plain = PickleSerializer()
    packed = CompressedSerializer(plain, format)
    value = b"0" * 10_000
    assert len(packed.serialize(value)) < len(plain.serialize(value)) / 10


def test_equal_values_give_equal_compressed_bytes(monkeypatch):
    serializer = CompressedSerializer(JSONSerializer(), "gzip")
    before = serializer.serialize([1])
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert serializer.serialize([1]) == before


def test_compressions_can_be_nested():
    twice = CompressedSerializer(CompressedSerializer(json, "zlib"), "bz2")
    assert twice.loads(twice.dumps({"a": 1})) == {"a": 1}


def test_an_unknown_compression_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'zip'.*the formats are bz2, gzip, lzma"):
        CompressedSerializer(PickleSerializer(), "zip")


@pytest.mark.parametrize(
    "serializer",
    [
        PickleSerializer(),
        JSONSerializer(),
        DateTimeSerializer(),
        CompressedSerializer(JSONSerializer(), "zlib"),
        PandasSerializer("csv", serialize_kwargs={"index": False}),
        as_serializer(SimpleNamespace(dumps=json.dumps, loads=json.loads)),
    ],
)
def test_pickling_a_serializer_changes_nothing(serializer):
    assert pickle.loads(pickle.dumps(serializer)) == serializer


def test_serializers_that_do_the_same_are_equal():
    assert PickleSerializer() == PickleSerializer()
    assert len({JSONSerializer(), JSONSerializer(), PickleSerializer()}) == 2
    json_, pickle_ = JSONSerializer(), PickleSerializer()
    assert CompressedSerializer(json_, "bz2") == CompressedSerializer(json_, "bz2")
    assert CompressedSerializer(json_, "bz2") != CompressedSerializer(pickle_, "bz2")
    hash(PandasSerializer("csv", {"a": 1}))


class Upper(Serializer):
    """A serializer of one's own."""

    def serialize(self, value):
        return value.upper().encode()

    def deserialize(self, value):
        return value.decode().lower()


def test_a_serializer_of_ones_own_has_the_names_of_all_generations():
    assert Upper().loads(Upper().dumps("abc")) == "abc"
    assert as_serializer(mine := Upper()) is mine


def test_a_serializer_that_defines_nothing_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="does not define serialize"):
        Serializer().dumps(1)
    with pytest.raises(NotImplementedError, match="does not define deserialize"):
        Serializer().loads(b"1")


@pytest.mark.parametrize("module", [json, pickle])
def test_what_has_dumps_and_loads_is_a_serializer(module):
    serializer = as_serializer(module)
    blob = serializer.serialize([1, 2])
    assert isinstance(blob, bytes)
    assert serializer.deserialize(blob) == [1, 2]


def test_what_has_serialize_and_deserialize_is_a_serializer():
    @dataclasses.dataclass
    class Theirs:
        def serialize(self, value):
            return bytearray(value)

        def deserialize(self, value):
            return list(value)

    serializer = as_serializer(Theirs())
    assert serializer.loads(serializer.dumps([1, 2])) == [1, 2]


@pytest.mark.parametrize("thing", [3, b"pickle", SimpleNamespace(dumps=json.dumps)])
def test_what_can_do_one_half_only_is_none(thing):
    with pytest.raises(TypeError, match="is no serializer: it has neither"):
        as_serializer(thing)


@pytest.mark.parametrize(
    "name", ["pickle", "json", "compressed/pickle", "compressed/json"]
)
def test_a_serializer_may_be_named(name):
    serializer = as_serializer(name)
    assert serializer.loads(serializer.dumps([1, None])) == [1, None]
    assert label_of(serializer) == name


def test_an_unknown_name_of_a_serializer_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no serializer 'pickel'.*pickle, json"):
        as_serializer("pickel")


class FakeFrame:
    """Stands for a data frame of pandas."""

    def __init__(self, text):
        self.text = text

    def to_csv(self, buffer, sep=","):
        buffer.write(self.text.replace(",", sep).encode())


def test_a_frame_is_written_and_read_by_its_library(monkeypatch):
    def read_csv(buffer: io.BytesIO, sep=","):
        return FakeFrame(buffer.read().decode().replace(sep, ","))

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(read_csv=read_csv))
    serializer = PandasSerializer("csv", {"sep": ";"}, {"sep": ";"})
    blob = serializer.serialize(FakeFrame("a,b"))
    assert blob == b"a;b"
    assert serializer.deserialize(blob).text == "a,b"


@pytest.mark.parametrize("file_type", ["csv", "json", "pickle"])
def test_a_frame_of_pandas_survives(file_type):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    options = {"index": False} if file_type == "csv" else {}
    serializer = PandasSerializer(file_type, serialize_kwargs=options)
    copy = serializer.deserialize(serializer.serialize(frame))
    pandas.testing.assert_frame_equal(copy, frame)


def test_a_value_that_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="cannot write a int: it has no method to_csv"):
        PandasSerializer("csv").serialize(3)


def test_the_text_of_a_datetime_can_be_read_by_people():
    moment = datetime(2024, 3, 1, tzinfo=timezone.utc)
    assert DateTimeSerializer().dumps(moment) == b"2024-03-01T00:00:00+00:00"
