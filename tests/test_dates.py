from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.dates import as_moment, date_variables

BERLIN = timezone(timedelta(hours=2))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1))


def test_without_a_date_it_is_the_day_of_the_clock():
    assert date_variables(86400.0 * 59, {}) == {
        "date": datetime(1970, 3, 1, tzinfo=timezone.utc),
        "yesterday": "1970-02-28",
        "yesterday_nodash": "19700228",
        "today": "1970-03-01",
        "today_nodash": "19700301",
        "tomorrow": "1970-03-02",
        "tomorrow_nodash": "19700302",
    }


@given(moments, st.floats(0, 1e10))
def test_a_given_date_is_used_for_all_days(moment, now):
    found = date_variables(now, {"date": moment})
    assert found["date"] == moment.replace(tzinfo=timezone.utc)
    assert found["today"] == moment.date().isoformat()
    for name, days in (("yesterday", -1), ("tomorrow", 1)):
        day = date.fromisoformat(found[name])
        assert day - moment.date() == timedelta(days=days)


@given(moments | moments.map(lambda moment: moment.replace(tzinfo=BERLIN)))
def test_a_date_as_text_is_the_same_date(moment):
    assert date_variables(0.0, {"date": moment.isoformat()}) == date_variables(
        0.0, {"date": moment}
    )


@given(moments)
def test_the_short_form_of_a_day_has_no_dashes(moment):
    found = date_variables(0.0, {"date": moment})
    for name in ("yesterday", "today", "tomorrow"):
        assert found[f"{name}_nodash"] == found[name].replace("-", "")
        assert len(found[f"{name}_nodash"]) == 8


def test_the_day_is_that_of_the_zone_of_the_date():
    late = datetime(2024, 3, 1, 1, tzinfo=BERLIN)
    found = date_variables(0.0, {"date": late})
    assert (found["date"], found["today"]) == (late, "2024-03-01")


def test_a_day_that_was_given_stays():
    found = date_variables(0.0, {"date": "2024-03-01", "yesterday": "friday"})
    assert (found["yesterday"], found["today"]) == ("friday", "2024-03-01")


def test_no_date_given_is_the_date_of_the_clock():
    assert date_variables(0.0, {"date": None}) == date_variables(0.0, {})


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2024-03-01", datetime(2024, 3, 1, tzinfo=timezone.utc)),
        ("20240301", datetime(2024, 3, 1, tzinfo=timezone.utc)),
        ("2024-03-01T12:30:00Z", datetime(2024, 3, 1, 12, 30, tzinfo=timezone.utc)),
        ("2024-03-01 12:30:00+02:00", datetime(2024, 3, 1, 12, 30, tzinfo=BERLIN)),
        (date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=timezone.utc)),
        (datetime(2024, 3, 1, 5), datetime(2024, 3, 1, 5, tzinfo=timezone.utc)),
    ],
)
def test_a_date_is_read_in_every_usual_form(given, moment):
    found = as_moment(given)
    assert found == moment
    assert found.utcoffset() == moment.utcoffset()


@pytest.mark.parametrize("text", ["", "monday", "2024-13-01", "01.03.2024"])
def test_a_text_that_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match="cannot be read; write it as '2024-03-01'"):
        as_moment(text)


def test_a_date_is_not_a_number():
    with pytest.raises(TypeError, match="not 20240301"):
        as_moment(20240301)
