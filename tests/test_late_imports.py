"""Modules that are loaded when something of them is first used."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import prefect_dask_core
from prefect_dask_core.late_imports import import_late

ROOT = Path(prefect_dask_core.__file__).parent.parent


def test_what_is_not_there_is_told_as_python_tells_it():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = import_late("no_such_module").name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_late("fractions").no_such_name


def test_who_looks_through_the_names_of_a_module_loads_nothing():
    module = import_late("no_such_module")
    assert not hasattr(module, "__wrapped__")
    assert "no_such_module" in repr(module)


def test_a_late_module_travels_as_its_name():
    found = pickle.loads(pickle.dumps(import_late("fractions")))
    assert found.Fraction(1, 2) == 0.5


FIRST_USE = """
import threading
from prefect_dask_core.late_imports import import_late

names = {
    "distributed": "Client",
    "distributed.worker": "thread_state",
    "distributed.client": "_current_client",
    "prefect_dask_core.runners.dask_session": "DaskSession",
    "prefect_dask_core.runners.dask_run": "DaskRun",
    "prefect_dask_core.runners.worker": "run_on_worker",
}
begin = threading.Barrier(2 * len(names))
found = []

def use(name, attribute):
    begin.wait()
    try:
        found.append(getattr(import_late(name), attribute) is not None)
    except BaseException as error:
        found.append(error)

threads = [threading.Thread(target=use, args=item) for item in 2 * list(names.items())]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(found == [True] * len(threads) or found)
"""


def test_threads_that_use_what_is_loaded_late_at_once_all_find_it():
    for _ in range(3):  # another order each time
        found = subprocess.run(
            [sys.executable, "-c", FIRST_USE],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert found.stdout.strip() == "True", found.stdout + found.stderr
