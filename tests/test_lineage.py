"""Assets: their keys, who makes them, and what a flow run records of them."""

import asyncio

import pytest

from prefect_dask_core import (
    Asset,
    AssetProperties,
    MaterializingTask,
    Task,
    add_asset_metadata,
    flow,
    materialize,
    task,
)
from prefect_dask_core.errors import (
    MissingContextError,
    OptionTypeError,
    OptionValueError,
)

RAW, CLEAN, OTHER = Asset("s3://b/raw"), Asset("s3://b/clean"), Asset("db://other")


@materialize(RAW, by="loader")
def load():
    add_asset_metadata(RAW, {"rows": 3})
    RAW.add_metadata({"ok": True})
    return [1, 2]


@task
def plain(x):
    return [*x, 3]


@materialize(CLEAN, asset_deps=[OTHER])
def clean(x):
    return len(x)


def records_of(function, runner):
    state = flow(function, task_runner=runner)(return_state=True)
    return [(r.asset.key, r.event, r.run) for r in state.assets], state.assets


@pytest.mark.parametrize("how", ["called", "submitted"])
def test_lineage_goes_through_plain_tasks(how, flow_runner):
    def called():
        return clean(plain(load()))

    def submitted():
        return clean.submit([plain.submit(load.submit())][0])

    told, records = records_of(
        {"called": called, "submitted": submitted}[how], flow_runner
    )
    assert told == [
        (RAW.key, "succeeded", "load-0"),
        (CLEAN.key, "succeeded", "clean-0"),
        (OTHER.key, "referenced", "clean-0"),
        (RAW.key, "referenced", "clean-0"),
    ]
    assert records[0].metadata == {"rows": 3, "ok": True}
    assert records[0].by == "loader"
    assert records[1].upstream == (OTHER, RAW)


def test_a_failure_is_recorded(flow_runner):
    @materialize(CLEAN)
    def broken():
        raise ValueError("no")

    def body():
        broken.submit().wait()

    assert records_of(body, flow_runner)[0] == [(CLEAN.key, "failed", "broken-0")]


def test_plain_flows_record_nothing(flow_runner):
    assert records_of(lambda: plain([1]), flow_runner) == ([], ())


def test_children_and_coroutines_materialize_too(flow_runner):
    @materialize(RAW)
    async def fetch(n):
        await asyncio.sleep(0)
        add_asset_metadata(RAW.key, {n: True})
        return n

    def body():
        return fetch.map([1, 2])

    told, records = records_of(body, flow_runner)
    assert told == [(RAW.key, "succeeded", "fetch-0")]
    assert records[0].metadata == {1: True, 2: True}


def test_metadata_belongs_to_an_asset_of_the_running_task():
    with pytest.raises(MissingContextError, match="in the body of a running task"):
        RAW.add_metadata({})

    @materialize(RAW)
    def wrong():
        add_asset_metadata(CLEAN, {})

    with pytest.raises(OptionValueError, match="does not materialize 's3://b/clean'"):
        wrong()


def test_a_variant_keeps_assets_unless_given_others():
    variant = load.with_options(retries=2)
    assert isinstance(variant, MaterializingTask)
    assert (variant.assets, variant.materialized_by, variant.retries) == (
        (RAW,),
        "loader",
        2,
    )
    assert load.with_options(assets=["db://new"]).assets == (Asset("db://new"),)
    assert load.assets == (RAW,)


def test_an_asset_is_needed():
    for wrong in ((), (3,)):
        with pytest.raises(OptionTypeError, match="needs an asset"):
            materialize(*wrong)
    with pytest.raises(OptionTypeError, match="at least one asset"):
        MaterializingTask(len, assets=[])


@pytest.mark.parametrize(
    "key", ["sales.csv", "S3://b/x", "s3://b x", "s3://b?x", "s3://" + "x" * 520, ""]
)
def test_a_key_is_a_plain_uri(key):
    with pytest.raises(OptionValueError, match="is no key of an asset"):
        Asset(key)
    with pytest.raises(OptionValueError):
        Task(len, asset_deps=[key])


def test_assets_are_equal_by_their_keys():
    described = Asset(RAW.key, AssetProperties(name="raw", owners=["me"]))
    assert described == RAW
    assert hash(described) == hash(RAW)
    assert described.properties.owners == ("me",)
    with pytest.raises(OptionTypeError, match="is a string"):
        Asset(3)
    with pytest.raises(OptionValueError, match="has 2501 characters"):
        AssetProperties(description="x" * 2501)
    with pytest.raises(OptionTypeError, match="a list of assets"):
        Task(len, asset_deps="s3://b/x")
