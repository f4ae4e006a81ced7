"""The line that carries a profile to its client: known answers, what a paste may go through, what it may not."""

import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.counter_text import MAX_COUNTER
from knockknock.errors import ProfileError
from knockknock.profiles.enrolment import MAX_TEXT, PREFIX, check_server, decode, encode
from knockknock.profiles.text import named, parse_config, write_config
from knockknock.schemes.syn.profile import Profile

from ..helpers import ROOT, profile
from ..properties.strategies import profiles

CASES = json.loads((ROOT / "tests" / "vectors" / "enrolment.json").read_text())
LINE = CASES[0]["line"]
MADE = decode(LINE)


def known(case: dict[str, str]) -> Profile:
    keys = bytes.fromhex(case["cipher_key"]), bytes.fromhex(case["mac_key"])
    made = named(
        parse_config(case["config"], "case"), case["server"], dict(zip(("cipher_key", "mac_key"), keys, strict=True))
    )
    assert isinstance(made, Profile)
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["server"])
def test_known_answers(case: dict[str, str]) -> None:
    counter = int(case["counter"])
    assert decode(case["line"]) == (known(case), counter)
    assert encode(known(case), counter) == case["line"]


def test_there_are_known_answers() -> None:
    assert len(CASES) == 3
    assert write_config(known(CASES[2])) == CASES[2]["config"]


@given(profiles(), st.integers(0, MAX_COUNTER))
def test_round_trip(one: Profile, counter: int) -> None:
    one = one._replace(name=one.name.rstrip(".") if one.name != "config" else "a")
    line = encode(one, counter)
    assert decode(line) == (one, counter)
    assert re.fullmatch(r"knockknock1:[A-Z2-7]+", line)


def test_every_wrong_character_is_refused() -> None:
    letters = string.ascii_uppercase + string.digits
    for position, right in enumerate(LINE):
        for wrong in letters + ":-\0é":
            if wrong.lower() != right.lower():
                with pytest.raises(ProfileError):
                    decode(LINE[:position] + wrong + LINE[position + 1 :])


def test_every_missing_doubled_or_swapped_character_is_refused() -> None:
    for position in range(len(LINE)):
        for damaged in (
            LINE[:position] + LINE[position + 1 :],
            LINE[: position + 1] + LINE[position:],
            LINE[:position] + LINE[position : position + 2][::-1] + LINE[position + 2 :],
            LINE[:position],
        ):
            if damaged != LINE:
                with pytest.raises(ProfileError):
                    decode(damaged)


@pytest.mark.parametrize(
    "text",
    [
        f"  {LINE}\n\n",
        LINE.lower(),
        LINE.upper(),
        f"> {LINE[:76]}\r\n> {LINE[76:152]}\r\n> {LINE[152:]}\r\n",
        f"> > | {LINE}",
        f'"{LINE}"',
        f"`{LINE}`",
        f"**{LINE}**",
        f"\ufeff{LINE}\u00a0",
        " ".join(LINE),
    ],
)
def test_what_mail_programs_do(text: str) -> None:
    assert decode(text) == MADE


SENTENCES = [
    ("", "begins with knockknock1:"),
    ("knockknock-genprofile", "begins with knockknock1:"),
    ("Here it is: " + LINE, "begins with knockknock1:"),
    (LINE.replace("1:", "2:", 1), "of a newer kind (knockknock2): install a newer knockknock"),
    (PREFIX, "cut off"),
    (LINE[:-8], "cut off"),
    (LINE[:100], "cut off"),
    (LINE[:-1], "damaged on the way, or cut off"),
    (LINE + "\n" + LINE, "two lines, joined"),
    (LINE + LINE.removeprefix(PREFIX), "longer than it says"),
    (LINE[:30] + "0" + LINE[31:], "'0', after 30 characters, cannot be in the line"),
    (LINE[:30] + "é" + LINE[31:], "after 30 characters, cannot be"),
    (LINE[:40] + ("B" if LINE[40] != "B" else "C") + LINE[41:], "its checksum is wrong"),
    ("x" * (MAX_TEXT + 1), "more than one line"),
]


@pytest.mark.parametrize(("text", "says"), SENTENCES)
def test_sentences(text: str, says: str) -> None:
    with pytest.raises(ProfileError) as caught:
        decode(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert LINE[60:70] not in str(caught.value), "no part of a secret in a complaint"


def test_what_is_whole_and_no_profile() -> None:
    for wrong in (profile("a")._replace(mac_key=bytes(15)), profile("a")._replace(cipher_key=b"")):
        with pytest.raises(ProfileError, match="does not hold a profile"):
            decode(encode(wrong, 0))
    with pytest.raises(ProfileError, match="the profile in the line:2: knock_port"):
        decode(encode(profile("a")._replace(knock_port=0), 0))


@pytest.mark.parametrize(
    "name", ["server.example", "10.0.0.1", "fd00::1", "fe80::1%eth0", "::1", "xn--bcher-kva.de", "a"]
)
def test_names_of_servers(name: str) -> None:
    assert check_server(name) == name
    assert check_server(name.upper() + ".") == name


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".a", "-a", "a b", "büro", "a\n", "config", "x" * 254])
def test_names_of_no_servers(name: str) -> None:
    with pytest.raises(ProfileError, match="is not the name or address of a server"):
        check_server(name)
    with pytest.raises(ProfileError):
        decode(encode(profile(name), 0) if name.isascii() and len(name) < 254 else "")
