"""What a worker says of a task that it cannot load."""

import sys
import threading
import time
from types import ModuleType

from prefect_dask_core import DaskTaskRunner, Flow, Task, flatten


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


def test_a_child_that_cannot_travel_shifts_no_element_of_its_neighbours(process_client):
    # All in one block each: the first children tell that they are fast.
    def parts(n):
        return [threading.Lock()] * 3 if n == 60 else [f"{n}.{m}" for m in range(3)]

    def read(x):
        time.sleep(0.01)  # so that both workers read of each block
        return x

    with Flow("shifted") as flow:
        made = Task(parts).map(list(range(150)))
        found = Task(read).map(flatten(made))
    runner = DaskTaskRunner(cluster=process_client)
    state = flow.run(task_runner=runner, return_tasks=[made, found])
    assert "cannot be pickled" in state[made].states[60].message
    assert [
        child.result() if child.is_successful() else type(child).__name__
        for child in state[found].states
    ] == [
        element
        for n in range(150)
        for element in (
            ["TriggerFailed"] if n == 60 else [f"{n}.{m}" for m in range(3)]
        )
    ]
