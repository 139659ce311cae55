"""The tool `clock`: the date and time anywhere, weekdays, and the days between two dates."""

from datetime import UTC, date, datetime, tzinfo
from threading import Event
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from llmchat.errors import did_you_mean
from llmchat.output.terminal_text import excerpt
from llmchat.settings import World
from llmchat.tools import Output, Tool, ToolError, ToolSettings

_DATE = {"type": "string", "description": "YYYY-MM-DD", "default": "today"}


def tools(settings: ToolSettings) -> list[Tool]:
    return [Clock(settings.world)]


class Clock:
    """Small models cannot count days, so this does."""

    group = "clock"
    name = "clock"
    origin = ""
    description = (
        "Get the current date, time and weekday. "
        "With `date`: its weekday, and the days until it, counted from `since` or today."
    )
    parameters = {
        "type": "object",
        "properties": {
            # Small models fill in what they need not. The words for it are defaults, so they write
            # those.
            "timezone": {
                "type": "string",
                "description": "such as Asia/Tokyo",
                "default": "local",
            },
            "date": _DATE,
            "since": _DATE,
        },
        "additionalProperties": False,
    }
    read_only = True

    def __init__(self, world: World):
        self._world = world

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        now = self._now(_given(arguments, "timezone", "local"))
        date, since = (_given(arguments, name, "today") for name in ("date", "since"))
        lines = [_spelled(now)]
        if date or since:
            lines += _days(date, since, now.date())
        return Output("\n".join(lines))

    def _now(self, zone: str) -> datetime:
        moment = datetime.fromtimestamp(self._world.now(), UTC)
        return moment.astimezone(_zone(zone) if zone else self._local())

    def _local(self) -> tzinfo | None:
        """The zone of TZ or of the system."""
        name = self._world.env.get("TZ", "").removeprefix(":")
        try:
            return ZoneInfo(name) if name else None
        except (KeyError, ValueError, OSError):
            return None


def _spelled(now: datetime) -> str:
    offset = now.strftime("%z")
    zone = now.tzinfo.key if isinstance(now.tzinfo, ZoneInfo) else now.tzname()
    return f"{now:%A}, {now:%Y-%m-%d %H:%M:%S} {zone} (UTC{offset[:3]}:{offset[3:5]})"


def _given(arguments: dict[str, Any], name: str, default: str) -> str:
    """An argument; empty if it is left out or the default."""
    text = str(arguments.get(name, "")).strip()
    return "" if text.casefold() == default else text


def _days(end_text: str, begin_text: str, today: date) -> list[str]:
    end = _date(end_text) if end_text else today
    begin = _date(begin_text) if begin_text else today
    days = (end - begin).days
    weeks = f" ({abs(days) // 7} weeks and {abs(days) % 7} days)" if abs(days) >= 14 else ""
    way = "until" if days >= 0 else "back to"
    return [f"{end} is a {end:%A}", f"{abs(days)} days from {begin} {way} {end}{weeks}"]


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ToolError(f"`{excerpt(text)}` is not a date; write it as YYYY-MM-DD") from error


def _zone(name: str) -> tzinfo:
    """The zone of an IANA name, or of a city in one; upper and lower case are the same."""
    zones = available_timezones()
    by_name = {zone.lower(): zone for zone in zones}
    cities = {zone.rpartition("/")[2].lower(): zone for zone in sorted(zones) if "/" in zone}
    wanted = name.strip().lower().replace(" ", "_")
    found = by_name.get(wanted) or cities.get(wanted)
    if found:
        return ZoneInfo(found)
    hint = did_you_mean(wanted, [*by_name.values()]) or "use an IANA name such as Europe/Berlin"
    raise ToolError(f"there is no time zone `{excerpt(name)}`; {hint}")
