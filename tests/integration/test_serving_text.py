"""Pictures by prompt from the serving applications, without Ray."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest

from services.serving import replicas
from shared.networks.sampling import sample
from shared.networks.text import SentenceEncoder
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.text import MAX_PROMPT_CHARS, find_encoder
from tests.forgers import WRITER, forger, publish_forger, publish_text_forger
from tests.sentences import needs_encoder

pytestmark = pytest.mark.usefixtures("object_store")  # the bucket exists

Use = Callable[[httpx2.AsyncClient], Awaitable[None]]


@pytest.fixture
def registry(object_store: ObjectStore) -> Registry:
    return Registry(object_store)


@pytest.fixture(scope="module")
def sha256() -> str:
    """Of the encoder."""
    return SentenceEncoder(find_encoder(Settings().text_encoder)).sha256


def with_client(settings: Settings, use: Use) -> None:
    """Run `use` with a client of a fresh interactive replica."""

    async def main() -> None:
        transport = httpx2.ASGITransport(replicas.interactive(settings), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://serving") as http:
            await use(http)

    asyncio.run(main())


def pointers(answer: httpx2.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def generated(http: httpx2.AsyncClient, model: str, **body: object) -> httpx2.Response:
    return await http.post(f"/v1/models/{model}/generate", json=body)


@needs_encoder
def test_a_prompt_is_drawn_and_the_same_gives_the_same_bytes(
    settings: Settings, registry: Registry, object_store: ObjectStore, sha256: str
) -> None:
    publish_text_forger(registry, "writer", encoder_sha256=sha256)
    apple = "a red apple that nobody has ever described"
    order = {"n": 5, "seed": 7, "prompt": apple, "format": "npy"}
    drawn: list[np.ndarray] = []

    async def use(http: httpx2.AsyncClient) -> None:
        first, *rest = await asyncio.gather(
            *(generated(http, "writer", **order) for _ in range(3)),
        )
        assert first.status_code == 200, first.text
        assert all(answer.content == first.content for answer in rest)
        pear = await generated(http, "writer", **order | {"prompt": "a pear"})
        assert pear.content != first.content
        query = {"seed": 7, "prompt": apple}
        one = await http.get("/v1/models/writer@1/image", params=query)
        assert one.content == (await generated(http, "writer", **query)).content
        assert "immutable" in one.headers["Cache-Control"]
        drawn.append(np.load(io.BytesIO(first.content)))

    with_client(settings, use)
    with_client(settings, use)
    assert np.array_equal(*drawn)

    async def in_bulk() -> None:
        transport = httpx2.ASGITransport(replicas.bulk(settings))
        chunk = {
            "job_id": "job-1", "index": 0, "model": "writer", "version": 1, "seed": 7, "start": 0,
            "count": 5, "prompt": apple,
        }  # fmt: skip
        async with httpx2.AsyncClient(transport=transport, base_url="http://bulk") as http:
            key = (await http.post("/chunks", json=chunk)).json()["key"]
        with zipfile.ZipFile(io.BytesIO(object_store.get(key))) as archive:
            assert len(archive.namelist()) == 5

    asyncio.run(in_bulk())


def test_without_a_prompt_captions_take_turns(settings: Settings, registry: Registry) -> None:
    """Which needs no encoder."""
    publish_text_forger(registry, "writer", encoder_sha256="elsewhere")

    async def use(http: httpx2.AsyncClient) -> None:
        answer = await generated(http, "writer", n=9, seed=0, format="npy")
        pictures = np.load(io.BytesIO(answer.content)).astype(int)
        expected = sample(forger(WRITER), seed=0, indices=range(9))
        assert np.abs(pictures - expected).max() <= 1  # layers for drawing round otherwise

    with_client(settings, use)


def test_what_a_model_cannot_be_told_is_refused(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    publish_text_forger(registry, "writer", encoder_sha256="elsewhere")

    async def use(http: httpx2.AsyncClient) -> None:
        for model, body, pointer in (
            ("forger", {"prompt": "a bag"}, "/prompt"),
            ("writer", {"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "/prompt"),
            ("writer", {"prompt": ""}, "/prompt"),
            ("writer", {"label": "bag"}, "/label"),
        ):
            answer = await generated(http, model, **body)
            assert (answer.status_code, pointers(answer)) == (422, [pointer])
        answer = await http.get("/v1/models/forger/image", params={"prompt": "a bag"})
        assert (answer.status_code, pointers(answer)) == (422, ["/query/prompt"])

    with_client(settings, use)


def test_a_replica_without_an_encoder_says_how_to_get_one(
    settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    publish_text_forger(registry, "writer", encoder_sha256="elsewhere")

    async def use(http: httpx2.AsyncClient) -> None:
        answer = await generated(http, "writer", prompt="a pear")
        assert (answer.status_code, pointers(answer)) == (422, ["/prompt"])
        assert "pip install 'elmyr[text]'" in answer.json()["detail"]

    with_client(settings.model_copy(update={"text_encoder": tmp_path}), use)


@needs_encoder
def test_another_encoder_than_the_models_is_refused(settings: Settings, registry: Registry) -> None:
    publish_text_forger(registry, "writer", encoder_sha256="elsewhere")

    async def use(http: httpx2.AsyncClient) -> None:
        answer = await generated(http, "writer", prompt="a pear")
        assert answer.status_code == 409
        assert "vectors of encoder elsewhere" in answer.json()["detail"]

    with_client(settings, use)
