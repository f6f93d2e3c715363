"""The driver of a run whose nodes come while it runs, on plain lists of events."""

from prefect_dask_core import task
from prefect_dask_core.engine.events import Added, Started, Submit
from prefect_dask_core.engine.grouping import TRIED_PER_THREAD
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.plan import Node


@task
def plain():
    return 1


@task
async def later():
    return 1


def nodes_of(made, count):
    return tuple(
        Node(
            number,
            f"{made.name}-{number}",
            made,
            made.identity,
            (),
            mapped=False,
            constant=False,
        )
        for number in range(count)
    )


def submitted(made, count, threads=2):
    """How many of some runs go out before one has ended."""
    driver = GrowingDriver("flow")
    commands = [
        *driver.handle(Started(threads)),
        *driver.handle(Added(nodes_of(made, count))),
    ]
    return sum(
        len(command.assignments) for command in commands if isinstance(command, Submit)
    )


def test_runs_of_unknown_length_are_held_back():
    assert submitted(plain, 60) == 2 * TRIED_PER_THREAD
    assert submitted(plain, 3) == 3


def test_coroutines_are_not_held_back():
    """They wait side by side; 60 that sleep for a second took two."""
    assert submitted(later, 60) == 60
