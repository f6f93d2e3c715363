"""What workers tell of blocks: numbers that are right, texts without secrets."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.runners.digests import (
    MOST_FAILURES,
    MOST_SAMPLED,
    Digest,
    PlainDigest,
    ReportDigest,
    counts_of,
    digest_of,
    read,
    told,
)
from prefect_dask_core.runners.redaction import (
    HIDDEN,
    TRACEBACK_LENGTH,
    VALUE_LENGTH,
    message_of,
    short_text,
    traceback_of,
    without_secrets,
)
from prefect_dask_core.states import Crashed, Failed, TriggerFailed


def failed_segment(count, message="no", error=None):
    segment = Segment(0)
    segment.open(count)
    for offset in range(count):
        segment.put(offset, Failed(message, data=error), 1.0, 2.0)
    return segment


@given(codes=st.lists(st.integers(0, len(STATE_BY_CODE) - 1), max_size=300))
def test_the_counts_are_those_of_the_codes(codes):
    counted = dict(counts_of(bytes(codes)))
    assert counted == {code: codes.count(code) for code in set(codes)}


@given(count=st.integers(1, 2_000), milliseconds=st.integers(1, 1_000))
def test_durations_of_some_stand_for_all(count, milliseconds):
    segment = Segment(0)
    segment.open(count)
    for offset in range(count):
        segment.codes[offset] = 0
        segment.begins[offset] = 1_000.0
        segment.ends[offset] = 1_000.0 + milliseconds / 1e3
    digest = digest_of(0, True, segment)
    assert digest.busy == pytest.approx(count * milliseconds / 1e3, rel=0.05)
    assert sum(number for _, number in digest.durations) == count
    assert len(digest.durations) == 1
    assert MOST_SAMPLED == 64


def test_a_digest_is_as_small_for_many_failures_as_for_few():
    digest = digest_of(0, True, failed_segment(5_000))
    assert digest.counts == ((3, 5_000),)
    assert [failure.child for failure in digest.failures] == list(range(MOST_FAILURES))


def test_a_digest_travels_as_plain_tuples():
    error = ValueError("odd")
    segment = failed_segment(2, error=error)
    digests = (PlainDigest(4, 1.0, 2.0), digest_of(0, True, segment))
    report = ReportDigest(7, 3, ((1.0, 2.0),), digests)
    message = msgpack.unpackb(msgpack.packb(told(report)), use_list=False)
    assert read(message) == report
    assert [type(one) for one in read(message).digests] == [PlainDigest, Digest]


def test_what_its_trigger_refused_was_not_tried():
    segment = Segment(0)
    segment.open(2)
    segment.put(0, TriggerFailed("refused"), 1.0, 1.0)
    segment.put(1, Failed("no"), 1.0, 2.0)
    attempts = [text.attempts for text in digest_of(0, True, segment).failures]
    assert attempts == [0, 1]


def test_what_nobody_ran_has_no_attempts_and_no_begin():
    segment = Segment(0)
    segment.open(1)
    segment.put(0, Crashed("its worker died"), 0.0, 0.0, attempts=0)
    digest = digest_of(0, False, segment)
    assert (digest.attempts, digest.retried, digest.begin) == (0, 0, 0.0)
    assert digest.durations == ()


# -- texts -------------------------------------------------------------------------


class Loud:
    """Says more than it should, if it is asked."""

    def __repr__(self):
        raise AssertionError("no repr of the user's is called")


class LoudError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ann:{SECRET}@db.example/prices",
        f"password={SECRET}",
        f"password: {SECRET}, then more",
        f"{{'api_key': '{SECRET}'}}",
        f'token = "{SECRET} {SECRET}"',
        f"Authorization: Bearer {SECRET}",
        f"client_secret={SECRET}&x=1",
        f'password="{SECRET} that is cut off',
    ],
)
def test_what_looks_like_a_secret_is_left_out_of_messages(text):
    assert SECRET in text
    assert SECRET not in without_secrets(text)
    assert HIDDEN in without_secrets(text)
    assert SECRET not in message_of(text)


def test_values_are_shown_in_a_few_words():
    assert short_text("x", Loud()) == "<Loud>"
    assert short_text("xs", [Loud()] * 3) == "[<Loud>, <Loud>, <Loud>]"
    assert short_text("row", {"token": SECRET, "n": 1}) == "{'token': <hidden>, 'n': 1}"
    assert short_text("password", SECRET) == HIDDEN
    assert len(short_text("text", "a" * 10_000)) <= VALUE_LENGTH
    assert short_text("many", list(range(10**6))).endswith("… 999,996 more]")
    assert short_text("deep", [[[[1]]]]) == "[[[… 1]]]"


def test_a_traceback_begins_in_the_code_of_the_user():
    def body():
        raise ValueError(f"password={SECRET}")

    with pytest.raises(ValueError, match="password") as caught:
        body()
    text = traceback_of(caught.value)
    assert text.startswith("Traceback (most recent call last)")
    assert "in body" in text
    assert text.endswith("ValueError: password=<hidden>")


@pytest.mark.parametrize("letter", ["x", "a_", "token", "://", " ", "=", "'", '"'])
def test_a_long_text_takes_no_longer_than_its_length(letter):
    # By the timeout of the suite: what is not linear takes minutes for this.
    without_secrets(letter * 200_000)


def test_a_long_traceback_keeps_its_end():
    with pytest.raises(ValueError, match="xxx") as caught:
        raise ValueError("x" * 100_000 + "the end")
    text = traceback_of(caught.value)
    assert len(text) <= TRACEBACK_LENGTH
    assert text.endswith("the end")


def test_an_error_without_a_text_is_told_all_the_same():
    assert "LoudError" in traceback_of(LoudError())
