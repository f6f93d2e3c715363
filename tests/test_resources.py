import pickle

import cloudpickle
import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    apply_map,
    case,
    resource_manager,
    task,
)
from prefect_dask_core.errors import GraphError, OptionTypeError
from prefect_dask_core.resources import ResourceBlock, ResourceManager
from prefect_dask_core.signals import SKIP

LOG = []


@pytest.fixture(autouse=True)
def _empty_log():
    LOG.clear()


@resource_manager
class Connection:
    def __init__(self, name, fails_in=None):
        if fails_in == "init":
            raise OSError("init")
        self.name, self.fails_in = name, fails_in

    def setup(self):
        if self.fails_in == "setup":
            raise OSError("setup")
        if self.fails_in == "skip":
            raise SKIP
        LOG.append(f"open {self.name}")
        return f"connection to {self.name}"

    def cleanup(self, connection):
        LOG.append(f"close {connection}")
        if self.fails_in == "cleanup":
            raise OSError("cleanup")


@resource_manager(name="temporary", cleanup_task_kwargs={"retries": 2})
class Temporary:
    def cleanup(self, nothing):
        LOG.append(f"cleaned {nothing}")


@task
def use(connection, how="well"):
    LOG.append(f"use {connection}")
    if how == "badly":
        raise ValueError("badly")
    if how == "not":
        raise SKIP
    return how


@task
def note(text):
    LOG.append(text)


def one_block(how="well", fails_in=None):
    with Flow("f") as flow, Connection("db", fails_in) as connection:
        used = use(connection, how)
        noted = note("noted")
    return flow, used, noted


def in_order(flow, **parameters):
    return flow.run(parameters, task_runner=SequentialTaskRunner())


def test_a_resource_is_made_before_and_cleaned_up_after_the_block(run):
    flow, used, _ = one_block()
    state = run(flow)
    assert state.is_successful()
    assert LOG[0] == "open db"
    assert LOG[-1] == "close connection to db"
    assert sorted(LOG[1:-1]) == ["noted", "use connection to db"]
    assert state[used].result() == "well"


def test_a_resource_is_cleaned_up_after_a_failure(run):
    flow, used, _ = one_block("badly")
    state = run(flow)
    assert state.is_failed()
    assert state[used].is_failed()
    assert LOG[-1] == "close connection to db"
    assert state["Connection.cleanup"].is_successful()


def test_a_resource_is_cleaned_up_after_a_skip():
    flow, *_ = one_block("not")
    assert in_order(flow)["Connection.cleanup"].is_completed()
    assert LOG[-1] == "close connection to db"


@pytest.mark.parametrize("place", ["init", "setup"])
def test_a_resource_that_could_not_be_made_is_not_cleaned_up(run, place):
    flow, used, _ = one_block(fails_in=place)
    state = run(flow)
    assert state.is_failed()
    assert type(state[used]).__name__ == "TriggerFailed"
    assert state["Connection.cleanup"].is_skipped()
    assert LOG == []


def test_a_resource_whose_making_was_skipped_is_not_cleaned_up():
    flow, used, _ = one_block(fails_in="skip")
    state = in_order(flow)
    assert state[used].is_skipped()
    assert state["Connection.cleanup"].is_skipped()
    assert state.is_successful()


def test_a_failed_clean_up_does_not_fail_the_flow():
    flow, used, noted = one_block(fails_in="cleanup")
    state = in_order(flow)
    assert state.is_successful()
    assert state["Connection.cleanup"].is_failed()
    assert flow.reference_tasks() == {used, noted}


def test_a_resource_without_work_is_judged_by_its_setup():
    with Flow("f") as flow, Connection("db") as connection:
        pass
    assert flow.reference_tasks() == {connection}
    with Flow("f") as flow, Temporary():
        pass
    assert not flow.reference_tasks()
    assert in_order(flow).is_successful()


def test_what_comes_after_the_block_does_not_wait_for_the_clean_up():
    with Flow("f") as flow:
        with Connection("db") as connection:
            used = use(connection)
        later = note(used)
    (cleanup,) = flow.get_tasks(name="Connection.cleanup")
    assert flow.downstream_tasks(used) == {later, cleanup}
    assert flow.reference_tasks() == {later}


def test_the_tasks_of_a_manager_are_named_after_it():
    flow, *_ = one_block()
    names = {made.name: made for made in flow.tasks}
    assert {"Connection", "Connection.setup", "Connection.cleanup"} <= set(names)
    assert [made.name for made in flow.tasks if made.is_resource] == [
        "Connection",
        "Connection.setup",
        "Connection.cleanup",
    ]
    assert names["Connection.setup"].persist_result is False
    assert names["Connection.cleanup"].persist_result is False


def test_a_manager_may_have_a_name_and_options():
    with Flow("f") as flow, Temporary() as nothing:
        noted = note("inside")
    assert nothing is None
    made, cleanup = (flow.get_tasks(name=f"temporary{s}")[0] for s in ("", ".cleanup"))
    assert cleanup.retries == 2
    assert flow.upstream_tasks(noted) == {made}
    in_order(flow)
    assert LOG == ["inside", "cleaned None"]


def test_a_parameter_may_be_an_argument(run):
    with Flow("f") as flow, Connection(name=Parameter("name")) as connection:
        use(connection)
    run(flow, name="other")
    assert LOG[0] == "open other"


def test_a_block_in_a_block_is_cleaned_up_first(run):
    with Flow("f") as flow:  # noqa: SIM117
        with Connection("outer") as outer:
            with Connection(outer) as inner:
                use(inner)
    run(flow)
    assert LOG == [
        "open outer",
        "open connection to outer",
        "use connection to connection to outer",
        "close connection to connection to outer",
        "close connection to outer",
    ]


def test_a_resource_outlives_a_case_inside_its_block(run):
    with Flow("f") as flow, Connection("db") as connection, case(Parameter("p"), 1):
        used = use(connection)
        note(used)
    assert run(flow, p=1).is_successful()
    assert LOG[-2:] == ["well", "close connection to db"]
    LOG.clear()
    assert run(flow, p=2)[used].is_skipped()
    assert LOG == ["open db", "close connection to db"]


def test_a_resource_inside_a_case_is_made_only_with_its_value(run):
    with Flow("f") as flow, case(Parameter("p"), 1), Connection("db") as connection:
        used = use(connection)
    state = run(flow, p=2)
    assert state[used].is_skipped()
    assert LOG == []
    assert run(flow, p=1)[used].result() == "well"
    assert LOG[-1] == "close connection to db"


def test_a_mapped_task_is_waited_for_as_a_whole(run):
    with Flow("f") as flow, Connection("db"):
        note.map(["a", "b", "c"])
    run(flow)
    assert (LOG[0], sorted(LOG[1:-1]), LOG[-1]) == (
        "open db",
        ["a", "b", "c"],
        "close connection to db",
    )


def test_a_mapped_function_has_one_resource_per_item(run):
    def visit(name):
        with Connection(name) as connection:
            return use(connection)

    with Flow("f") as flow:
        used = apply_map(visit, ["a", "b"])
    assert run(flow)[used].result() == ["well", "well"]
    assert sorted(LOG) == [
        "close connection to a",
        "close connection to b",
        "open a",
        "open b",
        "use connection to a",
        "use connection to b",
    ]


def test_a_block_that_is_left_by_an_exception_adds_no_clean_up():
    with Flow("f") as flow:
        with pytest.raises(ZeroDivisionError), Connection("db"):
            raise ZeroDivisionError
        assert not flow.get_tasks(name="Connection.cleanup")


def test_a_manager_needs_a_flow():
    with pytest.raises(GraphError, match="Connection adds tasks"):
        Connection("db")
    flow = Flow("f")
    with Connection("db", flow=flow) as connection:
        use(connection, flow=flow)
    assert isinstance(Connection("db", flow=flow), ResourceBlock)
    assert in_order(flow).is_successful()


def test_a_manager_is_made_of_a_class_that_can_clean_up():
    class Careless:
        def setup(self):
            pass

    with pytest.raises(OptionTypeError, match="no method cleanup"):
        resource_manager(Careless)
    with pytest.raises(OptionTypeError, match="decorates a class"):
        resource_manager(print)
    with pytest.raises(TypeError):
        resource_manager(nmae="x")(Careless)


def test_an_instance_travels_by_the_name_of_its_class():
    made = Connection.resource_class("db")
    assert pickle.loads(pickle.dumps(made)).name == "db"
    assert cloudpickle.loads(cloudpickle.dumps(type(made))) is type(made)
    assert isinstance(Connection, ResourceManager)
    assert repr(Connection) == "<resource manager Connection>"
    assert Connection.__name__ == "Connection"


@pytest.mark.slow
def test_a_resource_works_across_worker_processes(process_client):
    flow, used, _ = one_block("badly")
    runner = DaskTaskRunner(cluster=process_client)
    state = flow.run(task_runner=runner)
    assert state[used].is_failed()
    assert state["Connection.cleanup"].is_completed()
