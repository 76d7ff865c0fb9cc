"""Text over HTTP: what cannot be done is said at the submit, not after an hour in the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from shared.storage.registry import Registry
from tests.forgers import publish_text_forger
from tests.live import Live, live_api
from tests.problems import problem
from tests.sentences import needs_encoder

TRAIN = {"dataset": "tales", "model": "writer", "preset": "text-to-image"}
SAMPLE = {"model": "writer", "n": 3, "prompt": "a pear"}


@pytest.fixture
def live(settings: Settings, encoder_folder: Path | None) -> Iterator[Live]:
    """An API with a dataset `tales` with captions and a model `writer` that takes prompts."""
    with live_api(settings.model_copy(update={"text_encoder": encoder_folder})) as live:
        live.add_dataset("garments")
        live.add_dataset("tales", has_captions=True)
        publish_text_forger(Registry(live.store), "writer", encoder_sha256="elsewhere")
        yield live


@pytest.fixture
def encoder_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """None: the one of the package. An empty folder in tests of what is said without one."""
    return None if request.node.get_closest_marker("skipif") else tmp_path


@pytest.mark.parametrize(
    ("kind", "spec", "pointer", "says"),
    [
        ("train", TRAIN | {"dataset": "garments"}, "/spec/dataset", "a dataset with captions"),
        ("train", TRAIN, "/spec/preset", "pip install 'elmyr[text]'"),
        ("sample", SAMPLE, "/spec/prompt", "pip install 'elmyr[text]'"),
        ("sample", SAMPLE | {"prompt": "x" * 501}, "/spec/prompt", "not the spec"),
    ],
)
def test_what_is_missing_is_pointed_at(
    http: httpx2.Client, kind: str, spec: dict[str, Any], pointer: str, says: str
) -> None:
    answer = http.post("/v1/jobs", json={"kind": kind, "spec": spec})
    found = problem(answer, 422, "INVALID_INPUT")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert says in found["detail"]


def test_captions_take_turns_without_an_encoder(http: httpx2.Client) -> None:
    untold = {"kind": "sample", "spec": {"model": "writer", "n": 3}}
    assert http.post("/v1/jobs", json=untold).status_code == 202


@needs_encoder
def test_with_all_there_jobs_are_taken(http: httpx2.Client) -> None:
    for kind, spec in (("train", TRAIN), ("sample", SAMPLE)):
        answer = http.post("/v1/jobs", json={"kind": kind, "spec": spec})
        assert answer.status_code == 202, answer.text
    assert http.get("/v1/models/writer/versions/1").json()["takes_prompt"] is True
