"""Workers that come and go: a local cluster's come back, and none at all is told."""

import logging

import pytest
from distributed import Client, LocalCluster

from prefect_dask_core.runners import workforce
from prefect_dask_core.runners.workforce import Workforce, bring_back


@pytest.fixture
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def give_up(cluster, name):
    """As the cluster does with a worker that is not back in time."""
    worker = cluster.workers.pop(name)
    cluster.sync(worker.close)


def test_a_worker_that_a_local_cluster_gave_up_comes_back(cluster, client):
    force = Workforce(client)
    assert force.threads() == 2
    assert not force.lost
    give_up(cluster, 0)
    assert force.threads() == 1
    assert force.lost
    client.wait_for_workers(2, timeout=30)
    assert len(cluster.workers) == 2
    assert force.threads() == 2


def test_a_cluster_gets_no_more_workers_than_were_asked_for(cluster, client):
    force = Workforce(client)
    force.threads()
    cluster.scale(1)
    while force.threads() > 1:
        pass
    assert force.lost
    assert len(cluster.worker_spec) == 1


def test_a_client_without_a_cluster_object_is_left_alone():
    bring_back(None)


def test_a_run_without_workers_says_so_once(caplog):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        Client(empty) as client,
    ):
        force = Workforce(client, patience=0.0)
        with caplog.at_level(logging.WARNING, workforce.__name__):
            assert [force.threads() for _ in range(3)] == [0, 0, 0]
        [record] = caplog.records
        told = record.getMessage()
    assert "the run waits: the cluster at inproc://" in told
    assert "has no workers" in told
    assert "start one, as `dask worker inproc://" in told
