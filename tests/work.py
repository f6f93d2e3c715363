"""Work: how much a piece of code does, in a measure that no busy machine changes."""

import sys


def calls_of(function):
    """Number of calls that a function makes, directly or not, of Python and of C."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
