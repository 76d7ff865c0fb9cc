"""The serving applications over a real registry, without Ray: what is answered, and when not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import random
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from services.local.servers import start_s3
from services.serving import replicas
from services.serving.models import Models
from shared.errors import NotFound, Unavailable
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.forgers import CLASS_NAMES, publish_forger

pytestmark = pytest.mark.usefixtures("object_store")  # the bucket exists


@pytest.fixture
def registry(object_store: ObjectStore) -> Registry:
    return Registry(object_store)


def client(app: object) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://serving")


def with_client(settings: Settings, use: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
    """Run `use` with a client of a fresh interactive replica."""

    async def main() -> None:
        async with client(replicas.interactive(settings)) as http:
            await use(http)

    asyncio.run(main())


async def generated(http: httpx2.AsyncClient, model: str, **body: object) -> httpx2.Response:
    return await http.post(f"/v1/models/{model}/generate", json=body)


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


# Pictures


def test_every_format_holds_the_same_pictures(settings: Settings, registry: Registry) -> None:
    card = publish_forger(registry, "forger")

    async def use(http: httpx2.AsyncClient) -> None:
        answers = {
            format: await generated(http, "forger", n=5, seed=9, format=format)
            for format in ("png", "webp", "grid", "npy", "json")
        }
        for answer in answers.values():
            assert answer.status_code == 200
            assert answer.headers["X-Elmyr-Model"] == "forger"
            assert answer.headers["X-Elmyr-Version"] == "1"
            assert answer.headers["X-Elmyr-Seed"] == "9"
            assert answer.headers["X-Elmyr-Job"] == card.job_id
        array = np.load(io.BytesIO(answers["npy"].content))
        assert array.shape == (5, 16, 16, 1)
        assert array.dtype == np.uint8
        for format in ("png", "webp"):
            assert answers[format].headers["Content-Type"] == "application/zip"
            with zipfile.ZipFile(io.BytesIO(answers[format].content)) as archive:
                assert archive.namelist() == [f"{i:07d}.{format}" for i in range(5)]
                for picture, name in zip(array, archive.namelist(), strict=True):
                    found = pixels_of(archive.read(name))
                    assert np.array_equal(found.reshape(16, 16, -1)[:, :, :1], picture)
        content = answers["json"].json()
        assert content["job_id"] == card.job_id
        for picture, text in zip(array, content["images"], strict=True):
            assert np.array_equal(pixels_of(base64.b64decode(text)), picture[:, :, 0])
        assert answers["grid"].headers["Content-Type"] == "image/png"
        assert pixels_of(answers["grid"].content).shape == (38, 56)
        single = await generated(http, "forger", seed=9)
        assert single.headers["Content-Type"] == "image/png"
        assert np.array_equal(pixels_of(single.content), array[0][:, :, 0])

    with_client(settings, use)


def test_image_is_one_picture_and_a_new_one_without_a_seed(
    settings: Settings, registry: Registry
) -> None:
    publish_forger(registry, "forger")

    async def use(http: httpx2.AsyncClient) -> None:
        path = "/v1/models/forger/image"
        # Some of them are drawn before they are asked for.
        in_turn = [await http.get(path) for _ in range(20)]
        at_once = await asyncio.gather(*(http.get(path) for _ in range(20)))
        posted = [await generated(http, "forger") for _ in range(20)]
        new = {answer.headers["X-Elmyr-Seed"]: answer for answer in [*in_turn, *at_once, *posted]}
        assert len(new) == 60
        for seed, answer in new.items():
            assert answer.headers["Cache-Control"] == "no-store"
            again = await http.get(path, params={"seed": seed})
            assert again.content == answer.content
        bag = await generated(http, "forger@1", seed=4, label="bag", truncation=0.5)
        query = {"seed": 4, "label": "1", "truncation": 0.5}
        got = await http.get("/v1/models/forger@1/image", params=query)
        assert got.content == bag.content
        assert "immutable" in got.headers["Cache-Control"]
        other = await http.get("/v1/models/forger@1/image", params={**query, "label": "boot"})
        assert other.content != got.content

    with_client(settings, use)


def test_the_same_seed_gives_the_same_bytes_in_any_company_and_in_bulk(
    settings: Settings, registry: Registry, object_store: ObjectStore
) -> None:
    publish_forger(registry, "forger")
    rng = random.Random(3)
    orders = [
        {"n": rng.choice([1, 1, 2, 7, 33]), "seed": rng.randrange(4), "format": "npy"}
        for _ in range(60)
    ]

    async def main() -> None:
        async with client(replicas.interactive(settings)) as http:
            whole = await generated(http, "forger", n=256, seed=0, format="npy")
            answers = await asyncio.gather(*(generated(http, "forger", **o) for o in orders))
            for order, answer in zip(orders, answers, strict=True):
                assert answer.content == (await generated(http, "forger", **order)).content
                if order["seed"] == 0:
                    expected = np.load(io.BytesIO(whole.content))[: order["n"]]
                    assert np.array_equal(np.load(io.BytesIO(answer.content)), expected)
        async with client(replicas.bulk(settings)) as http:
            pictures = list(np.load(io.BytesIO(whole.content)))
            for index, (start, count) in enumerate([(0, 1), (1, 64), (65, 100)]):
                key = await chunk(http, index=index, start=start, count=count)
                with zipfile.ZipFile(io.BytesIO(object_store.get(key))) as archive:
                    for i in range(start, start + count):
                        found = pixels_of(archive.read(f"{i:07d}.png"))
                        assert np.array_equal(found, pictures[i][:, :, 0])

    asyncio.run(main())


# Bulk


async def chunk(http: httpx2.AsyncClient, **changes: object) -> str:
    order = {
        "job_id": "job-1", "index": 0, "model": "forger", "version": 1, "seed": 0,
        "start": 0, "count": 64, "label": None, "truncation": 1.0, "format": "png",
    }  # fmt: skip
    answer = await http.post("/chunks", json=order | changes)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["key"])


def test_a_chunk_that_exists_is_not_made_again(
    settings: Settings, registry: Registry, object_store: ObjectStore
) -> None:
    publish_forger(registry, "forger")

    async def main() -> None:
        async with client(replicas.bulk(settings)) as http:
            keys_made = await asyncio.gather(*(chunk(http, index=5) for _ in range(4)))
            assert set(keys_made) == {keys.sampled_chunk("job-1", 5)}
            made = object_store.stat(keys_made[0])
            assert await chunk(http, index=5) == made.key
            assert object_store.stat(made.key).modified_at == made.modified_at
            missing = {"job_id": "job-1", "index": 6, "model": "forger", "version": 7}
            order = missing | {"seed": 0, "start": 0, "count": 4}
            assert (await http.post("/chunks", json=order)).status_code == 404
            assert (await http.post("/chunks", json={})).status_code == 422

    asyncio.run(main())
    with pytest.raises(NotFound):
        object_store.stat(keys.sampled_chunk("job-1", 6))


# What is refused


def test_what_is_wrong_is_pointed_at(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")

    async def use(http: httpx2.AsyncClient) -> None:
        for body, pointer in (
            ({"n": 0}, "/n"),
            ({"n": 1000}, "/n"),
            ({"seed": -1}, "/seed"),
            ({"label": "hat"}, "/label"),
            ({"label": 3}, "/label"),
            ({"truncation": 0}, "/truncation"),
            ({"format": "gif"}, "/format"),
            ({"colour": "red"}, "/colour"),
        ):
            answer = await generated(http, "forger", **body)
            assert answer.status_code == 422
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert pointer in [
                error["pointer"].removesuffix("/int") for error in answer.json()["errors"]
            ], answer.text
        hat = (await generated(http, "forger", label="hat")).json()
        assert ", ".join(CLASS_NAMES) in hat["detail"]
        answer = await http.get("/v1/models/forger/image", params={"seed": "x"})
        assert answer.json()["errors"][0]["pointer"] == "/query/seed"
        answer = await http.post("/v1/models/forger/generate", content=b"{")
        assert answer.status_code == 422
        answer = await http.post("/v1/models/forger/generate", content=b" " * 2**21)
        assert answer.status_code == 413
        assert (await generated(http, "a@b@c")).status_code == 422

    with_client(settings, use)


def test_what_is_not_there_is_404_and_says_what_is(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")

    async def use(http: httpx2.AsyncClient) -> None:
        for model, there in (
            ("painter", "forger"),
            ("forger@7", "1"),
            ("forger@production", "latest"),
        ):
            answer = await generated(http, model)
            assert answer.status_code == 404
            assert answer.json()["code"] == "NOT_FOUND"
            assert there in answer.json()["detail"].split("there are:")[1]
        answer = await http.get("/v3", headers={"X-Request-Id": "mine"})
        assert answer.status_code == 404
        assert answer.json()["request_id"] == "mine"
        assert (await http.get("/v1/models/forger/generate")).status_code == 405

    with_client(settings, use)


def test_a_full_replica_says_when_to_come_again(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    full = settings.model_copy(update={"serve_max_waiting_images": 8})

    async def use(http: httpx2.AsyncClient) -> None:
        # The first seats are taken before any picture is drawn: the model is still to be loaded.
        answers = await asyncio.gather(*(generated(http, "forger", n=4) for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429, 429]
        assert answers[-1].headers["Retry-After"] == "1"
        assert (await generated(http, "forger", n=4)).status_code == 200

    with_client(full, use)


# Models


def test_models_are_listed_and_loaded(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    publish_forger(registry, "forger", seed=1)

    async def use(http: httpx2.AsyncClient) -> None:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ok"}
        before = (await http.get("/v1/models/forger@1")).json()
        assert (before["job_id"], before["loaded"]) == ("job-forger-0", False)
        ready = (await http.get("/v1/models/forger@1/ready")).json()
        assert ready == {"model": "forger", "version": 1, "ready": True}
        assert (await http.get("/v1/models/forger@1")).json()["loaded"]
        (item,) = (await http.get("/v1/models")).json()["items"]
        assert (item["versions"], item["aliases"], item["loaded"]) == ([1, 2], {"latest": 2}, [1])

    with_client(settings, use)


def test_a_moved_alias_is_served_without_a_dropped_request(
    settings: Settings, registry: Registry
) -> None:
    for seed in range(3):
        publish_forger(registry, "forger", seed=seed)
    registry.move_alias("forger", "production", 1, by="tests")
    quick = settings.model_copy(update={"serve_alias_ttl_s": 0.05})

    async def use(http: httpx2.AsyncClient) -> None:
        async def ask_until(version: int) -> None:
            while True:
                answer = await generated(http, "forger@production")
                assert answer.status_code == 200
                if answer.headers["X-Elmyr-Version"] == str(version):
                    return

        for version in (1, 3, 2, 1):
            await asyncio.to_thread(
                registry.move_alias, "forger", "production", version, by="tests"
            )
            async with asyncio.timeout(30):
                await asyncio.gather(*(ask_until(version) for _ in range(8)))

    with_client(quick, use)


def test_what_is_deleted_is_soon_not_served(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    publish_forger(registry, "forger", seed=1)
    quick = settings.model_copy(update={"serve_alias_ttl_s": 0.05})

    async def use(http: httpx2.AsyncClient) -> None:
        async def ask_until_gone(model: str) -> None:
            async with asyncio.timeout(30):
                while (await generated(http, model)).status_code == 200:
                    pass
            assert (await generated(http, model)).status_code == 404

        assert (await generated(http, "forger@1")).status_code == 200
        await asyncio.to_thread(registry.delete_version, "forger", 1)
        await ask_until_gone("forger@1")
        assert (await generated(http, "forger")).status_code == 200
        await asyncio.to_thread(registry.delete_model, "forger")
        await ask_until_gone("forger")

    with_client(quick, use)


def test_weights_that_are_not_what_was_published_are_not_loaded(
    settings: Settings, registry: Registry, object_store: ObjectStore
) -> None:
    card = publish_forger(registry, "forger")
    object_store.put(keys.model_weights("forger", 1), bytes(card.weights_bytes))

    async def use(http: httpx2.AsyncClient) -> None:
        answer = await generated(http, "forger")
        assert (answer.status_code, answer.json()["code"]) == (500, "CORRUPT_OBJECT")

    with_client(settings, use)


def test_what_is_loaded_is_served_while_the_store_is_down(
    settings: Settings, tmp_path: Path
) -> None:
    server = start_s3(tmp_path)
    own = settings.model_copy(
        update={
            "s3_endpoint": server.endpoint,
            "s3_access_key": type(settings.s3_access_key)(server.access_key),
            "s3_secret_key": type(settings.s3_secret_key)(server.secret_key),
            "serve_alias_ttl_s": 0.05,
        }
    )
    try:
        store = ObjectStore.from_settings(own)
        store.ensure_bucket()
        for name in ("forger", "painter"):
            publish_forger(Registry(store), name)

        async def use(http: httpx2.AsyncClient) -> None:
            first = await generated(http, "forger", seed=1)
            await asyncio.to_thread(server.stop)
            cold = await generated(http, "painter")
            assert (cold.status_code, cold.json()["code"]) == (503, "UNAVAILABLE")
            assert int(cold.headers["Retry-After"]) >= 1
            for _ in range(20):
                answer = await generated(http, "forger", seed=1)
                assert answer.content == first.content
                await asyncio.sleep(0.02)  # beliefs grow older than the limit
            assert (await http.get("/readyz")).status_code == 200

        with_client(own, use)
    finally:
        server.stop()


# Memory


@contextlib.asynccontextmanager
async def held_weights(settings: Settings, together: int) -> AsyncIterator[Settings]:
    """Settings of a store whose weights are sent only once `together` loads ask for weights."""
    host, port = settings.s3_endpoint.split(":")
    barrier = asyncio.Barrier(together)

    async def copy(
        source: asyncio.StreamReader, target: asyncio.StreamWriter, *, hold: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(2**16):
                if hold and b"model.safetensors" in data:
                    await barrier.wait()
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, down, hold=True), copy(up, writer, hold=False))

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        endpoint = f"{host}:{server.sockets[0].getsockname()[1]}"
        yield settings.model_copy(update={"s3_endpoint": endpoint})


def test_cold_models_load_side_by_side_and_each_once(
    settings: Settings, registry: Registry
) -> None:
    names = [f"forger-{i}" for i in range(8)]
    for name in names:
        publish_forger(registry, name)

    async def main() -> None:
        # A second load of any model would wait at the barrier for ever.
        async with (
            asyncio.timeout(60),
            held_weights(settings, len(names)) as held,
            client(replicas.interactive(held)) as http,
        ):
            answers = await asyncio.gather(*(generated(http, name) for name in names * 4))
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(main())


def test_memory_is_bounded_and_what_is_in_use_stays(
    object_store: ObjectStore, registry: Registry
) -> None:
    num_bytes = max(publish_forger(registry, f"forger-{i}").weights_bytes for i in range(3))

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            models = Models(
                object_store, executor=executor, max_bytes=2 * num_bytes, alias_ttl_s=1.0
            )

            async def use(name: str) -> list[str]:
                """Use a model for a moment; returns what is in memory then."""
                async with models.use(name):
                    return [f"forger-{i}" for i in range(3) if models.loaded(f"forger-{i}")]

            for name in ("forger-0", "forger-1", "forger-0"):
                await use(name)
            assert await use("forger-2") == ["forger-0", "forger-2"]  # 1 was unused for longest
            async with models.use("forger-0"):
                assert await use("forger-1") == ["forger-0", "forger-1"]
                async with models.use("forger-1"):
                    with pytest.raises(Unavailable, match="in use"):
                        await use("forger-2")
            assert await use("forger-2") == ["forger-1", "forger-2"]

    asyncio.run(main())
