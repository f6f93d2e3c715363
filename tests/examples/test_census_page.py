"""The page of the census: the figures that are drawn, and that it stands alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from census_page import histogram, largest, page_of, quantile, shortened
from stdlib_census import Package, Totals


def package(name, lines, longest="f.py: f"):
    return Package(name, 1, 0, lines, 1, 1, 1, 7, longest)


@pytest.fixture
def totals():
    return Totals(
        packages=(package("alpha", 30), package("beta", 20), package("test", 4000)),
        functions_by_length={1: 3, 250: 1},
        unparsed=(("test/bad.py", "SyntaxError: <b>invalid</b> syntax (line 1)"),),
    )


def test_a_package_that_dwarfs_all_others_is_set_aside(totals):
    shown, aside = largest(totals.packages)
    assert [p.package for p in shown] == ["alpha", "beta"]
    assert [p.package for p in aside] == ["test"]


def test_nothing_is_set_aside_among_equals():
    packages = [package("a", 10), package("b", 40)]
    assert [p.package for p in largest(packages)[0]] == ["b", "a"]
    assert largest(packages)[1] == []
    assert largest([]) == ([], [])


lengths = st.dictionaries(st.integers(1, 300), st.integers(1, 50))


@given(lengths)
def test_each_function_up_to_the_end_is_in_one_bin(functions_by_length):
    bins = histogram(functions_by_length, width=2, upto=100)
    within = sum(n for length, n in functions_by_length.items() if length <= 100)
    assert sum(bins["functions"]) == within


@given(lengths.filter(bool))
def test_the_median_is_that_of_the_sorted_lengths(functions_by_length):
    each = sorted(k for k, n in functions_by_length.items() for _ in range(n))
    assert quantile(functions_by_length, 0.5) == each[(len(each) - 1) // 2]


def test_the_quantile_of_no_functions_is_zero():
    assert quantile({}, 0.5) == 0


def test_a_long_label_loses_its_middle():
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("abc", 7) == "abc"


def test_the_page_loads_nothing_from_elsewhere(totals):
    page = page_of(totals, "Census of <this>")
    assert not re.search(r"<script[^>]+src=|<link[^>]+href=|@import", page)
    assert "Census of &lt;this&gt;" in page
    assert "test/bad.py" in page


def test_a_page_without_functions_and_failures_is_drawn():
    empty = package("alpha", 0, longest="")
    assert "alpha" in page_of(Totals((empty,), {}, ()), "Census")
