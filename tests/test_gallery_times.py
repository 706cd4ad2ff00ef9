from __future__ import annotations

import pytest

from hamr_edge.errors import InputError
from hamr_edge.gallery_times import format_duration, format_moment, parse_duration, parse_moment


def test_moments_are_unix_times_or_dates_in_utc() -> None:
    assert parse_moment("1772323200") == parse_moment("2026-03-01") == 1772323200
    assert parse_moment("2026-03-01T01:00:00+01:00") == 1772323200
    assert parse_moment("1772323200.5") == 1772323200.5
    assert format_moment(1772323200) == "2026-03-01 00:00:00 UTC"


@pytest.mark.parametrize("text", ["20260301", "2026", "0", "-1772323200", "nan", "inf", "-inf", "yesterday", ""])
def test_what_is_no_moment_shows_what_is(text: str) -> None:
    with pytest.raises(InputError, match=r"a date is like 2026-03-01 .*a Unix time has 10 digits"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("30d", 2_592_000), ("90m", 5400), ("1.5s", 1.5), ("12h", 43_200), ("1s", 1)]
)
def test_durations_are_written_as_they_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["30", "0d", "3 days", "-1d", "1e9d", "9999999999d", ""])
def test_what_is_no_duration_shows_what_is(text: str) -> None:
    with pytest.raises(InputError, match="is not like 12h or 30d"):
        parse_duration(text)
