"""What a worker says of a task that it cannot load."""

import sys
from types import ModuleType

from prefect_dask_core import DaskTaskRunner, Flow, Task


def test_a_module_that_workers_lack_is_named(process_client, monkeypatch):
    module = ModuleType("only_at_home")
    exec("def load(x):\n    return x\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_at_home", module)
    with Flow("homely") as flow:
        loaded = Task(module.load, name="load")(1)
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    message = state[loaded].message
    assert "It has no module 'only_at_home': install it there" in message
    assert "client.upload_file(...)" in message
    assert "cloudpickle.register_pickle_by_value(only_at_home)" in message
