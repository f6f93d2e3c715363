"""Moments come back as they were, whatever they are."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.moments import pack_moments, unpack_moments

moments = st.floats() | st.floats(1.7e9, 1.9e9)


def size_of(packed):
    return sum(
        len(part) if isinstance(part, bytes) else size_of(part) for part in packed
    )


def raw(times):
    return array("d", times).tobytes()


def there_and_back(begins, ends):
    packed = pack_moments(raw(begins), raw(ends))
    return unpack_moments(len(ends), *packed)


@given(st.lists(st.tuples(moments, moments), max_size=40))
def test_any_moments_come_back(pairs):
    begins, ends = [a for a, _ in pairs], [b for _, b in pairs]
    assert there_and_back(begins, ends) == (raw(begins), raw(ends))


@given(st.lists(moments, min_size=1, max_size=40), st.integers(1, 40))
def test_moments_that_follow_each_other_come_back(times, repeated):
    times = times * repeated
    begins, ends = times[:-1], times[1:]
    assert there_and_back(begins, ends) == (raw(begins), raw(ends))


def test_children_one_after_the_other_need_few_bytes():
    times = [1.8e9 + number * 2e-6 for number in range(1_001)]
    assert size_of(pack_moments(raw(times[:-1]), raw(times[1:]))) < 3_100


def test_children_beside_each_other_need_more_and_still_fewer_than_their_moments():
    begins = [1.8e9 + number * 2e-3 for number in range(1_000)]
    ends = [begin + 1.0 for begin in begins]
    assert size_of(pack_moments(raw(begins), raw(ends))) < 8_100
