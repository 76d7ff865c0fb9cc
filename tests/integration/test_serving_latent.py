"""Encoding and interpolation over a real registry, without Ray: pictures in, z and pictures out."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from services.serving import replicas
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.forgers import SMALL, publish_forger
from tests.uploads import png, png_header

pytestmark = pytest.mark.usefixtures("object_store")  # the bucket exists

PNG = {"Content-Type": "image/png"}
ENCODE = "/v1/models/forger/encode"
INTERPOLATE = "/v1/models/forger/interpolate"


@pytest.fixture(autouse=True)
def _forger(object_store: ObjectStore) -> None:
    publish_forger(Registry(object_store), "forger")


def with_client(settings: Settings, use: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
    """Run `use` with a client of a fresh interactive replica."""

    async def main() -> None:
        transport = httpx2.ASGITransport(replicas.interactive(settings), False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://serving") as http:
            await use(http)

    asyncio.run(main())


async def drawn(http: httpx2.AsyncClient, seed: int, label: int) -> bytes:
    """A picture of the forger's own."""
    query = {"seed": seed, "label": label}
    return (await http.get("/v1/models/forger/image", params=query)).content


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def pointers(answer: httpx2.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


def test_an_own_picture_is_found_again_however_it_comes(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        file = await drawn(http, seed=3, label=2)
        query = {"seed": 5}
        raw = await http.post(ENCODE, params=query, content=file, headers=PNG)
        assert raw.status_code == 200, raw.text
        found = raw.json()
        assert (found["model"], found["version"], found["job_id"]) == (
            "forger",
            1,
            "job-forger-0",
        )
        assert (found["seed"], found["label"], len(found["z"])) == (5, 2, SMALL.z_dim)
        assert found["error"] < 5e-4
        assert raw.headers["X-Elmyr-Seed"] == "5"
        body = {"image": base64.b64encode(file).decode(), **query}
        assert (await http.post(ENCODE, json=body)).json() == found
        parts = {"image": ("a.png", file, "image/png")}
        assert (await http.post(ENCODE, params=query, files=parts)).json() == found

        # What it draws of z is what the error was measured on.
        query = {"seed": 5, "format": "png"}
        picture = await http.post(ENCODE, params=query, content=file, headers=PNG)
        difference = (pixels_of(picture.content) - pixels_of(file)) / 255
        assert float(picture.headers["X-Elmyr-Error"]) == pytest.approx(found["error"], rel=1e-4)
        assert (difference**2).mean() == pytest.approx(found["error"], rel=1e-4)
        again = await http.post(
            INTERPOLATE, json={"a": found["z"], "b": 1, "label": 2, "num": 2, "format": "npy"}
        )
        first = np.load(io.BytesIO(again.content))[0, :, :, 0]
        assert abs(first - pixels_of(picture.content)).max() <= 1

    with_client(settings, use)


def test_a_picture_of_another_form_is_fitted_as_an_ingest_fits_it(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        for query in ({}, {"fit": "pad", "label": "bag"}):
            answer = await http.post(ENCODE, params=query, content=png(1, size=50), headers=PNG)
            assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == 1

    with_client(settings, use)


def test_the_way_from_one_picture_to_another(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        a, b = [await drawn(http, seed, label=1) for seed in (3, 4)]
        seeds = await http.post(
            INTERPOLATE, json={"a": 3, "b": 4, "label": 1, "num": 5, "format": "npy"}
        )
        assert seeds.headers["X-Elmyr-Model"] == "forger"
        pictures = np.load(io.BytesIO(seeds.content))[:, :, :, 0].astype(int)
        assert len(pictures) == 5
        assert abs(pictures[0] - pixels_of(a)).max() <= 1
        assert abs(pictures[-1] - pixels_of(b)).max() <= 1
        query = {"num": 5, "format": "npy"}
        files = {"a": ("a.png", a, "image/png"), "b": ("b.png", b, "image/png")}
        found = await http.post(INTERPOLATE, params=query, files=files)
        assert found.status_code == 200, found.text
        ends = np.load(io.BytesIO(found.content))[[0, -1], :, :, 0].astype(int)
        assert abs(ends - pictures[[0, -1]]).mean() < 10
        grid = await http.post(INTERPOLATE, json={"a": 3, "b": 4})
        assert grid.headers["Content-Type"] == "image/png"
        several = await http.post(INTERPOLATE, json={"a": 3, "b": 4, "format": "png"})
        assert several.headers["Content-Type"] == "application/zip"

    with_client(settings, use)


def test_hostile_pictures_are_refused_and_pointed_at(settings: Settings) -> None:
    files = {
        "truncated": png(1, size=64)[:200],
        "huge": png_header(20_000, 20_000),
        "no picture": b"MZ" + bytes(range(256)),
        "empty": b"",
        "a gif": b"GIF89a" + bytes(20),
    }

    async def use(http: httpx2.AsyncClient) -> None:
        for name, file in files.items():
            answer = await http.post(ENCODE, content=file, headers=PNG)
            assert (answer.status_code, answer.json()["code"]) == (422, "UNSAFE_IMAGE"), name
            assert pointers(answer) == ["/image"]
            assert "PNG, JPEG or WebP" in answer.json()["detail"]
        parts = {"a": ("a.png", png(1), "image/png"), "b": ("b.png", b"no", "image/png")}
        assert pointers(await http.post(INTERPOLATE, files=parts)) == ["/b"]
        assert (await http.post(ENCODE, content=bytes(2**21), headers=PNG)).status_code == 413

    with_client(settings.model_copy(update={"serve_max_picture_bytes": 2**20}), use)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (ENCODE, {}, "/image"),
        (ENCODE, {"image": "%"}, "/image"),
        (ENCODE, {"image": "", "format": "npy"}, "/format"),
        (ENCODE, {"image": "", "label": "hat"}, "/label"),
        (ENCODE, {"image": "", "steps": 10**9}, "/steps"),
        (INTERPOLATE, {"a": 1, "b": 2, "num": 65}, "/num"),
        (INTERPOLATE, {"a": 1, "b": 2, "num": 1}, "/num"),
        (INTERPOLATE, {"a": [0.0] * 3, "b": 2, "label": 0}, "/a"),
        (INTERPOLATE, {"a": [0.0] * SMALL.z_dim, "b": 2}, "/label"),
        (INTERPOLATE, {"a": [1e9] * SMALL.z_dim, "b": 2}, "/a/list[constrained-float]/0"),
        (INTERPOLATE, {"a": 1}, "/b"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_pointed_at(
    settings: Settings, path: str, body: dict[str, Any], pointer: str
) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        answer = await http.post(path, json=body)
        assert answer.status_code == 422
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert pointer in pointers(answer), answer.text

    with_client(settings, use)


def test_bodies_that_are_not_what_they_say(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        for path, type_, body in (
            (ENCODE, "text/plain", b""),
            (INTERPOLATE, "image/png", png(1)),
            (ENCODE, "multipart/form-data", b"--x--"),
            (ENCODE, "multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--"),
            (ENCODE, "multipart/form-data; boundary=x", b"--x\r\ncut"),
            (ENCODE, "application/json", b"{"),
        ):
            answer = await http.post(path, content=body, headers={"Content-Type": type_})
            assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")

    with_client(settings, use)


def test_what_is_more_than_a_few_gets_503_while_pictures_are_drawn(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        file = await drawn(http, seed=3, label=2)

        async def encode() -> int:
            answer = await http.post(ENCODE, content=file, headers=PNG)
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
            return answer.status_code

        tasks = [asyncio.create_task(encode()) for _ in range(4)]
        waits = []
        while not all(task.done() for task in tasks):
            started = time.monotonic()
            assert (await http.get("/healthz")).status_code == 200
            await drawn(http, seed=1, label=0)
            waits.append(time.monotonic() - started)
        assert sorted([await task for task in tasks]) == [200, 200, 503, 503]
        assert len(waits) > 10
        assert sorted(waits)[len(waits) // 2] < 0.2
        assert await encode() == 200

    with_client(settings.model_copy(update={"serve_max_projections": 2}), use)


def test_a_caller_who_leaves_frees_the_bench(settings: Settings) -> None:
    async def use(http: httpx2.AsyncClient) -> None:
        file = await drawn(http, seed=3, label=2)
        for _ in range(3):
            task = asyncio.create_task(http.post(ENCODE, content=file, headers=PNG))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait({task})
        assert (await http.post(ENCODE, content=file, headers=PNG)).status_code == 200

    with_client(settings.model_copy(update={"serve_max_projections": 1}), use)
