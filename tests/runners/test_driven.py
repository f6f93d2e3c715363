"""Driven sessions: nobody waits for ever, whatever happens to the driver."""

import pytest

from prefect_dask_core import task
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.session import Request
from prefect_dask_core.errors import InternalError
from prefect_dask_core.runners.driven import DrivenSession
from prefect_dask_core.states import Crashed


@task
def one():
    return 1


class BrokenDriver(GrowingDriver):
    def handle(self, event):
        raise OSError("the driver is broken")


class Engine:
    """Feeds one event, at which the driver breaks."""

    def __init__(self, driver, error=None):
        self.driver = driver
        self.error = error

    def post(self, event): ...

    def hurry(self): ...

    def prepare(self, task): ...

    def close(self): ...

    def drive(self, told):
        if self.error is not None:
            raise self.error
        self.driver.handle(None)


@pytest.mark.timeout(20)
def test_a_driver_that_breaks_ends_all_runs():
    driver = BrokenDriver("broken")
    session = DrivenSession("0" * 32, driver, Engine(driver))
    node = session.add(Request(one, "one-0", ()))
    told = []
    assert session.wait([node])
    session.on_final(node, lambda: told.append(1))
    (state,) = session.close()
    assert isinstance(state, Crashed)
    assert state.message == "OSError: the driver is broken"
    assert session.state(node).timestamp == state.timestamp
    assert told == [1]


@pytest.mark.timeout(20)
def test_a_defect_of_the_package_is_raised_where_the_flow_ends():
    driver = BrokenDriver("broken")
    session = DrivenSession("0" * 32, driver, Engine(driver, InternalError("defect")))
    for _ in range(2):
        with pytest.raises(InternalError, match="defect"):
            session.close()
