"""What travels of exceptions and states, and what is told in words instead."""

import builtins
import pickle
import sys
import threading
import traceback
from types import ModuleType

import pytest

from prefect_dask_core import DaskTaskRunner, Flow, Task
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import MissingResult, RemoteTaskError
from prefect_dask_core.runners.home import make_portable
from prefect_dask_core.states import Completed, Failed, Skipped


class Outer(Exception):
    """Travels, with what it carries."""

    def __init__(self, text, where):
        super().__init__(text)
        self.where = where


class Locked(Exception):
    """Does not."""

    def __init__(self, text="locked"):
        super().__init__(text)
        self.lock = threading.Lock()


def travelled(*states):
    """States of children, as the client reads them."""
    segment = Segment(0)
    segment.open(len(states))
    for offset, state in enumerate(states):
        segment.put(offset, state, 1.0, 2.0)
    make_portable(segment)
    return pickle.loads(pickle.dumps(segment))


def home(body):
    """What a body raises, as the client reads it; and as it was raised."""
    try:
        body()
    except Exception as error:
        return travelled(Failed("no", data=error)).state(0).data, error
    raise AssertionError("it raises")


def with_cause():
    try:
        raise Locked
    except Locked as error:
        raise Outer("outer", "here") from error


def with_context():
    try:
        raise Locked
    except Locked:
        raise Outer("outer", "here")  # noqa: B904  that is what it is about


def functions_of(error):
    return [entry.name for entry in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("body", [with_cause, with_context])
def test_an_exception_travels_without_what_it_came_from(body):
    found, raised = home(body)
    assert (type(found), str(found), found.where) == (Outer, "outer", "here")
    assert functions_of(found) == ["home", body.__name__]
    assert type(found.__context__) is RemoteTaskError
    assert str(found.__context__) == f"{__name__}.Locked: locked"
    explicit = body is with_cause
    assert (found.__cause__ is found.__context__) == explicit
    assert found.__suppress_context__ == explicit
    # The user's own is as it was.
    assert type(raised.__context__) is Locked
    assert raised.__traceback__ is not None


def test_of_a_chain_only_the_links_are_told_in_words_that_cannot_travel():
    def body():
        try:
            with_cause()
        except Outer as error:
            raise KeyError("last") from error

    found, _ = home(body)
    assert repr(found) == "KeyError('last')"
    assert type(found.__cause__) is Outer
    assert functions_of(found.__cause__) == ["body", "with_cause"]
    assert type(found.__cause__.__cause__) is RemoteTaskError


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")
def test_a_group_keeps_the_members_that_travel():
    members = [Outer("one", 1), Locked("two"), ValueError("three")]
    group = builtins.ExceptionGroup("several", members)

    def body():
        raise group

    found, _ = home(body)
    assert type(found) is builtins.ExceptionGroup
    assert found.message == "several"
    assert list(map(type, found.exceptions)) == [Outer, RemoteTaskError, ValueError]
    assert str(found.exceptions[1]) == f"{__name__}.Locked: two"


def descend(depth):
    if depth == 0:
        raise RecursionError("deep enough")
    descend(depth - 1)


def in_a_thread(body):
    """Call something where the stack has room for it, whatever the caller's depth."""
    found = []
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(3_000)
    try:
        thread = threading.Thread(target=lambda: found.append(_raised(body)))
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
    return found[0]


def _raised(body):
    try:
        body()
    except Exception as error:
        return error


@pytest.mark.parametrize("below", [False, True])
def test_a_traceback_that_is_too_deep_stays_behind_alone(below):
    def body():
        try:
            descend(1_000)
        except RecursionError as error:
            if not below:
                raise
            raise Outer("outer", "here") from error

    error = in_a_thread(body)
    found = travelled(Failed("no", data=error)).state(0).data
    if below:
        assert (type(found), found.where) == (Outer, "here")
        assert functions_of(found) == ["_raised", "body"]
        found = found.__cause__
    assert repr(found) == "RecursionError('deep enough')"
    assert found.__traceback__ is None


def test_the_end_of_a_chain_that_is_too_long_is_told_in_words():
    error = Outer("last", "here")
    link = error
    for number in range(2_000):
        link.__cause__ = ValueError(number)
        link = link.__cause__
    found = travelled(Failed("no", data=error)).state(0).data
    assert (type(found), found.where) == (Outer, "here")
    number = 0
    while type(found := found.__cause__) is ValueError:
        assert found.args == (number,)
        number += 1
    assert str(found) == f"builtins.ValueError: {number}"


def test_causes_in_a_circle_end():
    one, two = Outer("one", 1), Outer("two", 2)
    one.__cause__, two.__cause__, two.__context__ = two, one, Locked()
    found = travelled(Failed("no", data=one)).state(0).data
    assert (type(found), found.where) == (Outer, 1)
    assert found.__cause__ is not None


def test_what_cannot_travel_at_all_is_told_in_words():
    found = travelled(Failed("no", data=Locked())).state(0).data
    assert type(found) is RemoteTaskError
    assert str(found) == f"{__name__}.Locked: locked"


ELSEWHERE = """
from prefect_dask_core.states import Failed, Skipped

class MyFailed(Failed):
    pass

class MySkipped(Skipped):
    pass

class Thing:
    pass

class MyError(Exception):
    pass
"""


@pytest.fixture
def only_there(monkeypatch):
    """A module that can be imported until `gone` is called."""
    module = ModuleType("only_there")
    exec(ELSEWHERE, module.__dict__)
    monkeypatch.setitem(sys.modules, "only_there", module)
    module.gone = lambda: monkeypatch.delitem(sys.modules, "only_there")
    return module


def test_a_state_that_cannot_be_imported_spoils_no_other(only_there):
    segment = Segment(0)
    states = [
        only_there.MyFailed("mine", data=ValueError("inside")),
        Failed("with data", data=only_there.Thing()),
        Failed("with an error", data=only_there.MyError("text")),
        only_there.MySkipped("not today"),
        Failed("inside", states=[only_there.MyFailed()]),
        Failed("plain", data=KeyError("x")),
        Completed("fine", data=5),
    ]
    segment.open(len(states))
    for offset, state in enumerate(states):
        segment.put(offset, state, 1.0, 2.0)
    make_portable(segment)
    there = pickle.loads(pickle.dumps(segment))
    assert type(there.state(0)) is only_there.MyFailed
    assert str(there.state(0).data) == "inside"
    assert type(there.state(1).data) is only_there.Thing
    assert type(there.state(3)) is only_there.MySkipped
    blob = pickle.dumps(segment)
    only_there.gone()

    found = pickle.loads(blob)
    assert [type(found.state(n)) for n in range(7)] == [
        *[Failed] * 3,
        Skipped,
        *[Failed] * 2,
        Completed,
    ]
    assert [found.state(n).message for n in range(7)] == [s.message for s in states]
    assert found.state(0).name == "MyFailed"
    assert repr(found.state(0).data) == "ValueError('inside')"
    with pytest.raises(MissingResult, match=r"of type only_there\.Thing, cannot be un"):
        found.state(1).data.load()
    assert str(found.state(2).data) == "only_there.MyError: text"
    assert found.state(4).states is None
    assert repr(found.state(5).data) == "KeyError('x')"


class Holding(Failed):
    """A state that carries what cannot be pickled."""

    __slots__ = ("lock",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "lock", threading.Lock())


def test_a_state_that_cannot_be_pickled_is_one_of_the_nearest_class():
    found = travelled(Holding("held", data=3), Failed("plain"))
    assert type(found.state(0)) is Failed
    assert (found.state(0).message, found.state(0).data) == ("held", 3)
    assert found.state(1).message == "plain"


def test_what_only_workers_can_import_does_not_spoil_a_run(process_client, tmp_path):
    (tmp_path / "only_there.py").write_text(ELSEWHERE)
    folder = str(tmp_path)

    def body(x):
        if folder not in sys.path:
            sys.path.insert(0, folder)
        import only_there

        if x == 1:
            return only_there.MyFailed("mine")
        if x == 2:
            return Failed("with data", data=only_there.Thing())
        if x == 3:
            raise ValueError("plain")
        return x

    with Flow("there") as flow:
        many = Task(body).map(list(range(5)))
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    found = state[many].states
    assert [type(child) for child in found] == [
        Completed,
        *[Failed] * 3,
        Completed,
    ]
    assert [child.message for child in found[1:4]] == [
        "mine",
        "with data",
        "ValueError: plain",
    ]
    assert repr(found[3].data) == "ValueError('plain')"
