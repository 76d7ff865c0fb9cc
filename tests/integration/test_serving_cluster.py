"""Both deployments on a real Ray cluster, behind HAProxy: one cluster for all tests."""

from __future__ import annotations

import io
import threading
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import openai
import psutil
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from services.local.marks import marked
from tests.forgers import publish_forger
from tests.serving_stack import ServingStack, serving_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingStack]:
    with serving_stack(tmp_path_factory.mktemp("serving")) as stack:
        publish_forger(stack.registry, "forger")
        yield stack


@pytest.fixture
def http(stack: ServingStack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url, timeout=60) as http:
        yield http


def test_online_and_bulk_give_the_same_pictures(stack: ServingStack, http: httpx2.Client) -> None:
    order = {"n": 100, "seed": 5, "label": "boot", "truncation": 0.7, "format": "npy"}
    answer = http.post("/v1/models/forger/generate", json=order)
    assert answer.status_code == 200
    assert answer.headers["X-Elmyr-Job"] == "job-forger-0"
    online = np.load(io.BytesIO(answer.content))
    for index, (start, count) in enumerate([(0, 64), (64, 36)]):
        chunk = {
            "job_id": "job-a", "index": index, "model": "forger", "version": 1, "seed": 5,
            "start": start, "count": count, "label": "boot", "truncation": 0.7, "format": "png",
        }  # fmt: skip
        answer = http.post("/bulk/chunks", json=chunk)
        assert answer.status_code == 200, answer.text
        body = stack.store.get(answer.json()["key"])
        assert len(body) == answer.json()["bytes"]
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert len(archive.namelist()) == count
            for i in range(start, start + count):
                picture = np.asarray(Image.open(io.BytesIO(archive.read(f"{i:07d}.png"))))
                assert np.array_equal(picture, online[i][:, :, 0])


def test_one_picture_is_the_first_of_many(http: httpx2.Client) -> None:
    many = http.post("/v1/models/forger@1/generate", json={"n": 2, "seed": 7}).content
    with zipfile.ZipFile(io.BytesIO(many)) as archive:
        first = archive.read("0000000.png")
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda _: http.get("/v1/models/forger/image?seed=7").content, range(100))
        assert set(found) == {first}


def test_a_promotion_drops_no_request(stack: ServingStack, http: httpx2.Client) -> None:
    for seed in (1, 2):
        publish_forger(stack.registry, "promoted", seed=seed)
    stack.registry.move_alias("promoted", "production", 1, by="tests")
    served = [threading.Event() for _ in range(3)]
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=stack.url, timeout=60) as own:
            while not done.is_set():
                answer = own.get("/v1/models/promoted@production/image")
                if answer.status_code == 200:
                    served[int(answer.headers["X-Elmyr-Version"])].set()
                else:
                    wrong.append(answer.text)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        assert served[1].wait(30)
        for version in (2, 1, 2):
            served[version].clear()
            stack.registry.move_alias("promoted", "production", version, by="tests")
            assert served[version].wait(30)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert not wrong


def test_errors_come_through_the_proxy_as_problems(http: httpx2.Client) -> None:
    for answer, status in (
        (http.get("/v1/models/nobody/image"), 404),
        (http.get("/v1/models/forger/image?seed=x"), 422),
        (http.get("/nowhere"), 404),
        (http.post("/bulk/chunks", json={}), 422),
    ):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


def test_other_clients_come_through_the_proxy(stack: ServingStack, http: httpx2.Client) -> None:
    order = {"n": 2, "seed": 7, "label": "bag", "format": "npy"}
    expected = np.load(io.BytesIO(http.post("/v1/models/forger/generate", json=order).content))
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0) as client:
        extra = {"seed": 7}
        for format in ("b64_json", "url"):
            response = client.images.generate(
                model="forger", prompt="bag", n=2, response_format=format, extra_body=extra
            )
            for image, pixels in zip(response.data or [], expected, strict=True):
                file = http.get(image.url).content if image.url else b64decode(image.b64_json or "")
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels[:, :, 0])
        with pytest.raises(openai.NotFoundError) as caught:
            client.images.generate(model="nobody", prompt="bag")
        assert caught.value.request_id
    with InferenceServerClient(stack.url.removeprefix("http://")) as client:
        assert client.is_model_ready("forger")
        inputs = [
            InferInput(name, [1], "INT64").set_data_from_numpy(np.array([value]))
            for name, value in (("n", 2), ("seed", 7), ("label", 1))
        ]
        found = client.infer("forger", inputs).as_numpy("images")
        assert np.array_equal(found, expected)
        with pytest.raises(InferenceServerException, match="there are: forger"):
            client.infer("nobody", inputs)


@pytest.mark.usefixtures("http")
def test_all_of_it_listens_on_loopback_only(stack: ServingStack) -> None:
    addresses = {
        connection.laddr.ip
        for process in marked(stack.stack_id)
        for connection in listening(process)
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        return [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []
