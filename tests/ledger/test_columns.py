"""Columns: what is written is read again, whatever it is."""

from __future__ import annotations

import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.errors import LedgerError
from prefect_dask_core.ledger.columns import (
    PLAIN,
    Kept,
    Span,
    decode,
    encode,
    indexes_in,
    ranges_of,
)

NAMES = ("Completed", "Failed", "Crashed")
times = st.floats(min_value=0, max_value=4e9)
waits = st.lists(st.tuples(times, times), min_size=1, max_size=3).map(tuple)


def kept_values(count):
    keys = st.tuples(*[st.sampled_from(["", ".", "0f" * 16])] * count)
    return st.builds(Kept, st.just("/tmp/results"), st.just("runs/07/a/"), keys)


@st.composite
def spans(draw):
    plain = draw(st.booleans())
    count = 1 if plain else draw(st.integers(1, 40))
    codes = st.lists(st.integers(0, 2), min_size=count, max_size=count)
    codes |= st.integers(0, 2).map(lambda code: [code] * count)
    moments = draw(st.lists(times, min_size=2 * count, max_size=2 * count))
    step = draw(st.sampled_from([1, count]))  # one begins when the one before ends
    return Span(
        draw(st.integers(0, 2**31 - 1)),
        PLAIN if plain else draw(st.integers(0, 10**12)),
        bytes(draw(codes)),
        array("d", moments[:count]),
        array("d", moments[step : step + count]),
        draw(st.dictionaries(st.integers(0, count - 1), st.integers(0, 9))),
        draw(st.none() | st.sampled_from(["tcp://a:1", "inproc://b/2"])),
        draw(st.none() | kept_values(count)),
        draw(st.dictionaries(st.integers(0, count - 1), waits)),
    )


@given(st.lists(spans(), max_size=8))
def test_a_batch_is_read_as_it_was_written(written):
    found = decode(encode(written, NAMES))

    named = [
        s._replace(states=tuple(NAMES[code] for code in s.states)) for s in written
    ]
    assert found == named


@given(st.lists(st.sampled_from([0, 1, 15, 16, 40]), max_size=4))
def test_spans_of_any_length_are_read_as_they_were_written(lengths):
    times = array("d", range(40))
    written = [Span(1, n, bytes(n), times[:n], times[:n], {}) for n in lengths]
    found = decode(encode(written, NAMES))
    assert [list(span.ends) for span in found] == [list(s.ends) for s in written]


def test_columns_of_another_form_are_told():
    with pytest.raises(LedgerError, match="another ledger"):
        decode(zlib.compress(b"{}"))


def test_a_hundred_thousand_children_take_little_room():
    times = array("d", (1.7e9 + n * 3e-6 for n in range(100_001)))
    span = Span(0, 0, bytes(100_000), times[:-1], times[1:], {})

    assert len(encode([span], NAMES)) < 310_000


@given(st.sets(st.integers(0, 1000)))
def test_indexes_as_text_are_the_same_indexes(indexes):
    assert indexes_in(ranges_of(indexes)) == sorted(indexes)
