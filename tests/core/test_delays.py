"""Delays as callers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.delays import FORMATS, BadDelay, read_delay

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
delays = st.integers(0, 3650 * DAY)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("5000", 5_000),
        ("5000.0", 5_000),
        ("PT60S", 60_000),
        ("pt60s", 60_000),
        ("PT0.5S", 500),
        ("PT0,5S", 500),
        ("P1DT12H", 36 * HOUR),
        ("P1W", 7 * DAY),
        ("PT1H30M", 90 * MINUTE),
        ("10ms", 10),
        ("60s", 60_000),
        ("60 sec", 60_000),
        ("1h 30m", 90 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("1 hour, 30 minutes", 90 * MINUTE),
        ("1.5 Hours", 90 * MINUTE),
        ("2 days", 2 * DAY),
        ("100µs", 1),  # rounded up: never early
        ("1ns", 1),
        ("3650d", 3650 * DAY),
        (" 5s ", 5_000),
    ],
)
def test_every_usual_way_to_write_a_delay_is_understood(text: str, milliseconds: int) -> None:
    assert read_delay(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "-5", "-5s", "PT-5S", "P", "PT", "P1DT", "P1Y", "P1M", "1 month", "5 s s", "s", "5 5", "5s 5",
     "٥", "5" * 1000, "1e3", "inf", "nan", "0x10", "5;", "5s,,5s", "1h30", "3651d", "9" * 30, "\0", "5\n6"],
)  # fmt: skip
def test_what_is_no_delay_or_a_mad_one_is_refused_with_the_formats(text: str) -> None:
    with pytest.raises(BadDelay) as refused:
        read_delay(text)
    assert refused.value.hint == FORMATS
    assert "PT60S" in FORMATS
    assert "1h 30m" in FORMATS


@given(delays)
def test_a_bare_number_is_milliseconds(delay: int) -> None:
    assert read_delay(str(delay)) == delay


@given(delays)
def test_an_iso_duration_reads_as_what_it_was_written_from(delay: int) -> None:
    days, rest = divmod(delay, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    assert read_delay(f"P{days}DT{hours}H{minutes}M{rest // 1000}.{rest % 1000:03}S") == delay


@given(
    delays,
    st.sampled_from(["{}d {}h {}m {}s {}ms", "{}days{}hrs{}mins{}secs{}msecs", "{} day, {} hour, {} min, {} s, {} ms"]),
)
def test_a_friendly_delay_reads_as_what_it_was_written_from(delay: int, form: str) -> None:
    days, rest = divmod(delay, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    assert read_delay(form.format(days, hours, minutes, *divmod(rest, SECOND))) == delay


@given(st.text(max_size=200) | st.text(alphabet="0123456789PTHMSDWdhms.,- ", max_size=200))
def test_any_text_is_a_delay_within_bounds_or_refused(text: str) -> None:
    try:
        delay = read_delay(text)
    except BadDelay:
        return
    assert 0 <= delay <= 3650 * DAY
