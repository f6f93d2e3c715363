"""Measurements as text."""

from __future__ import annotations

import pytest

from benchmarks.comparison import Bar, Measurement, Pair
from benchmarks.table import BEGIN, END, cells, inserted, markdown, text_row

LINE = Measurement("chain", "s", (Pair(3.0, 2.0),), Bar("ratio", 2.0))


def test_a_row_shows_both_sides_and_the_verdict():
    row = text_row(cells(LINE))

    assert row.split()[2:] == ["3.00", "2.00", "1.50", "ratio", "≤", "2", "holds"]


def test_a_markdown_row_has_a_cell_for_each_heading():
    table = markdown([LINE], "Two CPUs.").splitlines()

    assert table[2] == "| chain | s | 3.00 | 2.00 | 1.50 | ratio ≤ 2: holds |"
    assert {row.count("|") for row in table[:3]} == {7}
    assert table[-1] == "Two CPUs."


def test_a_table_takes_the_place_of_the_one_before():
    page = f"# Costs\n{BEGIN}\n{END}\nend\n"

    once = inserted(page, r"a \1 table")

    assert r"a \1 table" in once
    assert inserted(once, r"a \1 table") == once
    assert once.startswith("# Costs\n")
    assert once.endswith("\nend\n")


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}"])
def test_a_page_without_both_markers_is_a_mistake(page):
    with pytest.raises(ValueError, match="the table goes between them"):
        inserted(page, "table")
