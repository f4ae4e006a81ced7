"""Command lines that knockknock reads without argparse: it finds the same in them as argparse does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.cli.knock_options import Options, plain
from knockknock.cli.knockknock import parser

WORDS = ["-p", "--stdio", "22", "tcp/22", "51820/udp", "0", "99999", "server.example", "", "a b"]
OTHERS = ["-p22", "-4", "--std", "--close", "--timeout", "-", "--", "-h", "-1", "--list"]


def all_of(options: Options) -> dict[str, object]:
    return {name: getattr(options, name) for name in vars(Options) if not name.startswith("_")}


@given(st.lists(st.sampled_from(WORDS + OTHERS) | st.text(max_size=3), max_size=6))
def test_plain_reads_what_argparse_reads(words: list[str]) -> None:
    if (found := plain(words)) is not None:
        assert all_of(found) == all_of(parser().parse_args(words, Options()))


@given(st.lists(st.sampled_from(WORDS), max_size=4))
def test_so_of_words_that_are_often_plain(words: list[str]) -> None:
    if (found := plain(words)) is not None:
        assert all_of(found) == all_of(parser().parse_args(words, Options()))


@pytest.mark.parametrize(
    "line", ["HOST", "-p 22 HOST", "-p tcp/22 -p 51820/udp HOST", "--stdio HOST 22", "-p 22 --stdio HOST"]
)
def test_the_commonest_are_plain(line: str) -> None:
    found = plain(line.split())
    assert found
    assert found.host == "HOST"


@pytest.mark.parametrize("line", ["", "-p HOST", "-p 0 HOST", "HOST -p 22", "HOST 22 23", "--list", "-p", "HOST x"])
def test_all_else_is_left_to_argparse(line: str) -> None:
    assert plain(line.split()) is None
