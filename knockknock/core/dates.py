"""Parses and prints points in time, always UTC. Pure."""

import re
from datetime import UTC, datetime

from ..errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse(text: str) -> int:
    """Seconds since 1970 of 2027-01-31, its first second, or of 2027-01-31T17:30:00Z. Raises ConfigError."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z)?", text):
        raise ConfigError(f"{text!r} is not a date, such as 2027-01-31 or 2027-01-31T17:30Z (UTC)")
    try:
        seconds = int(datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ConfigError(f"{text!r} is not in the calendar") from None
    if seconds < 0:
        raise ConfigError(f"{text!r} is before 1970")
    return seconds


def show(seconds: int) -> str:
    """The text that parse() reads back."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    return text.removesuffix("T00:00:00Z")


def span(text: str) -> int:
    """Seconds of 90s, 30m, 12h, 7d or 2w; at most ten years. Raises ConfigError."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if not found or (seconds := int(found[1]) * _UNITS[found[2]]) > 10 * 365 * 86400:
        raise ConfigError(f"{text!r} is not a time such as 12h, 7d or 2w, at most ten years")
    return seconds
