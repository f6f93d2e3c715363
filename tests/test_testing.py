"""The helpers for tests of one's own flows."""

import traceback

import pytest

from prefect_dask_core.testing import Script


def test_the_traceback_of_a_scripted_exception_does_not_grow_from_run_to_run():
    script = Script(ValueError("no"))
    lengths = set()
    for _ in range(3):
        with pytest.raises(ValueError, match="no") as caught:
            script()
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(lengths) == 1
