"""Values that are counted while they are alive."""

from __future__ import annotations

import pickle

from benchmarks.scale import Counted, begin_lane, end_lane, go_on, most_alive


def test_values_are_counted_while_they_are_alive():
    most_alive()
    before = Counted.alive

    values = [begin_lane(number) for number in range(3)]
    del values
    one = begin_lane(7)

    assert Counted.alive == before + 1
    assert most_alive() == before + 3
    assert end_lane(go_on(one)) == 7
    assert most_alive() == before + 2
    del one
    assert Counted.alive == before


def test_a_value_that_was_unpickled_counts_as_well():
    before = Counted.alive

    copy = pickle.loads(pickle.dumps(Counted(3)))

    assert copy.number == 3
    assert Counted.alive == before + 1
