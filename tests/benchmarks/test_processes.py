"""What processes hold."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.processes import (
    forget_peak,
    in_fresh_process,
    peak_megabytes,
    resident_megabytes,
    status_megabytes,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@LINUX
def test_memory_that_is_given_back_is_still_in_the_peak():
    begin = forget_peak()
    piece = bytearray(50_000_000)
    most = resident_megabytes()
    del piece

    assert most > begin + 40
    assert peak_megabytes() > begin + 40
    assert resident_megabytes() < begin + 40


@LINUX
def test_an_earlier_peak_is_forgotten():
    piece = bytearray(50_000_000)
    del piece

    begin = forget_peak()

    assert peak_megabytes() < begin + 10


def test_a_system_that_does_not_say_is_told_of():
    with pytest.raises(RuntimeError, match="has no VmHWM"):
        status_megabytes("VmRSS:\t 1 kB\n", "VmHWM")


def test_a_fresh_process_is_another_one():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_an_error_in_a_fresh_process_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        in_fresh_process(divmod, 1, 0)
