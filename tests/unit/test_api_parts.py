"""The parts of the API that need no server: keys, problems, archives."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api import zips
from services.api.auth import KeyRing
from services.api.limits import MAX_DEPTH, check_json
from services.api.problems import pointer, problem_response
from shared.errors import CorruptObject, InvalidInput, TooMany, Unauthorized, Unavailable

KEYS = ",".join(f"{who}:{hashlib.sha256(who.encode()).hexdigest()}" for who in ("ann", "team:bob"))


@pytest.mark.parametrize("header", [b"Bearer ann", b"bearer ann", b"Bearer  ann "])
def test_a_key_names_its_owner(header: bytes) -> None:
    assert KeyRing(KEYS).owner(header) == "ann"


def test_an_owner_may_have_a_colon() -> None:
    assert KeyRing(KEYS).owner(b"Bearer team:bob") == "team:bob"


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer eve", b"Basic ann", b"ann", b"\xff"])
def test_anything_else_is_nobody(header: bytes) -> None:
    with pytest.raises(Unauthorized):
        KeyRing(KEYS).owner(header)


def test_without_keys_nobody_comes_in() -> None:
    with pytest.raises(Unauthorized):
        KeyRing("").owner(b"Bearer ")


@pytest.mark.parametrize("entry", ["ann", "ann:xyz", "ann:abcd", ":" + "0" * 64])
def test_a_broken_list_of_keys_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match=r"owner:sha256|hex"):
        KeyRing(entry)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (TooMany("slow down", retry_after_s=0.2), 429, "TOO_MANY", "1"),
        (Unavailable("Redis is down"), 503, "UNAVAILABLE", "2"),
        (CorruptObject("part 3 is not itself"), 500, "CORRUPT_OBJECT", None),
        (RuntimeError("the password is 1234"), 500, "INTERNAL", None),
    ],
)
def test_an_error_is_a_problem(
    error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    answer = problem_response(error, "r1")
    problem = json.loads(answer.body)
    assert answer.media_type == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["request_id"] == "r1"
    assert answer.headers.get("Retry-After") == retry_after
    assert "1234" not in answer.body.decode()


def test_a_pointer_escapes_as_rfc_6901_says() -> None:
    assert pointer("spec", "a/b~c", 0) == "/spec/a~1b~0c/0"


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"[]" + b"}" * (depth - 1)


def test_a_body_may_be_so_deep_and_no_deeper() -> None:
    check_json(nested(MAX_DEPTH))
    with pytest.raises(InvalidInput, match="deeper than 32"):
        check_json(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "body",
    [b"{", b"[NaN]", b"[1e999, Infinity]", rb'["\ud800"]', b"[" * 100_000, b"\xff", b"1" * 9999],
)
def test_a_body_is_strict_json(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        check_json(body)


@given(st.dictionaries(st.text("abc/é.", min_size=1, max_size=9), st.binary(max_size=99)))
def test_an_archive_is_a_zip(files: dict[str, bytes]) -> None:
    data = b"".join(zips.archive(files.items()))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_an_archive_of_more_files_than_a_plain_zip_counts() -> None:
    data = b"".join(zips.archive((f"{i}.png", b"x") for i in range(70_000)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 70_000
        assert archive.read("69999.png") == b"x"
