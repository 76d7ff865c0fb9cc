"""Small parts of the dispatcher without I/O: lines of a log, chunks of a job, names of Ray jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.bulk import chunks
from services.dispatcher.log_relay import CHUNK_BYTES, lines
from services.dispatcher.outages import Outages
from services.dispatcher.ray_jobs import submission_id
from shared.errors import InvalidInput, Unavailable, UnsafeStore
from shared.schemas.specs import SAMPLE_CHUNK, SampleSpec


@pytest.mark.parametrize(
    ("data", "is_whole", "found"),
    [
        (b"", False, []),
        (b"a\nb\n", False, [(b"a", 12), (b"b", 14)]),
        (b"a\nunfini", False, [(b"a", 12)]),
        (b"a\nthe end", True, [(b"a", 12), (b"the end", 19)]),
        (b"\n", False, [(b"", 11)]),
        (b"x" * CHUNK_BYTES, False, [(b"x" * CHUNK_BYTES, 10 + CHUNK_BYTES)]),
    ],
)
def test_lines_and_the_offsets_behind_them(
    data: bytes, is_whole: bool, found: list[tuple[bytes, int]]
) -> None:
    assert list(lines(data, 10, is_whole=is_whole)) == found


@given(text=st.binary(max_size=200).map(lambda b: b.replace(b"\x00", b"\n")), cut=st.integers(0, 9))
def test_no_byte_is_lost_where_a_chunk_is_cut(text: bytes, cut: int) -> None:
    """Whoever reads on from the last offset finds the same lines as who reads all at once."""
    first = list(lines(text[:cut], 0, is_whole=False))
    start = first[-1][1] if first else 0
    assert first + list(lines(text[start:], start, is_whole=True)) == list(
        lines(text, 0, is_whole=True)
    )


@given(n=st.integers(1, 5000))
def test_chunks_cover_each_picture_once(n: int) -> None:
    found = chunks(SampleSpec(model="m", n=n))
    pictures = [i for chunk in found for i in range(chunk.start, chunk.start + chunk.count)]
    assert pictures == list(range(n))
    assert [chunk.index for chunk in found] == list(range(len(found)))
    assert all(chunk.start == chunk.index * SAMPLE_CHUNK for chunk in found)


@pytest.mark.parametrize(
    "job_id", ["", "job a", "job;reboot", "Job-a", "-a", "$(x)", "a" * 64, "job-a\n"]
)
def test_nothing_but_an_id_gets_into_a_command_line(job_id: str) -> None:
    with pytest.raises(InvalidInput):
        submission_id(job_id, 1)


def test_an_outage_pauses_what_does_not_work_and_nothing_else() -> None:
    outages = Outages()
    tried: list[str] = []

    def fails() -> None:
        tried.append("fails")
        raise Unavailable

    assert not outages.survive("a", fails)
    assert not outages.may_try("a")
    assert not outages.survive("a", fails)
    assert outages.survive("b", lambda: tried.append("works"))
    assert tried == ["fails", "works"]


@pytest.mark.parametrize("error", [UnsafeStore, InvalidInput, KeyError])
def test_a_defect_is_no_outage(error: type[Exception]) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(error):
        Outages().survive("a", fails)
