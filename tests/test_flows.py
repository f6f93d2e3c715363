import cloudpickle
import pytest

from prefect_dask_core import Flow, Parameter, SequentialTaskRunner, task
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.tasks import Task


@task
def double(x):
    return 2 * x


def saved_flow(name="twice"):
    with Flow(name) as flow:
        double.map(Parameter("xs"))
    return flow


def test_a_saved_flow_can_be_loaded_and_run(tmp_path):
    path = saved_flow().save(tmp_path / "a.flow")
    assert path == tmp_path / "a.flow"
    flow = Flow.load(path)
    state = flow.run(xs=[1, 2], task_runner=SequentialTaskRunner())
    assert state["double"].result() == [2, 4]
    assert flow.name == "twice"


def test_a_flow_is_saved_under_its_name_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert saved_flow("a / b: c").save().name == "a-b-c.flow"
    assert [path.name for path in tmp_path.iterdir()] == ["a-b-c.flow"]
    assert Flow.load("a-b-c.flow").name == "a / b: c"


def test_a_flow_that_cannot_be_saved_leaves_what_was_there(tmp_path):
    path = saved_flow().save(tmp_path / "a.flow")
    before = path.read_bytes()
    with Flow("f") as flow, pytest.raises(TypeError, match="inside its own block"):
        flow.save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.flow"]


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "a.flow"
    path.write_bytes(cloudpickle.dumps([1]))
    with pytest.raises(OptionTypeError, match="holds a list, no flow"):
        Flow.load(path)


def test_a_flow_has_a_version_and_a_description():
    flow = Flow("f", version="2", description="a flow")
    assert (flow.version, flow.description) == ("2", "a flow")
    assert flow.serialize()["version"] == "2"
    assert flow == Flow("f", version="2")
    assert flow != Flow("f")
    assert flow.copy().version == "2"


def test_flows_are_compared_and_not_hashed():
    made = Task("t")
    assert Flow("f", tasks=[made]) == Flow("f", tasks=[made])
    assert Flow("f", tasks=[made]) != Flow("f")
    assert Flow("f") != "f"
    with pytest.raises(TypeError):
        hash(Flow("f"))
