"""Values that are fetched or unpickled when somebody looks."""

import pickle

from prefect_dask_core.engine.elsewhere import Elsewhere, Packed
from prefect_dask_core.states import Completed
from tests.engine.made_segments import segment_of


def test_a_value_elsewhere_is_fetched_once_when_asked_for():
    fetched = []

    def fetch():
        fetched.append(1)
        return ["a", "b"]

    segment = segment_of([Completed(data=None), Completed("said", data=None)])
    segment.values = Elsewhere(fetch)
    states = [segment.state(0), segment.state(1)]
    assert not fetched
    assert [state.result() for state in states] == ["a", "b"]
    assert len(fetched) == 1


def test_packed_values_are_unpickled_when_asked_for():
    packed = Packed(pickle.dumps([1, "two"]))
    assert packed[1] == "two"
    assert pickle.loads(pickle.dumps(packed))[0] == 1


def test_a_value_can_be_put_in_place_of_one_that_was_fetched():
    values = Elsewhere(lambda: (iter([1]), 2))
    values[0] = [1]
    assert [values[0], values[1]] == [[1], 2]
    assert pickle.loads(pickle.dumps(values)) == [[1], 2]
