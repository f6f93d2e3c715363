"""Tasks that many tests of function flows call, submit and map."""

from prefect_dask_core import task


@task
def double(x):
    return 2 * x


@task
def fail(x=None):
    raise ValueError(f"no {x}")
