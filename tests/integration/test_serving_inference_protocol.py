"""Triton's own client against the serving application: metadata, health, pictures, errors."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http.aio
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from services.serving import replicas
from shared.networks.sampling import latents
from shared.networks.text import SentenceEncoder
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.text import find_encoder
from tests.forgers import SMALL, publish_forger, publish_plain_forger, publish_text_forger
from tests.live import listening
from tests.sentences import needs_encoder

DTYPES = {"truncation": np.float32, "z": np.float32}


@pytest.fixture
def registry(object_store: ObjectStore) -> Registry:
    return Registry(object_store)


@pytest.fixture
def url(settings: Settings, registry: Registry) -> Iterator[str]:
    """A replica with a model of three classes in two versions."""
    for seed in range(2):
        publish_forger(registry, "forger", seed=seed)
    with listening(replicas.interactive(settings)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=60) as http:
        yield http


def inputs(*, binary: bool = True, **given: Any) -> list[InferInput]:
    """Tensors of one value, but for z."""
    tensors = []
    for name, value in given.items():
        if isinstance(value, str):
            array = np.array([value.encode()], np.object_)
        else:
            array = np.atleast_1d(np.asarray(value, DTYPES.get(name, np.int64)))
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return tensors


def native(http: httpx2.Client, model: str, **order: Any) -> np.ndarray:
    """The same pictures from our own endpoint."""
    answer = http.post(f"/v1/models/{model}/generate", json=order | {"format": "npy"})
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


def pixels(result: Any) -> np.ndarray:
    found: np.ndarray = result.as_numpy("images")
    assert found.dtype == np.uint8
    return found


# Health and metadata


def test_health_and_metadata(client: InferenceServerClient, registry: Registry) -> None:
    publish_plain_forger(registry, "plain")
    publish_text_forger(registry, "writer", encoder_sha256="elsewhere")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("forger")
    assert client.is_model_ready("forger", "2")
    assert client.is_model_ready("forger@latest")
    assert not client.is_model_ready("forger", "3")
    assert not client.is_model_ready("painter")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("elmyr", ["binary_tensor_data"])
    metadata = client.get_model_metadata("forger", "1")
    assert (metadata["name"], metadata["versions"]) == ("forger", ["1", "2"])
    common = {"n", "seed", "truncation", "z"}
    for model, own in (("forger", {"label"}), ("plain", set()), ("writer", {"prompt"})):
        found = {tensor["name"]: tensor for tensor in client.get_model_metadata(model)["inputs"]}
        assert set(found) == common | own
        assert found["z"] == {"name": "z", "datatype": "FP32", "shape": [-1, SMALL.z_dim]}
    (output,) = metadata["outputs"]
    assert output == {"name": "images", "datatype": "UINT8", "shape": [-1, 16, 16, 1]}
    index = client.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        ("forger", "1", "READY"),
        ("forger", "2", "READY"),
        ("plain", "1", "READY"),
        ("writer", "1", "READY"),
    ]


# Pictures


@pytest.mark.parametrize("binary", [True, False])
def test_the_pixels_are_those_of_our_own_endpoint(
    client: InferenceServerClient, http: httpx2.Client, binary: bool
) -> None:
    for given in (
        {"n": 5, "seed": 9},
        {"seed": 2**32 - 1, "label": "boot"},
        {"n": 2, "seed": 1, "label": 1, "truncation": 0.7},
        {"n": 2, "seed": 1, "label": "1", "truncation": 0.7},
    ):
        expected = native(http, "forger", **given)
        outputs = [InferRequestedOutput("images", binary_data=binary)]
        for wanted in (None, outputs):
            result = client.infer("forger", inputs(binary=binary, **given), outputs=wanted)
            assert np.array_equal(pixels(result), expected)


def test_an_answer_says_where_its_pictures_come_from(
    client: InferenceServerClient, http: httpx2.Client
) -> None:
    result = client.infer("forger", inputs(label="bag"), request_id="mine")
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("forger", "2", "mine")
    assert answer["parameters"]["job_id"] == "job-forger-1"
    seed = answer["parameters"]["seed"]
    assert np.array_equal(pixels(result), native(http, "forger", seed=seed, label="bag"))
    other = client.infer("forger", []).get_response()
    assert other["parameters"]["seed"] != seed
    plain = http.post("/v2/models/forger/infer", json={"inputs": []})
    assert plain.headers["X-Elmyr-Seed"] == str(plain.json()["parameters"]["seed"])
    assert plain.headers["X-Elmyr-Job"] == "job-forger-1"


def test_versions_and_aliases(
    client: InferenceServerClient, http: httpx2.Client, registry: Registry
) -> None:
    registry.move_alias("forger", "production", 1, by="tests")
    for model, version, number in (
        ("forger", "", 2),
        ("forger", "1", 1),
        ("forger@1", "", 1),
        ("forger@production", "", 1),
        ("forger", "production", 1),
    ):
        result = client.infer(model, inputs(seed=3), model_version=version)
        assert result.get_response()["model_version"] == str(number)
        assert np.array_equal(pixels(result), native(http, f"forger@{number}", seed=3))


@pytest.mark.parametrize("binary", [True, False])
def test_a_z_is_drawn(client: InferenceServerClient, http: httpx2.Client, binary: bool) -> None:
    z = latents(5, range(7), SMALL.z_dim).numpy()
    result = client.infer("forger", inputs(binary=binary, z=z, label="bag"))
    assert np.array_equal(pixels(result), native(http, "forger", n=7, seed=5, label="bag"))
    assert "seed" not in result.get_response()["parameters"]


@needs_encoder
def test_a_prompt_is_drawn(
    client: InferenceServerClient, http: httpx2.Client, registry: Registry
) -> None:
    encoder = SentenceEncoder(find_encoder(Settings().text_encoder))
    publish_text_forger(registry, "writer", encoder_sha256=encoder.sha256)
    order = {"seed": 1, "n": 2, "prompt": "a pear, très mûre"}
    result = client.infer("writer", inputs(**order))
    assert np.array_equal(pixels(result), native(http, "writer", **order))
    with pytest.raises(InferenceServerException, match="no caption of its own"):
        client.infer("writer", inputs(z=np.zeros((1, SMALL.z_dim))))


def test_many_callers_get_what_each_would_get_alone(
    url: str, client: InferenceServerClient, http: httpx2.Client
) -> None:
    expected = [native(http, "forger", n=1 + seed % 3, seed=seed) for seed in range(24)]

    async def ask() -> Sequence[Any]:
        async with tritonclient.http.aio.InferenceServerClient(url.removeprefix("http://")) as own:
            return await asyncio.gather(
                *(own.infer("forger", inputs(n=1 + seed % 3, seed=seed)) for seed in range(24))
            )

    with InferenceServerClient(url.removeprefix("http://"), concurrency=8) as many:
        pending = [
            many.async_infer("forger", inputs(n=1 + seed % 3, seed=seed)) for seed in range(24)
        ]
        for found in ([request.get_result() for request in pending], asyncio.run(ask())):
            for result, pictures in zip(found, expected, strict=True):
                assert np.array_equal(pixels(result), pictures)


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "/inputs/n"),
        ({"n": 257}, "at most 256"),
        ({"n": [1, 2]}, "one value holds for all pictures"),
        ({"seed": -1}, "/inputs/seed"),
        ({"seed": "seven"}, "BYTES is not INT64"),
        ({"label": "hat"}, "shirt, bag, boot"),
        ({"label": 3}, "no class 3"),
        ({"truncation": 0}, "/inputs/truncation"),
        ({"truncation": np.nan}, "/inputs/truncation"),
        ({"prompt": "a bag"}, "takes no prompt"),
        ({"colour": "red"}, "there is no such input"),
        ({"z": np.zeros((1, 3)), "label": 0}, "must be"),
        ({"z": np.zeros(16), "label": 0}, "must be"),
        ({"z": np.full((1, 16), np.nan), "label": 0}, "every value must lie"),
        ({"z": np.full((1, 16), 101), "label": 0}, "every value must lie"),
        ({"z": np.zeros((1, 16))}, "no class of its own"),
        ({"z": np.zeros((2, 16)), "label": 0, "n": 3}, "2 rows"),
        ({"z": np.zeros((2, 16)), "label": 0, "seed": 3}, "takes its place"),
        ({"z": np.zeros((257, 16)), "label": 0}, "at most 256"),
    ],
)
def test_what_is_wrong_is_said(
    client: InferenceServerClient, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer("forger", inputs(**given))
    assert caught.value.status() == "400"


def test_what_the_protocol_has_and_we_do_not_is_refused(
    client: InferenceServerClient, http: httpx2.Client
) -> None:
    for extra, message in (
        ({"outputs": [InferRequestedOutput("logits")]}, "there is: images"),
        ({"outputs": [InferRequestedOutput("images", class_count=3)]}, "classification"),
        ({"request_compression_algorithm": "gzip"}, "Content-Encoding is gzip"),
        ({"priority": 1}, "priority"),
    ):
        with pytest.raises(InferenceServerException, match=message) as caught:
            client.infer("forger", inputs(n=1), **extra)
        assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="Not Found"):
        client.get_model_config("forger")
    bytes_before = InferInput("label", [1], "BYTES").set_data_from_numpy(
        np.array([b"\xff"], np.object_)
    )
    with pytest.raises(InferenceServerException, match="no UTF-8"):
        client.infer("forger", [bytes_before])
    for path, there in (("painter", "forger"), ("forger/versions/7", "1, 2")):
        answer = http.post(f"/v2/models/{path}/infer", json={"inputs": []})
        assert answer.status_code == 404
        assert there in answer.json()["error"]


def test_bodies_are_bounded(settings: Settings, registry: Registry) -> None:
    publish_plain_forger(registry, "plain")
    small = settings.model_copy(
        update={
            "serve_max_picture_bytes": 2**19,
            "serve_max_images": 5000,
            "serve_max_waiting_images": 5000,
        }
    )
    with (
        listening(replicas.interactive(small)) as url,
        InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        z = np.full((4000, 16), 1 / 3)
        assert len(pixels(client.infer("plain", inputs(z=z)))) == 4000
        with pytest.raises(InferenceServerException, match="as binary data") as caught:
            client.infer("plain", inputs(binary=False, z=z[:1200]))
        assert caught.value.status() == "413"
        with pytest.raises(InferenceServerException, match="larger than 524288") as caught:
            client.infer("plain", inputs(z=np.zeros((10_000, 16))))
        assert caught.value.status() == "413"
        outputs = [InferRequestedOutput("images", binary_data=False)]
        with pytest.raises(InferenceServerException, match="ask for binary_data"):
            client.infer("plain", inputs(n=4097), outputs=outputs)
        assert len(pixels(client.infer("plain", inputs(n=4097)))) == 4097


def test_damaged_bodies_are_refused_and_the_next_request_is_answered(http: httpx2.Client) -> None:
    body, length = InferenceServerClient.generate_request_body(inputs(seed=1, label="bag"))
    for damaged, header in (
        (b"", length),
        (b"\x00\xff" * 100, "2"),
        (body[:-1], length),
        (body + b"x", length),
        (body, length - 1),
        (body, 10**9),
        (body, "-1"),
        (body, "many"),
        (body[:length], None),
        (b"[" * 10**5, None),
    ):
        headers = {} if header is None else {"Inference-Header-Content-Length": str(header)}
        answer = http.post("/v2/models/forger/infer", content=damaged, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = http.post("/v2/models/forger/infer", content=body, headers=headers)
    assert answer.status_code == 200
    (output,) = json.loads(
        answer.content[: int(answer.headers["Inference-Header-Content-Length"])]
    )["outputs"]
    assert output["parameters"] == {"binary_data_size": 256}


def test_a_full_replica_says_when_to_come_again(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    full = settings.model_copy(update={"serve_max_waiting_images": 8})
    body, length = InferenceServerClient.generate_request_body(inputs(n=4))

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(replicas.interactive(full))
        headers = {"Inference-Header-Content-Length": str(length)}
        async with httpx2.AsyncClient(transport=transport, base_url="http://serving") as http:
            # The first seats are taken before any picture is drawn: the model is still to load.
            orders = (
                http.post("/v2/models/forger/infer", content=body, headers=headers)
                for _ in range(6)
            )
            return await asyncio.gather(*orders)

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429, 429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert "try again" in answers[-1].json()["error"]
