import asyncio
import inspect
import pickle

import pytest

from prefect_dask_core import Flow, callback_factory
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.states import Completed, Failed, Running
from prefect_dask_core.tasks import Task
from prefect_dask_core.testing import fails
from prefect_dask_core.utilities import defaults_from_attrs

SEEN = []


def remember(obj, state):
    SEEN.append((obj.name, type(state).__name__))
    return Failed("ignored")


def is_failed(state):
    return state.is_failed()


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


def test_the_function_is_called_when_the_check_is_true():
    handler = callback_factory(remember, is_failed)
    made = Task("t")
    assert handler(made, Running(), Failed()) is None
    assert handler(made, Running(), Completed()) is None
    assert SEEN == [("t", "Failed")]


def test_only_true_itself_counts():
    for answer in (1, "yes", [1]):
        callback_factory(remember, lambda state, answer=answer: answer)(
            Task("t"), Running(), Completed()
        )
    assert SEEN == []


def test_a_task_and_a_flow_can_have_such_a_handler(run):
    handler = callback_factory(remember, is_failed)
    with Flow("f", state_handlers=[handler]) as flow:
        fails(2, name="t", retries=1, state_handlers=[handler])()
    state = run(flow)
    assert state.is_failed()
    assert SEEN[:2] == [("t", "Failed")] * 2
    assert SEEN[2:] in ([], [("f", "Failed")])  # a compiled flow has no handlers


def test_such_a_handler_can_be_pickled():
    handler = callback_factory(remember, is_failed)
    assert pickle.loads(pickle.dumps(handler)) == handler


def test_both_parts_are_called():
    with pytest.raises(OptionTypeError, match="fn=None"):
        callback_factory(None, is_failed)
    with pytest.raises(OptionTypeError, match="check=True"):
        callback_factory(remember, True)


# -- defaults_from_attrs ---------------------------------------------------------------


class Load(Task):
    def __init__(self, path=None, limit=None, **options):
        super().__init__(**options)
        self.path = path
        self.limit = limit

    @defaults_from_attrs("path", "limit")
    def run(self, path=None, limit=None, sep=","):
        """Load a file."""
        return path, limit, sep


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, ("a.csv", 10, ",")),
        (("b.csv",), {}, ("b.csv", 10, ",")),
        ((), {"limit": 3}, ("a.csv", 3, ",")),
        ((None, 0), {"sep": None}, ("a.csv", 0, None)),
    ],
)
def test_what_a_call_leaves_out_is_taken_from_the_task(args, kwargs, expected):
    made = Load("a.csv", limit=10)
    assert made(*args, **kwargs) == expected
    assert made.run(*args, **kwargs) == expected
    with Flow("f") as flow:
        result = made(*args, **kwargs)
    assert flow.run()[result].result() == expected


def test_a_mapped_task_takes_the_rest_from_itself():
    with Flow("f") as flow:
        result = Load(limit=10).map(["a", None])
    assert flow.run()[result].result() == [("a", 10, ","), (None, 10, ",")]


def test_a_run_with_defaults_keeps_its_signature():
    assert list(Load().inputs()) == ["path", "limit", "sep"]
    assert inspect.getdoc(Load.run) == "Load a file."


def test_a_coroutine_and_a_generator_take_defaults_too():
    class Slow(Load):
        @defaults_from_attrs("path")
        async def run(self, path=None):
            return path

    class Many(Load):
        @defaults_from_attrs("path")
        def run(self, path=None):
            yield path

    assert Slow().isasync
    assert asyncio.run(Slow("a")()) == "a"
    assert Many().isgenerator
    assert list(Many("a")()) == ["a"]


def test_a_name_that_run_does_not_take_is_refused():
    with pytest.raises(OptionTypeError, match=r"run\(\) has no parameter 'pth'"):

        @defaults_from_attrs("pth")
        def run(self, path=None):
            pass


def test_defaults_need_names():
    with pytest.raises(OptionTypeError, match="names"):
        defaults_from_attrs(len)


def test_an_attribute_that_the_task_lacks_fails_the_run():
    class Bare(Task):
        @defaults_from_attrs("path")
        def run(self, path=None):
            return path

    with pytest.raises(AttributeError, match="path"):
        Bare()()
