"""Which blocks of a fan-out hold which children, and which of its elements."""

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.layouts import lay_out
from tests.engine.books import completed

#: Per block, its children and how many elements they give.
BLOCKS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=8)


@given(BLOCKS, st.randoms(use_true_random=False))
def test_a_span_is_held_by_the_blocks_its_children_and_elements_lie_in(shape, random):
    segments, blocks, by_child, by_element, at = [], [], [], [], 0
    for number, (children, elements) in enumerate(shape):
        segments.append(completed(at, at + children, flat_length=elements))
        blocks.append((number, (at, at + children)))
        by_child += [number] * children
        by_element += [number] * elements
        at += children
    random.shuffle(blocks)
    layout = lay_out(Children(at, segments), blocks)
    assert list(layout.blocks) == list(range(len(shape)))
    for who, find in ((by_child, layout.holding), (by_element, layout.giving)):
        for start in range(len(who)):
            for stop in range(start + 1, len(who) + 1):
                found = [layout.blocks[n] for n in find((start, stop))]
                assert found == sorted(set(who[start:stop]))


def test_what_nobody_has_counted_gives_nothing():
    segments = [completed(0, 2), completed(2, 4, flat_length=3)]
    layout = lay_out(Children(4, segments), [(8, (0, 2)), (9, (2, 4))])
    assert layout.elements == [(0, 0), (0, 3)]
    assert layout.giving((0, 3)) == [1]
