"""Stores on local files, in memory, in a bucket, and where files have to be moved."""

from __future__ import annotations

import uuid

import pytest

from prefect_dask_core.results.store import ResultStore


@pytest.fixture(params=["local", "memory", "moved", "s3"])
def store(request, tmp_path):
    """A store that is empty."""
    name = uuid.uuid4().hex
    if request.param == "local":
        return ResultStore(tmp_path)
    if request.param == "memory":
        return ResultStore(f"memory://{name}")
    if request.param == "moved":  # fsspec's own file system, for any that has files
        return ResultStore(f"local://{tmp_path}")
    url, options = request.getfixturevalue("bucket")
    return ResultStore(f"{url}/{name}", storage_options=options)
