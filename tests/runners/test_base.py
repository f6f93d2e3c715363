"""What every runner can say of itself."""

import pytest

from prefect_dask_core import (
    ConcurrentTaskRunner,
    DaskTaskRunner,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    flow,
    task,
)


@pytest.mark.parametrize(
    ("runner", "name"),
    [
        (SequentialTaskRunner(), "sequential"),
        (ThreadPoolTaskRunner(3), "threadpool"),
        (ConcurrentTaskRunner(3), "threadpool"),
        (DaskTaskRunner(address="tcp://10.0.0.1:8786"), "dask"),
    ],
)
def test_a_runner_has_a_name_and_equal_duplicates(runner, name):
    twin = runner.duplicate()
    assert (runner.name, twin.name) == (name, name)
    assert twin == runner
    assert twin is not runner


def test_a_duplicate_shares_a_given_cluster_and_is_not_open(cluster):
    one = task(lambda: 1, name="one")
    with DaskTaskRunner(cluster=cluster) as runner:
        twin = runner.duplicate()
        assert twin.cluster is cluster
        with pytest.raises(RuntimeError, match="is not open"):
            _ = twin.client
        assert flow(lambda: one.submit(), task_runner=twin)() == 1
        assert runner.client.status == "running"
