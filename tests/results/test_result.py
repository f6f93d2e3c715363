import os
import pickle
import threading
from datetime import datetime, timezone

import dask
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.errors import (
    DeclarationError,
    MissingResult,
    OptionTypeError,
    ResultKindError,
    TemplateError,
)
from prefect_dask_core.results import (
    ConstantResult,
    HandlerResult,
    JSONSerializer,
    LocalResult,
    PrefectResult,
    Result,
    Serializer,
)
from prefect_dask_core.results import result as result_module
from tests.strategies import names


class Shelf:
    """A result handler that keeps values in memory."""

    def __init__(self):
        self.kept = {}

    def __eq__(self, other):
        return isinstance(other, Shelf) and self.kept == other.kept

    def read(self, location):
        return self.kept[location]

    def write(self, value):
        location = f"place {len(self.kept)}"
        self.kept[location] = value
        return location


class Broken(Serializer):
    """A serializer that fails half-way."""

    def serialize(self, value):
        raise ZeroDivisionError

    def deserialize(self, value):
        raise ZeroDivisionError


KINDS = (
    Result(location="{x}"),
    LocalResult("folder", location="{x}"),
    PrefectResult(location="[1]"),
    ConstantResult(3),
    HandlerResult(Shelf()),
)


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# -- what all have in common -------------------------------------------------------


@pytest.mark.parametrize("result", KINDS)
def test_methods_leave_the_result_as_it_is(result):
    before = pickle.dumps(result)
    for other in (
        result.copy(),
        result.from_value([1]),
        result.with_location("elsewhere"),
        result.format(x=3),
    ):
        assert type(other) is type(result)
        assert other is not result
    assert pickle.dumps(result) == before


@pytest.mark.parametrize("result", KINDS)
def test_a_copy_and_a_pickle_are_equal(result):
    assert result.copy() == result
    assert pickle.loads(pickle.dumps(result)) == result
    assert hash(result.copy()) == hash(result)


def test_results_that_differ_in_anything_are_not_equal(tmp_path):
    some = LocalResult(tmp_path, location="a")
    assert some != some.from_value(3)
    assert some != some.with_location("b")
    assert some != LocalResult(tmp_path / "other", location="a")
    assert some != LocalResult(tmp_path, location="a", serializer=JSONSerializer())
    assert some != Result(location="a")


def test_results_of_arrays_can_be_compared():
    array = numpy.arange(3)
    assert Result(array) == Result(array)
    assert Result(array) != Result(numpy.arange(3))


def test_a_callable_location_is_called_with_what_it_asks_for():
    result = Result(location=lambda day, **rest: f"{day}/{rest['x']}")
    assert result.format(day="monday", x=3).location == "monday/3"


def test_a_location_that_asks_for_too_much_is_refused():
    with pytest.raises(TemplateError, match=r"location '{y}' names 'y'"):
        Result(location="{y}").format(x=3)


def test_a_result_without_a_location_stays_without():
    assert Result().format(x=3).location is None


@pytest.mark.parametrize("make", [Result, LocalResult])
def test_a_location_is_a_string_or_a_callable(make):
    with pytest.raises(OptionTypeError, match="location=3, but expected a string"):
        make(location=3)


def test_a_thing_that_cannot_serialize_is_no_serializer():
    with pytest.raises(TypeError, match="is no serializer"):
        Result(serializer=3)


@pytest.mark.parametrize("result", KINDS)
def test_the_repr_does_not_show_the_value(result):
    assert "secret" not in repr(result.from_value("secret"))


def test_the_repr_shows_the_place():
    assert repr(Result(location="{x}")) == "Result(location='{x}')"
    assert repr(LocalResult("/a/b", location="c")) == (
        "LocalResult('/a/b', location='c')"
    )


@pytest.mark.parametrize(
    ("call", "action"),
    [
        (lambda result: result.exists("a"), "look for a value"),
        (lambda result: result.read("a"), "read"),
        (lambda result: result.write(3), "write"),
    ],
)
def test_a_value_in_memory_is_kept_nowhere(call, action):
    with pytest.raises(ResultKindError, match=f"cannot {action}; give the task") as no:
        call(Result())
    assert isinstance(no.value, NotImplementedError)
    assert isinstance(no.value, DeclarationError)


class InADict(Result):
    """A result of one's own, as the graph generations' documentation has them."""

    kept: dict = {}  # noqa: RUF012

    def exists(self, location, **kwargs):
        return location.format(**kwargs) in self.kept

    def read(self, location):
        return self.with_location(location).from_value(self.kept[location])

    def write(self, value, **kwargs):
        new = self.format(**kwargs).from_value(value)
        self.kept[new.location] = value
        return new


@pytest.mark.parametrize(
    ("result", "is_stored", "takes_location"),
    [
        (Result(), False, False),
        (LocalResult("a"), True, True),
        (PrefectResult(), True, False),
        (ConstantResult(3), False, False),
        (HandlerResult(Shelf()), True, False),
        (InADict(), True, True),
    ],
)
def test_a_result_knows_what_it_can_do(result, is_stored, takes_location):
    assert result.is_stored is is_stored
    assert result.takes_location is takes_location


# -- files -------------------------------------------------------------------------


@given(value=st.none() | st.integers() | st.text() | st.lists(st.booleans()))
def test_what_is_written_is_read(tmp_path_factory, value):
    result = LocalResult(tmp_path_factory.mktemp("results"))
    written = result.write(value)
    assert written.value == value
    assert result.exists(written.location)
    assert result.read(written.location) == written
    assert result.value is None


def test_another_process_finds_a_result_by_its_location(tmp_path):
    written = LocalResult(tmp_path, location="{x}.pkl").write([1], x="a")
    found = pickle.loads(pickle.dumps(LocalResult(tmp_path))).read("a.pkl")
    assert (written.location, found.value) == ("a.pkl", [1])


def test_folders_are_made_when_something_is_written_and_not_before(tmp_path):
    folder = tmp_path / "deep" / "down"
    result = LocalResult(folder, location="a/b/c")
    assert not result.exists("a/b/c")
    assert not folder.exists()
    result.write(3)
    assert files_in(folder) == ["c"]


def test_the_folder_is_that_of_the_settings_unless_it_is_given(tmp_path):
    with dask.config.set({"prefect-dask-core.results-dir": str(tmp_path)}):
        result = LocalResult()
    assert result.dir == str(tmp_path)
    assert LocalResult().dir == os.path.expanduser(
        "~/.local/share/prefect-dask-core/results"
    )


def test_a_folder_of_the_home_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalResult("~/results").dir == str(tmp_path / "results")
    assert LocalResult("~/results", validate_dir=False).dir == "~/results"


def test_a_folder_that_is_not_checked_is_where_the_process_stands(
    monkeypatch, tmp_path
):
    result = LocalResult(".", location="a", validate_dir=False)
    monkeypatch.chdir(tmp_path)
    result.write(3)
    assert files_in(tmp_path) == ["a"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="this is not a folder"):
        LocalResult(tmp_path / "file")


@pytest.mark.parametrize("url", ["s3://bucket/a", "gs://b", "file:///a", "https://x"])
def test_a_url_is_refused(url, tmp_path):
    with pytest.raises(ValueError, match="takes no URL"):
        LocalResult(url)
    with pytest.raises(ValueError, match="takes no URL"):
        LocalResult(location=url)
    with pytest.raises(ValueError, match="takes no URL"):
        LocalResult(tmp_path, location="{x}").write(3, x=url)


@pytest.mark.parametrize("location", ["../a", "a/../../b", "..", ".", "a/.."])
def test_a_location_does_not_lead_out_of_the_folder(tmp_path, location):
    result = LocalResult(tmp_path / "inside", location="{x}")
    with pytest.raises(ValueError, match="leads out of the folder"):
        result.write(3, x=location)
    with pytest.raises(ValueError, match="leads out of the folder"):
        result.exists(location)


def test_an_absolute_location_is_taken_as_it_is(tmp_path):
    path = str(tmp_path / "elsewhere" / "a")
    written = LocalResult(tmp_path / "inside", location=path).write(3)
    assert written.location == path
    assert LocalResult().read(path).value == 3


def test_a_formatted_location_is_not_formatted_again(tmp_path):
    result = LocalResult(tmp_path, location="{{x}}-{y}").format(y="{z}")
    written = result.write(3)
    assert written.location == "{x}-{z}"
    assert written.exists("{x}-{z}")
    assert written.read("{x}-{z}").value == 3


def test_a_value_is_looked_for_by_a_template_and_its_variables(tmp_path):
    result = LocalResult(tmp_path, location=lambda x: f"{x}.pkl")
    result.write(3, x="a")
    assert result.exists("{x}.pkl", x="a")
    assert result.exists(result.location, x="a")
    assert not result.exists("{x}.pkl", x="b")


def test_without_a_location_every_value_has_a_file_of_its_own(tmp_path):
    result = LocalResult(tmp_path)
    locations = {result.write(3).location for _ in range(20)}
    assert len(locations) == 20
    assert files_in(tmp_path) == sorted(locations)


def test_a_name_by_time_tells_the_time():
    noon = datetime(2024, 3, 1, 12, tzinfo=timezone.utc)
    name = result_module._name_by_time(noon)
    assert name.startswith("result-20240301T120000.000000Z-")


def test_a_folder_holds_no_value(tmp_path):
    (tmp_path / "a").mkdir()
    result = LocalResult(tmp_path)
    assert not result.exists("a")
    with pytest.raises(MissingResult, match="no result can be read from"):
        result.read("a")


def test_what_was_never_written_cannot_be_read(tmp_path):
    with pytest.raises(MissingResult, match=r"no result can be read from .*nothing"):
        LocalResult(tmp_path).read("nothing")


@pytest.mark.parametrize("damage", [b"", b"\x80", b"not a pickle"])
def test_a_damaged_file_is_a_missing_result(tmp_path, damage):
    (tmp_path / "a").write_bytes(damage)
    with pytest.raises(MissingResult, match="is damaged or was written by another"):
        LocalResult(tmp_path).read("a")


def test_the_serializer_decides_on_the_bytes(tmp_path):
    result = LocalResult(tmp_path, location="a.json", serializer=JSONSerializer())
    result.write({"rows": 3})
    assert (tmp_path / "a.json").read_bytes() == b'{"rows": 3}'


# -- whole or not at all -----------------------------------------------------------


@given(st.lists(st.tuples(names, st.integers()), min_size=1, max_size=6))
def test_each_file_holds_the_last_value_written_and_nothing_is_left_beside(
    tmp_path_factory, writes
):
    folder = tmp_path_factory.mktemp("results")
    for location, value in writes:
        LocalResult(folder, location=location).write(value)
    last = dict(writes)
    assert files_in(folder) == sorted(last)
    for location, value in last.items():
        assert LocalResult(folder).read(location).value == value


def test_a_value_that_cannot_be_serialized_leaves_the_old_one(tmp_path):
    LocalResult(tmp_path, location="a").write("old")
    with pytest.raises(ZeroDivisionError):
        LocalResult(tmp_path, location="a", serializer=Broken()).write("new")
    assert LocalResult(tmp_path).read("a").value == "old"
    assert files_in(tmp_path) == ["a"]


def test_a_write_that_breaks_off_leaves_the_old_value_and_no_part(
    tmp_path, monkeypatch
):
    result = LocalResult(tmp_path, location="a")
    result.write("old")

    def no_space(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        result.write("new")
    assert result.read("a").value == "old"
    assert files_in(tmp_path) == ["a"]


def test_who_reads_while_others_write_sees_whole_values_only(tmp_path):
    result = LocalResult(tmp_path, location="a")
    result.write([0] * 50_000)
    over = threading.Event()

    def write(number):
        while not over.is_set():
            result.write([number] * 50_000)

    writers = [threading.Thread(target=write, args=(n,)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(100):
            value = result.read("a").value
            assert len(value) == 50_000
            assert len(set(value)) == 1
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert files_in(tmp_path) == ["a"]


def test_a_file_has_the_permissions_of_other_files(tmp_path):
    (tmp_path / "usual").touch()
    LocalResult(tmp_path, location="a").write(3)
    mode = (tmp_path / "a").stat().st_mode
    assert mode == (tmp_path / "usual").stat().st_mode


# -- the other kinds ---------------------------------------------------------------


def test_json_is_its_own_location():
    written = PrefectResult().write({"a": [1, None]})
    assert written.location == '{"a": [1, null]}'
    assert PrefectResult().read(written.location) == written
    assert PrefectResult().exists("[]")
    assert not PrefectResult().exists("{x}")


def test_json_with_braces_is_no_template():
    written = PrefectResult().write({"x": 1})
    assert written.format(x=3).location == '{"x": 1}'


def test_a_location_that_is_no_json_has_no_value():
    with pytest.raises(MissingResult, match=r"value as JSON, and 'a.pkl' is none"):
        PrefectResult().read("a.pkl")


def test_a_constant_is_everywhere_and_never_written():
    constant = ConstantResult(3)
    assert constant.exists("anywhere")
    assert constant.read("anywhere").value == 3
    with pytest.raises(ResultKindError, match="a ConstantResult cannot write"):
        constant.write(4)


def test_a_handler_chooses_the_location():
    result = HandlerResult(Shelf())
    written = [result.write(value) for value in ("a", None)]
    assert [one.location for one in written] == ["place 0", "place 1"]
    assert [result.read(one.location).value for one in written] == ["a", None]
    with pytest.raises(ResultKindError, match="a HandlerResult cannot look"):
        result.exists("place 0")


@pytest.mark.parametrize("handler", [3, "folder", JSONSerializer()])
def test_a_handler_reads_and_writes(handler):
    with pytest.raises(OptionTypeError, match=r"it has no method read\(\)"):
        HandlerResult(handler)
