"""INI text: what is taken, and the file and line that every complaint names."""

import re

import pytest

from knockknock.core import ini
from knockknock.errors import ConfigError

WHERE = "/etc/some/config"
KEYS: ini.Keys = {"port": ini.whole(1, 9), "on": ini.boolean, "word": ini.one_of("a", "b"), "text": str}

TAKEN = [
    ("[main]\n", {}),
    ("[main]", {}),
    ("\n\n[main]\nport = 4\n", {"port": 4}),
    ("[main]\nport=4\non:yes\n", {"port": 4, "on": True}),
    ("[main]\r\nport = 4\r\non = off\r\n", {"port": 4, "on": False}),
    ("# first\n; second\n[main]\n# third\nport = 4  # why\nword = b ; because\n", {"port": 4, "word": "b"}),
    ("[main]\nPORT = 4\n", {"port": 4}),
    ("[main]\n  port = 4\n", {"port": 4}),
    ("[main]\ntext = 100%\n", {"text": "100%"}),
    ("[main]\ntext = %(port)s\n", {"text": "%(port)s"}),
    ("[main]\ntext = a\n  b\nport = 4\n", {"text": "a\nb", "port": 4}),
    ("[main]\ntext = a=b:c\n", {"text": "a=b:c"}),
    ("[main]\ntext =\n", {"text": ""}),
]


@pytest.mark.parametrize(("text", "values"), TAKEN)
def test_taken(text: str, values: dict[str, object]) -> None:
    assert ini.read(text, WHERE, KEYS) == values


REFUSED = [
    ("", 1, "there must be a section [main]"),
    ("# nothing\n", 1, "there must be a section [main]"),
    ("port = 4\n", 1, "[main] before the first key"),
    ("# a\nport = 4\n[main]\n", 2, "[main] before the first key"),
    ("\ufeff[main]\n", 1, "[main] before the first key"),
    ("[main]\nport\n", 2, "key = value"),
    ("[main]\nport = 4\n= 5\n", 3, "key = value"),
    ("[main]\nport = 4\n\n[main\non = yes\n", 4, "key = value"),
    ("[main]\nport = 4\non = yes\nport = 4\n", 4, "second time"),
    ("[main]\nport = 4\nPort = 4\n", 3, "second time"),
    ("[main]\nport = 4\n[main]\non = yes\n", 3, "second time"),
    ("[main]\nport = 4\n\n[other]\non = yes\n", 4, "there is no section [other]"),
    ("[Main]\nport = 4\n", 1, "there is no section [Main]"),
    ("[DEFAULT]\nport = 4\n[main]\n", 1, "there is no section [DEFAULT]"),
    ("[main]\nprot = 4\n", 2, "there is no key 'prot'; the keys are port, on, word, text"),
    ("[main]\non = yes\nport = 0\n", 3, "port: '0' is not a whole number from 1 to 9"),
    ("[main]\n# port = 1\nport = ten\n", 3, "port: 'ten' is not a whole number from 1 to 9"),
    ("[main]\non = maybe\n", 2, "on: 'maybe' is neither yes nor no"),
    ("[main]\nword = c\n", 2, "word: 'c' is not one of a, b"),
    ("[main]\nword = A\n", 2, "word: 'A' is not one of a, b"),
    ("[main]\nWORD = c\n", 2, "word: 'c' is not one of a, b"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED)
def test_refused(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ini.read(text, WHERE, KEYS)
    sentence = str(caught.value)
    assert sentence.startswith(f"{WHERE}:{line}: ")
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_line_ends_only_where_an_editor_ends_it(character: str) -> None:
    """Not at what str.splitlines() takes for an end besides."""
    with pytest.raises(ConfigError, match=rf"^{WHERE}:3: "):
        ini.read(f"[main]\n# a{character}b\nport = 0\n", WHERE, KEYS)


def test_an_empty_default_section_is_no_section_of_ours() -> None:
    with pytest.raises(ConfigError, match=re.escape("[DEFAULT]")):
        ini.read("[main]\n[DEFAULT]\n", WHERE, KEYS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("no", False),
        ("on", True),
        ("off", False),
        ("1", True),
        ("0", False),
        ("True", True),
        ("NO", False),
    ],
)
def test_boolean(text: str, value: bool) -> None:
    assert ini.boolean(text) is value


@pytest.mark.parametrize("text", ["", "-1", "+4", " 4", "4.0", "4e0", "0x4", "٤", "1" * 5000])
def test_no_whole_number(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a whole number from 0 to 9"):
        ini.whole(0, 9)(text)


def test_matching_is_of_the_whole_text() -> None:
    letters = ini.matching("[a-z]+", "letters")
    assert letters("abc") == "abc"
    for text in ("", "abc1", "1abc", "abc\n", "a c"):
        with pytest.raises(ConfigError, match="is not letters"):
            letters(text)
