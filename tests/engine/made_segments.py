"""Segments of given states, for tests of what reads them."""

from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.states import Mapped
from tests.strategies import final_states


def segment_of(given, start=0):
    """A segment with one child per state."""
    segment = Segment(start)
    segment.open(len(given))
    for offset, state in enumerate(given):
        segment.put(offset, state, float(offset), offset + 1.0, attempts=offset + 1)
    return segment


# Of a state with states below it only the node itself knows.
childless = final_states().filter(lambda state: not isinstance(state, Mapped))
