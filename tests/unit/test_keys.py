"""Object keys: whatever a caller puts into one, it stays under its prefix."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.ids import NAME_PATTERN
from shared.storage import keys

BUILDERS: list[tuple[str, Callable[[str], str]]] = [
    ("uploads/", keys.upload),
    ("datasets/", lambda text: keys.dataset_manifest(text, "1")),
    ("datasets/name/versions/", lambda text: keys.dataset_shard("name", text, 3)),
    ("runs/", keys.job),
    ("runs/", keys.head),
    ("runs/", lambda text: keys.replay_shard(text, 1, 2, 3)),
    ("models/", lambda text: keys.model_weights(text, 1)),
    ("models/name/aliases/", lambda text: keys.model_alias("name", text)),
    ("models/name/jobs/", lambda text: keys.model_publication("name", text)),
]

# Text that aims at the separators, and any text at all.
HOSTILE = st.text(st.sampled_from("./\\\0\n%a\x7f\u202e\ud800")) | st.text()

# `$` of Python's re lets a newline pass; pydantic's does not.
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).map(lambda name: name.rstrip("\n"))


@pytest.mark.parametrize(("prefix", "build"), BUILDERS)
@given(text=HOSTILE)
def test_a_key_never_leaves_its_prefix(prefix: str, build: Callable[[str], str], text: str) -> None:
    try:
        key = keys.checked(build(text))
    except InvalidInput:
        return
    assert key.startswith(prefix)
    assert posixpath.normpath(key) == key.rstrip("/")
    assert not re.search(r"[\x00-\x1f\x7f]", key)


@given(name=NAMES)
def test_every_name_makes_a_key(name: str) -> None:
    for prefix, build in BUILDERS:
        assert keys.checked(build(name)).startswith(prefix)


@given(one=NAMES, other=NAMES)
def test_no_prefix_holds_another_name(one: str, other: str) -> None:
    assert keys.model_prefix(other).startswith(keys.model_prefix(one)) == (one == other)


@pytest.mark.parametrize(
    "key",
    ["../x", "a/../b", "a/./b", "a/..", "/a", "a//b", "a\\..\\b", "a\x00", "a\nb", "x" * 1025],
)
def test_an_unsafe_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="not a safe object key"):
        keys.checked(key)


def test_checkpoints_of_one_image_apart_have_keys_of_their_own() -> None:
    assert keys.checkpoint_prefix("j", 1, 1.001) != keys.checkpoint_prefix("j", 1, 1.002)
    assert keys.checkpoint_prefix("j", 1, 9.5) < keys.checkpoint_prefix("j", 1, 10.0)
