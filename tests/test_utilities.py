import pickle

import pytest

from prefect_dask_core import Flow, callback_factory
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.states import Completed, Failed, Running
from prefect_dask_core.tasks import Task
from prefect_dask_core.testing import fails

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
