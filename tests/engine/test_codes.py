"""States as small numbers."""

from prefect_dask_core.engine.codes import STATE_BY_CODE, code_of
from prefect_dask_core.states import Failed, State, ValidationFailed
from tests.engine.made_segments import segment_of


def test_a_state_without_a_code_has_that_of_its_nearest_parent():
    class Refused(Failed):
        __slots__ = ()

    assert STATE_BY_CODE[code_of(Refused())] is Failed
    assert STATE_BY_CODE[code_of(ValidationFailed())] is Failed
    segment = segment_of([Refused("no"), ValidationFailed("bad")])
    assert [type(segment.state(i)) for i in (0, 1)] == [Refused, ValidationFailed]


def test_every_code_stands_for_one_class():
    assert len(set(STATE_BY_CODE)) == len(STATE_BY_CODE) < 256
    assert all(issubclass(cls, State) for cls in STATE_BY_CODE)
