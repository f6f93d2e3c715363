"""Generators that keep their values hand out the same, run or not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from prefect_dask_core import ResultStore, SequentialTaskRunner, flow, task
from prefect_dask_core.cache_validators import all_inputs
from prefect_dask_core.results import INPUTS

RUNS = []


@pytest.fixture(autouse=True)
def _fresh():
    RUNS.clear()


def numbers(n):
    RUNS.append(n)
    for number in range(n):
        if number == 5:
            raise ValueError("five")
        yield number
    return "the end"


async def later_numbers(n):
    for number in numbers(n):
        yield number


def values(generator):
    """All that a generator of either kind yields."""
    if not hasattr(generator, "__aiter__"):
        return list(generator)

    async def read():
        return [value async for value in generator]

    return asyncio.run(read())


@pytest.fixture(params=[numbers, later_numbers])
def kept(request, tmp_path):
    return task(request.param, name="n", cache_policy=INPUTS, result_storage=tmp_path)


def test_a_generator_hands_out_what_it_has_stored(kept):
    assert values(kept(3)) == values(kept(3)) == [0, 1, 2]
    assert values(kept(0)) == values(kept(0)) == []
    assert RUNS == [3, 0]


def test_a_generator_that_is_called_and_one_that_is_submitted_share_a_value(kept):
    @flow(task_runner=SequentialTaskRunner())
    def both():
        return kept.map([3, 4]).result()

    assert values(kept(3)) == [0, 1, 2]
    assert both() == [[0, 1, 2], [0, 1, 2, 3]]
    assert values(kept(4)) == [0, 1, 2, 3]
    assert sorted(RUNS) == [3, 4]


def test_values_are_handed_out_as_they_come_and_a_part_does_not_stand_for_all(
    kept, tmp_path
):
    generator = kept(3)

    async def leave():
        assert await anext(generator) == 0
        await generator.aclose()

    if hasattr(generator, "__aiter__"):
        asyncio.run(leave())
    else:
        assert next(generator) == 0
        generator.close()
    assert ResultStore(tmp_path).list_keys() == []
    assert values(kept(3)) == [0, 1, 2]


def test_values_before_a_failure_are_not_stored(kept):
    for _ in range(2):
        with pytest.raises(ValueError, match="five"):
            values(kept(7))
    assert RUNS == [7, 7]


def test_a_reader_gets_what_a_generator_returns(tmp_path):
    def read(made):
        found = yield from made(2)
        yield found

    assert list(read(task(numbers))) == [0, 1, "the end"]
    kept = task(numbers, result_storage=tmp_path, cache_policy=INPUTS)
    assert list(read(kept)) == [0, 1, "the end"]


def test_a_generator_hands_out_what_is_in_memory():
    cached = task(
        numbers,
        name="numbers in memory",
        cache_for=timedelta(hours=1),
        cache_validator=all_inputs,
    )
    assert list(cached(3)) == list(cached(3)) == [0, 1, 2]
    assert RUNS == [3]


def test_a_resumed_flow_reads_what_a_generator_had_stored(tmp_path):
    kept = task(numbers, name="kept", persist_result=True, result_storage=tmp_path)
    bad = [True]

    @flow(task_runner=SequentialTaskRunner())
    def total(n):
        found = sum(kept(n))
        if bad:
            raise ValueError(found)
        return found

    with pytest.raises(ValueError, match="6"):
        total(4)
    (key,) = ResultStore(tmp_path).list_keys()
    run_id = ResultStore(tmp_path).read(key).metadata.flow_run_id
    bad.clear()
    assert total.resume(run_id, {"n": 4}) == 6
    assert RUNS == [4]
