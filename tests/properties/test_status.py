"""Answers that somebody else's daemon may give to --status: each is shown, or refused with a sentence."""

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from knockknock.cli.status import MOST, UNREADABLE, WIDEST, page

from ..cli.test_status import SAID

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values in an answer."""
    found = [path] if path else []
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [one for key, inner in inside for one in places(inner, (*path, key))]


@given(st.data())
def test_an_answer_with_anything_in_it(data: st.DataObject) -> None:
    said = json.loads(json.dumps(SAID))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(said)))
        into = said
        for key in path:
            into = into[key]
        into[last] = data.draw(values)
    answer = json.loads(json.dumps(said))
    try:
        text = page(answer, data.draw(st.booleans()))
    except UNREADABLE:
        return
    assert text.replace("\n", "").isprintable()
    assert len(text) < 20 * MOST * WIDEST


@given(values)
def test_any_answer(value: Any) -> None:
    with contextlib.suppress(*UNREADABLE):
        page(value, one=False)
