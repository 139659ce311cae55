"""The tool `clock`, with a world whose clock stands still."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import make_world

from llmchat.tools import ToolSettings
from llmchat.tools.clock import tools
from llmchat.tools.running import Finished, run

NOON = datetime(2026, 11, 26, 12, 0, 5, tzinfo=UTC).timestamp()


def ask(settings: ToolSettings, arguments: dict[str, Any], zone: str = "UTC") -> Finished:
    world = msgspec.structs.replace(
        settings.world, now=lambda: NOON, env={**settings.world.env, "TZ": zone}
    )
    (clock,) = tools(msgspec.structs.replace(settings, world=world))
    return run(clock, arguments, timeout_s=30)


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "Thursday, 2026-11-26 12:00:05 UTC (UTC+00:00)"),
        ("Europe/Berlin", "Thursday, 2026-11-26 13:00:05 Europe/Berlin (UTC+01:00)"),
        ("Pacific/Kiritimati", "Friday, 2026-11-27 02:00:05 Pacific/Kiritimati (UTC+14:00)"),
        ("asia/kathmandu", "Thursday, 2026-11-26 17:45:05 Asia/Kathmandu (UTC+05:45)"),
        ("new york", "Thursday, 2026-11-26 07:00:05 America/New_York (UTC-05:00)"),
    ],
)
def test_the_time_in_a_zone_or_a_city(settings: ToolSettings, zone: str, text: str) -> None:
    assert ask(settings, {"timezone": zone}).text == text


def test_the_local_zone_is_that_of_the_world(settings: ToolSettings) -> None:
    assert "21:00:05 Asia/Tokyo" in ask(settings, {}, zone=":Asia/Tokyo").text
    assert ask(settings, {"timezone": "local"}, zone=":Asia/Tokyo").text.endswith("(UTC+09:00)")
    assert ask(settings, {}, zone="no/zone").error == ""


def test_a_default_may_be_written_out(settings: ToolSettings) -> None:
    written = {"timezone": "Local", "date": "today", "since": ""}
    assert ask(settings, written).text == ask(settings, {}).text
    since = ask(settings, {"date": "today", "since": "2026-11-20"}).text
    assert "6 days from 2026-11-20 until 2026-11-26" in since


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            {"date": "2026-12-25"},
            [
                "2026-12-25 is a Friday",
                "29 days from 2026-11-26 until 2026-12-25 (4 weeks and 1 days)",
            ],
        ),
        (
            {"date": "2026-11-20"},
            ["2026-11-20 is a Friday", "6 days from 2026-11-26 back to 2026-11-20"],
        ),
        (
            {"date": "2024-03-01", "since": "2024-02-28"},
            ["2024-03-01 is a Friday", "2 days from 2024-02-28 until 2024-03-01"],
        ),
    ],
)
def test_days_are_counted(
    settings: ToolSettings, arguments: dict[str, Any], lines: list[str]
) -> None:
    assert ask(settings, arguments).text.splitlines()[1:] == lines


@pytest.mark.parametrize("zone", ["", "local", "Local"])
def test_empty_fields_count_as_absent(settings: ToolSettings, zone: str) -> None:
    text = ask(settings, {"timezone": zone, "date": "", "since": ""}).text
    assert text == "Thursday, 2026-11-26 12:00:05 UTC (UTC+00:00)"


def test_today_is_the_day_in_the_zone(settings: ToolSettings) -> None:
    text = ask(settings, {"timezone": "Pacific/Kiritimati", "date": "2026-11-27"}).text
    assert "0 days from 2026-11-27" in text


@given(st.dates(), st.integers(-5000, 5000))
def test_the_count_of_days_adds_up(begin: date, days: int) -> None:
    from pathlib import Path

    try:
        end = begin + timedelta(days=days)
    except OverflowError:
        return
    settings = ToolSettings(make_world(Path("/nonexistent")))
    text = ask(settings, {"date": str(end), "since": str(begin)}).text
    assert f"\n{abs(days)} days from {begin} " in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"timezone": "Europ/Berlin"},
            "there is no time zone `Europ/Berlin`; did you mean `Europe/Berlin`",
        ),
        ({"timezone": "../../etc/passwd"}, "there is no time zone `../../etc/passwd`"),
        ({"timezone": "x" * 5000}, "there is no time zone `xxx"),
        ({"timezone": "\x00"}, "there is no time zone `\ufffd`"),
        ({"date": "tomorrow"}, "`tomorrow` is not a date; write it as YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "`2026-02-30` is not a date"),
        ({"zone": "UTC"}, "invalid arguments for clock: Additional properties"),
    ],
)
def test_a_wrong_argument_is_one_line(
    settings: ToolSettings, arguments: dict[str, Any], told: str
) -> None:
    error = ask(settings, arguments).error
    assert error.startswith(told) and len(error) < 250
