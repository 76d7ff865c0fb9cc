"""What a client packs into multipart/form-data comes out as it was."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.multipart import MAX_PARTS, parts
from shared.errors import InvalidInput


def packed(files: dict[str, bytes]) -> tuple[str, bytes]:
    """The Content-Type and the body that a client sends."""
    given = {name: ("a.png", content, "image/png") for name, content in files.items()}
    request = httpx2.Request("POST", "http://serving", files=given)
    return request.headers["Content-Type"], request.read()


@given(st.dictionaries(st.sampled_from("abc"), st.binary(max_size=200), min_size=1))
def test_parts_are_what_was_packed(files: dict[str, bytes]) -> None:
    assert parts(*packed(files)) == files


def test_line_ends_and_dashes_in_a_picture_stay() -> None:
    content = bytes(range(256)) + b"\r\n\r\n--\r\n--x\n\r"
    assert parts(*packed({"image": content})) == {"image": content}


@given(st.binary(max_size=300), st.integers(0, 300))
def test_damage_is_invalid_input(garbage: bytes, cut: int) -> None:
    content_type, whole = packed({"a": b"1", "b": b"2"})
    for body in (garbage, whole[:cut], whole[:cut] + garbage):
        try:
            parts(content_type, body)
        except InvalidInput:
            continue
        assert body.startswith(whole)


def test_too_many_parts_and_no_boundary_are_refused() -> None:
    most = {str(i): b"x" for i in range(MAX_PARTS)}
    assert parts(*packed(most)) == most
    with pytest.raises(InvalidInput, match="more than 16"):
        parts(*packed(most | {"one": b"more"}))
    with pytest.raises(InvalidInput, match="boundary"):
        parts("multipart/form-data", b"")
