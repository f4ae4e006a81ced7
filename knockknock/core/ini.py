"""Parses INI text with one section [main]; each error names its file and line."""

import configparser
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError

Keys = Mapping[str, Callable[[str], Any]]
"""Each known key, and what makes a value of its text or raises ConfigError."""


def read(text: str, where: str, keys: Keys) -> dict[str, Any]:
    """The values of the keys that the text sets.

    where: the file's path, for messages. Raises ConfigError for a line that is not INI, a section other than
    [main], a key that is not in keys or stands twice, and a value that its function refuses.
    """
    return {key: made(text, where, keys, key, value) for key, value in items(text, where).items()}


def items(text: str, where: str) -> dict[str, str]:
    """The keys that the text sets, with nothing made of their values. Raises ConfigError, as read()."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=("#", ";"), default_section="\n")
    try:
        parser.read_string(text, where)
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{where}:{error.lineno}: there must be a line [main] before the first key") from None
    except configparser.ParsingError as error:
        raise ConfigError(f"{where}:{error.errors[0][0]}: not of the form key = value") from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        raise ConfigError(f"{where}:{error.lineno}: stands here for the second time") from None
    strange = [name for name in parser.sections() if name != "main"]
    if strange:
        line = _line(text, rf"\[{re.escape(strange[0])}\]")
        raise ConfigError(f"{where}:{line}: there is no section [{strange[0]}], only [main]")
    if not parser.has_section("main"):
        raise ConfigError(f"{where}:1: there must be a section [main]")
    return dict(parser.items("main"))


def made(text: str, where: str, keys: Keys, key: str, value: str) -> Any:
    """Convert the value of one key. Raises ConfigError, as read()."""
    line = _line(text, rf"{re.escape(key)}\s*[=:]")
    if key not in keys:
        raise ConfigError(f"{where}:{line}: there is no key '{key}'; the keys are {', '.join(keys)}")
    try:
        return keys[key](value)
    except ConfigError as error:
        raise ConfigError(f"{where}:{line}: {key}: {error}") from None


def _line(text: str, pattern: str) -> int:
    """The number of the first line that begins with a pattern; configparser does not keep it."""
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(rf"\s*{pattern}", line, re.IGNORECASE):
            return number
    return 1


def boolean(text: str) -> bool:
    """yes or no, in the spellings that configparser takes. Raises ConfigError."""
    try:
        return configparser.RawConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ConfigError(f"{text!r} is neither yes nor no") from None


def whole(low: int, high: int) -> Callable[[str], int]:
    """A function that takes decimal numbers in a range, both ends included."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise ConfigError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


def one_of(*words: str) -> Callable[[str], str]:
    """A function that takes one of a few words."""

    def word(text: str) -> str:
        if text not in words:
            raise ConfigError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return word


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """A function that takes text that a regular expression describes whole; what: its name for people."""

    def match(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ConfigError(f"{text!r} is not {what}")
        return text

    return match
