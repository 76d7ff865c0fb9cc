"""A train job with text on real stores: from captions to a model that takes prompts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from services.serving import replicas
from shared.networks.text import SentenceEncoder
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, Outcome
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.text import find_encoder
from tests.attempts import run_attempt
from tests.pushing import push
from tests.sentences import needs_encoder
from tests.training import QUARTERS, SQUARE_CLASSES, squares
from workers.jobs import evaluate, train
from workers.jobs.context import End

SPEC = {
    "dataset": "squares",
    "model": "writer",
    "preset": "text-to-image",
    "kimg": 0.256,
    "config": {"generator": {"width": 4}, "discriminator": {"width": 4}, "score": {"n": 64}},
}
Run = Callable[..., tuple[str, End]]


@pytest.fixture
def run(object_store: ObjectStore, job_queue: JobQueue) -> Run:
    """Run a job, as the attempt would; gives its id and its end."""
    push(object_store, "squares", SQUARE_CLASSES, squares(256))

    def run(kind: JobKind, spec: dict[str, object], settings: Settings) -> tuple[str, End]:
        work = {JobKind.TRAIN: train.run, JobKind.EVALUATE: evaluate.run}[kind]
        return run_attempt(work, settings, job_queue, kind, spec)

    return run


@needs_encoder
def test_captions_become_a_model_that_takes_prompts(
    run: Run, settings: Settings, object_store: ObjectStore, event_log: EventLog
) -> None:
    job_id, end = run(JobKind.TRAIN, SPEC, settings)
    assert end.outcome is Outcome.SUCCEEDED, end.error

    registry = Registry(object_store)
    card = registry.card("writer", 1)
    assert (card.takes_prompt, card.class_names) == (True, [])
    _, config = registry.snapshot("writer", 1)
    assert set(config.captions) == {*QUARTERS, *(f"a square {q}" for q in QUARTERS[1::2])}
    encoder = SentenceEncoder(find_encoder(settings.text_encoder))
    assert config.text_encoder_sha256 == encoder.sha256

    grids = [e for e in event_log.read(job_id) if e.type is EventType.SAMPLE]
    assert grids[0].data["captions"] == [config.captions[i] for i in (0, 0, 1, 2, 3, 3, 4, 5)]
    picture = Image.open(io.BytesIO(object_store.get(grids[0].data["key"])))
    assert picture.size == (160 + 2 + 10 * (16 + 2), 2 + 8 * (16 + 2))

    async def drawn(**body: object) -> httpx2.Response:
        transport = httpx2.ASGITransport(replicas.interactive(settings))
        async with httpx2.AsyncClient(transport=transport, base_url="http://serving") as http:
            return await http.post("/v1/models/writer/generate", json=body)

    answer = asyncio.run(drawn(prompt="a bright square at the top", seed=1))
    assert answer.status_code == 200, answer.text

    spec = {"model": "writer", "dataset": "squares", "n": 100}
    _, end = run(JobKind.EVALUATE, spec, settings)
    assert end.outcome is Outcome.SUCCEEDED, end.error


def test_without_an_encoder_the_attempt_says_so_and_is_not_tried_again(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    _, end = run(JobKind.TRAIN, SPEC, settings.model_copy(update={"text_encoder": tmp_path}))
    assert end.outcome is Outcome.FAILED
    assert "pip install 'elmyr[text]'" in str(end.error)
