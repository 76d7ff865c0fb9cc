"""OpenAI's own client against the serving application: the pictures, the errors, the models."""

from __future__ import annotations

import asyncio
import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from services.serving import replicas
from shared.networks.text import SentenceEncoder
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.text import find_encoder
from tests.forgers import CLASS_NAMES, publish_forger, publish_plain_forger, publish_text_forger
from tests.live import listening
from tests.sentences import needs_encoder


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
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=60) as http:
        yield http


def native(http: httpx2.Client, model: str, **order: Any) -> list[bytes]:
    """The same pictures from our own endpoint."""
    answer = http.post(f"/v1/models/{model}/generate", json=order)
    assert answer.status_code == 200, answer.text
    if answer.headers["Content-Type"] != "application/zip":
        return [answer.content]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def files(response: openai.types.ImagesResponse) -> list[bytes]:
    assert response.data is not None
    return [base64.b64decode(image.b64_json or "") for image in response.data]


def revised(response: openai.types.ImagesResponse) -> set[str | None]:
    return {image.revised_prompt for image in response.data or []}


# Pictures


def test_the_pictures_are_those_of_our_own_endpoint(client: OpenAI, http: httpx2.Client) -> None:
    for format in ("png", "webp"):
        response = client.images.generate(
            model="forger@1",
            prompt="boot",
            n=3,
            output_format=format,
            extra_body={"seed": 7, "truncation": 0.5},
        )
        order = {"label": "boot", "n": 3, "seed": 7, "truncation": 0.5, "format": format}
        assert files(response) == native(http, "forger@1", **order)
        assert (response.size, response.output_format) == ("16x16", format)
        assert revised(response) == {"boot"}


def test_an_answer_says_where_its_pictures_come_from(client: OpenAI, http: httpx2.Client) -> None:
    raw = client.images.with_raw_response.generate(model="forger", prompt="bag")
    response = raw.parse()
    assert raw.headers["X-Elmyr-Job"] == "job-forger-1"
    found = response.model_dump()
    assert (found["model"], found["version"], found["job_id"]) == ("forger", 2, "job-forger-1")
    assert str(found["seed"]) == raw.headers["X-Elmyr-Seed"]
    assert files(response) == native(http, "forger", label="bag", seed=found["seed"])
    other = client.images.generate(model="forger", prompt="bag")
    assert other.model_dump()["seed"] != found["seed"]


def test_versions_and_aliases(client: OpenAI, http: httpx2.Client, registry: Registry) -> None:
    registry.move_alias("forger", "production", 1, by="tests")
    drawn = {
        model: files(client.images.generate(model=model, prompt="bag", extra_body={"seed": 3}))
        for model in ("forger", "forger@1", "forger@2", "forger@production")
    }
    assert drawn["forger"] == drawn["forger@2"] == native(http, "forger@2", seed=3, label="bag")
    assert drawn["forger@production"] == drawn["forger@1"] != drawn["forger@2"]


def test_a_prompt_is_a_class_by_name_or_number_or_nothing(
    client: OpenAI, http: httpx2.Client
) -> None:
    for prompt, label in (("bag", 1), (" BaG ", 1), ("1", 1), ("", None)):
        response = client.images.generate(
            model="forger", prompt=prompt, n=4, extra_body={"seed": 5}
        )
        assert files(response) == native(http, "forger", seed=5, n=4, label=label)
        assert revised(response) == {None if label is None else CLASS_NAMES[label]}
    with pytest.raises(openai.BadRequestError, match="shirt, bag, boot") as caught:
        client.images.generate(model="forger", prompt="a bag, please")
    assert caught.value.param == "prompt"


def test_a_model_that_can_draw_one_thing_draws_it_whatever_the_prompt(
    client: OpenAI, http: httpx2.Client, registry: Registry
) -> None:
    publish_plain_forger(registry, "plain")
    response = client.images.generate(model="plain", prompt="a pear", extra_body={"seed": 5})
    assert files(response) == native(http, "plain", seed=5)
    assert revised(response) == {""}


@needs_encoder
def test_a_prompt_is_text_to_a_model_with_captions(
    client: OpenAI, http: httpx2.Client, registry: Registry
) -> None:
    encoder = SentenceEncoder(find_encoder(Settings().text_encoder))
    publish_text_forger(registry, "writer", encoder_sha256=encoder.sha256)
    order = {"model": "writer", "prompt": "a red & yellow pear", "n": 2, "extra_body": {"seed": 1}}
    response = client.images.generate(**order)
    drawn = files(response)
    assert drawn == native(http, "writer", seed=1, n=2, prompt=order["prompt"])
    assert drawn != files(client.images.generate(**order | {"prompt": "a pear"}))
    assert revised(response) == {None}
    linked = client.images.generate(**order, response_format="url")
    assert [http.get(image.url or "").content for image in linked.data or []] == drawn


def test_an_address_draws_the_picture_that_base64_holds(
    client: OpenAI, http: httpx2.Client
) -> None:
    for prompt in ("boot", ""):
        order: dict[str, Any] = {"model": "forger", "prompt": prompt, "n": 3}
        extra = {"seed": 9, "truncation": 0.7}
        drawn = files(client.images.generate(**order, output_format="webp", extra_body=extra))
        linked = client.images.generate(
            **order, output_format="webp", response_format="url", extra_body=extra
        )
        answers = [http.get(image.url or "") for image in linked.data or []]
        assert [answer.content for answer in answers] == drawn
        assert all("immutable" in answer.headers["Cache-Control"] for answer in answers)
    proxied = client.images.generate(
        model="forger",
        prompt="",
        response_format="url",
        extra_headers={"Host": "pictures.example", "X-Forwarded-Proto": "https"},
    )
    (image,) = proxied.data or []
    assert (image.url or "").startswith("https://pictures.example/v1/models/forger@2/image?seed=")


def test_many_callers_get_what_each_would_get_alone(url: str, http: httpx2.Client) -> None:
    async def ask() -> list[list[bytes]]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60) as client:
            responses = await asyncio.gather(
                *(
                    client.images.generate(
                        model="forger", prompt="boot", n=1 + seed % 3, extra_body={"seed": seed}
                    )
                    for seed in range(24)
                )
            )
        return [files(response) for response in responses]

    for seed, drawn in enumerate(asyncio.run(ask())):
        assert drawn == native(http, "forger", label="boot", seed=seed, n=1 + seed % 3)


# Errors


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 257}, "n"),
        ({"size": "1024x1024"}, "size"),
        ({"stream": True}, "stream"),
        ({"output_format": "jpeg"}, "output_format"),
        ({"response_format": "file"}, "response_format"),
        ({"background": "transparent"}, "background"),
        ({"prompt": "x" * 501}, "prompt"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"model": "a@b@c"}, None),
    ],
)
def test_what_is_wrong_is_a_bad_request(
    client: OpenAI, changes: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"model": "forger", "prompt": "bag"} | changes)
    error = caught.value
    assert (error.param, error.type, error.code) == (
        param,
        "invalid_request_error",
        "invalid_input",
    )


def test_what_clients_send_by_themselves_does_no_harm(client: OpenAI) -> None:
    for size in ("auto", "16x16", None):
        response = client.images.generate(
            model="forger", prompt="bag", n=None, size=size, quality="hd", style="vivid",
            user="me", stream=False, background="auto", moderation="low", response_format=None,
            safety_identifier="me",
        )  # fmt: skip
        assert len(files(response)) == 1


def test_what_is_not_there_is_not_found(client: OpenAI, http: httpx2.Client) -> None:
    for model, there in (("painter", "forger"), ("forger@7", "1, 2"), ("forger@gone", "latest")):
        with pytest.raises(openai.NotFoundError, match=there) as caught:
            client.images.generate(model=model, prompt="bag")
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.images.edit(model="forger", prompt="bag", image=b"")
    with pytest.raises(openai.APIStatusError) as refused:
        client.images.generate(model="forger", prompt="bag", user="x" * 2**20)
    assert (refused.value.status_code, refused.value.code) == (413, "too_large")
    answer = http.get("/v1/images/generations")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_a_full_replica_is_a_rate_limit(settings: Settings, registry: Registry) -> None:
    publish_forger(registry, "forger")
    full = settings.model_copy(update={"serve_max_waiting_images": 8})

    async def ask() -> list[Any]:
        transport = httpx2.ASGITransport(replicas.interactive(full))
        async with AsyncOpenAI(
            base_url="http://serving/v1",
            api_key="unused",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(transport=transport),
        ) as client:
            # The first seats are taken before any picture is drawn: the model is still to load.
            orders = (client.images.generate(model="forger", prompt="", n=4) for _ in range(6))
            return await asyncio.gather(*orders, return_exceptions=True)

    answers = asyncio.run(ask())
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert len(refused) == 4
    assert (refused[0].type, refused[0].code) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused[0].response.headers["Retry-After"] == "1"


def test_a_store_that_is_down_is_a_server_error(settings: Settings) -> None:
    gone = settings.model_copy(update={"s3_endpoint": "127.0.0.1:9"})
    with (
        listening(replicas.interactive(gone)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.images.generate(model="forger", prompt="bag")
    assert (caught.value.status_code, caught.value.type) == (503, "server_error")


# Models


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    (listed,) = client.models.list()
    assert (listed.id, listed.object, listed.owned_by) == ("forger", "model", "elmyr")
    for ref in ("forger", "forger@1", "forger@latest"):
        assert client.models.retrieve(ref).id == ref
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("painter")
