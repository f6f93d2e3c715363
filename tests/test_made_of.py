"""What nodes are made of: digests that a resumed run compares."""

from __future__ import annotations

import datetime
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.plan import Input
from prefect_dask_core.made_of import (
    MOST_PARTS,
    Items,
    MadeOf,
    _digest_of,
    change_of,
    digest,
)
from prefect_dask_core.results.keeping import MadeAnew


def mapped(values):
    return Input("x", None, values, mapped=True, flattened=False, edge=None)


def made_of(values):
    return MadeOf({"x": _digest_of(mapped(values))})


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_a_list_differs_where_its_items_do(before, now):
    change = change_of(made_of(now), made_of(before), [mapped(now)])

    differ = {n for n, x in enumerate(now) if before[n : n + 1] != [x]}
    assert change.indexes == differ
    assert change.resized == (len(before) != len(now))
    assert bool(change) == (before != now)


@pytest.mark.parametrize("grown", [10, 2 * MOST_PARTS])
def test_a_list_that_outgrows_its_digests_keeps_what_it_had(grown):
    before = list(range(MOST_PARTS - 5))
    now = list(range(len(before) + grown))

    change = change_of(made_of(now), made_of(before), [mapped(now)])

    assert change.indexes == set(range(len(before), len(now)))


def test_of_a_long_list_a_part_differs_and_little_is_written():
    before = list(range(100_000))
    now = before.copy()
    now[70_000] = -1

    change = change_of(made_of(now), made_of(before), [mapped(now)])

    assert 70_000 in change.indexes
    assert len(change.indexes) == 128
    assert len(made_of(now).encode()) < 20_000


def test_values_that_look_alike_differ():
    values = [
        1,
        True,
        1.0,
        "1",
        (1,),
        [1],
        {1: 2},
        {"1": 2},
        b"1",
        None,
        np.zeros(2),
        np.zeros(2, int),
        np.zeros((2, 1)),
        [np.zeros(2)],
        datetime.date(2026, 1, 1),
    ]
    assert len({digest(value) for value in values}) == len(values)


def test_a_digest_is_the_same_in_another_process():
    value = {"a": [1, "a", "ab", 2.5, None], "b": ("a", datetime.date(2026, 1, 1))}
    code = (
        "import datetime\nfrom prefect_dask_core.made_of import digest\n"
        f"print(digest({value!r}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == digest(value)


def test_what_has_no_digest_is_not_compared():
    assert digest(object()) is None
    assert not change_of(made_of([object()]), made_of([object()]))


def test_secrets_have_no_digest():
    found = Input("api_token", None, "abc", False, False, None)
    assert _digest_of(found) is None


def test_what_was_made_anew_is_written_down():
    for indexes in (None, frozenset({1, 2, 9})):
        found = MadeOf({"x": Items(0, 1, ())}, "s", MadeAnew(5.0, indexes))
        assert MadeOf.decode(found.encode()) == found
    again = MadeAnew(9.0, frozenset({1}), MadeAnew(5.0, None))
    assert again.covers(1, 8.0)
    assert again.covers(2, 4.0)
    assert not again.covers(2, 8.0)
