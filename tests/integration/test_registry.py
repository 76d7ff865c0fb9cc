"""The model registry in a real store: numbers without gap or double, aliases with a history."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest

from shared.clock import now
from shared.errors import Conflict, CorruptObject, InvalidInput, NotFound
from shared.schemas.models import ModelCard, SnapshotConfig, Task
from shared.schemas.networks import GeneratorConfig
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import MAX_HISTORY, Registry

T = TypeVar("T")
NUM_JOBS = 8
CONFIG = SnapshotConfig(generator=GeneratorConfig(size=8), tasks=[Task.GENERATE])


@pytest.fixture
def registry(object_store: ObjectStore) -> Registry:
    return Registry(object_store)


@pytest.fixture
def name() -> str:
    return f"model-{uuid.uuid4()}"


def card(model: str, job_id: str, attempt: int = 1) -> ModelCard:
    return ModelCard(
        model=model,
        version=0,
        job_id=job_id,
        attempt=attempt,
        recipe="gan",
        preset="modern",
        dataset="digits",
        dataset_version="v",
        kimg=1.0,
        seed=0,
        tasks=[Task.GENERATE],
        size=8,
        channels=1,
        num_parameters=10,
        weights_sha256="",
        weights_bytes=0,
        config_sha256="",
        created_at=now(),
    )


def publish(registry: Registry, name: str, job: int, attempt: int = 1) -> ModelCard:
    weights = f"weights of {job} {attempt}".encode()
    return registry.publish(card(name, f"job-{job}", attempt), weights, CONFIG)


def at_once(num: int, call: Callable[[int], T]) -> list[T]:
    start = Barrier(num)

    def wait_and_call(number: int) -> T:
        start.wait()
        return call(number)

    with ThreadPoolExecutor(num) as pool:
        return list(pool.map(wait_and_call, range(num)))


def test_jobs_that_publish_at_once_get_numbers_without_gap_or_double(
    registry: Registry, name: str
) -> None:
    cards = at_once(NUM_JOBS, lambda job: publish(registry, name, job))
    wanted = list(range(1, NUM_JOBS + 1))
    assert sorted(card.version for card in cards) == wanted
    model = registry.model(name)
    assert model.versions == wanted
    assert model.aliases == {"latest": NUM_JOBS}
    assert model.latest == registry.card(name, NUM_JOBS)
    assert model in registry.models()
    for job, published in enumerate(cards):
        assert registry.card(name, published.version) == published
        weights, config = registry.snapshot(name, published.version)
        assert (weights, config) == (f"weights of {job} 1".encode(), CONFIG)


def test_a_job_publishes_once(registry: Registry, name: str) -> None:
    cards = at_once(4, lambda attempt: publish(registry, name, 7, attempt))
    assert all(card == cards[0] for card in cards)
    assert publish(registry, name, 7, attempt=9) == cards[0]
    assert registry.model(name).versions == [cards[0].version]
    weights, _ = registry.snapshot(name, cards[0].version)
    assert weights == f"weights of 7 {cards[0].attempt}".encode()


def test_a_publish_that_broke_off_is_finished_by_the_next(
    registry: Registry, object_store: ObjectStore, name: str
) -> None:
    published = publish(registry, name, 1)
    object_store.delete(keys.model_card(name, 1))
    object_store.delete(keys.model_alias(name, "latest"))
    assert publish(registry, name, 1, attempt=2) == published
    assert registry.resolve(name) == (name, 1)


def test_what_was_not_published_is_not_loaded(
    registry: Registry, object_store: ObjectStore, name: str
) -> None:
    publish(registry, name, 1)
    object_store.put(keys.model_weights(name, 1), b"weights of 1 2")
    with pytest.raises(CorruptObject):
        registry.snapshot(name, 1)
    publish(registry, name, 2)
    config = CONFIG.model_copy(update={"class_names": ["shirt"]})
    object_store.put(keys.model_config(name, 2), config.model_dump_json().encode())
    with pytest.raises(CorruptObject):
        registry.snapshot(name, 2)


def test_a_reference_names_a_version(registry: Registry, name: str) -> None:
    for job in range(3):
        publish(registry, name, job)
    registry.move_alias(name, "production", 2, by="me")
    assert registry.resolve(name) == (name, 3)
    assert registry.resolve(f"{name}@1") == (name, 1)
    assert registry.resolve(f"{name}@production") == (name, 2)
    with pytest.raises(NotFound, match="no version 9; there are: 1, 2, 3"):
        registry.resolve(f"{name}@9")
    with pytest.raises(NotFound, match="no alias stable; there are: latest, production"):
        registry.resolve(f"{name}@stable")
    with pytest.raises(NotFound, match=f"no model nobody; there are: .*{name}"):
        registry.resolve("nobody")
    for ref in ("", "@1", f"{name}@", f"{name}@1@2", "../x", f"{name}@../../x", "a/b", "a\n"):
        with pytest.raises(InvalidInput):
            registry.resolve(ref)


def test_every_move_of_an_alias_is_in_its_history(registry: Registry, name: str) -> None:
    at_once(NUM_JOBS, lambda job: publish(registry, name, job))

    def move(number: int) -> None:
        registry.move_alias(name, "production", number + 1, by=f"thread {number}")

    at_once(NUM_JOBS, move)
    alias = registry.alias(name, "production")
    moves = [(entry.version, entry.by) for entry in alias.history]
    assert sorted(moves) == [(n + 1, f"thread {n}") for n in range(NUM_JOBS)]
    assert alias.version == alias.history[-1].version
    registry.move_alias(name, "production", alias.version, by="me")
    assert registry.alias(name, "production") == alias, "it was there already"


def test_a_history_is_bounded_and_latest_moves_back_only_by_hand(
    registry: Registry, name: str
) -> None:
    for job in range(2):
        publish(registry, name, job)
    for number in range(MAX_HISTORY + 1):
        registry.move_alias(name, "latest", 1 + number % 2, by="me")
    assert len(registry.alias(name, "latest").history) == MAX_HISTORY
    assert registry.resolve(name) == (name, 1)
    publish(registry, name, 2)
    assert registry.resolve(name) == (name, 3)
    publish(registry, name, 0)
    assert registry.resolve(name) == (name, 3), "a late repeat does not take it back"


def test_an_alias_must_not_read_as_a_version(registry: Registry, name: str) -> None:
    publish(registry, name, 1)
    for alias in ("1", "A", "a/b", "..", ""):
        with pytest.raises(InvalidInput):
            registry.move_alias(name, alias, 1, by="me")
    with pytest.raises(NotFound, match="no version 2"):
        registry.move_alias(name, "production", 2, by="me")


def test_a_version_is_deleted_and_its_number_never_comes_back(
    registry: Registry, object_store: ObjectStore, name: str
) -> None:
    for job in range(2):
        publish(registry, name, job)
    with pytest.raises(Conflict, match="latest"):
        registry.delete_version(name, 2)
    assert registry.card(name, 2).version == 2
    registry.move_alias(name, "latest", 1, by="me")
    registry.delete_version(name, 2)
    with pytest.raises(NotFound, match="no version 2; there are: 1"):
        registry.snapshot(name, 2)
    with pytest.raises(NotFound):
        object_store.stat(keys.model_weights(name, 2))
    assert publish(registry, name, 1).version == 3


def test_an_alias_is_deleted_and_its_version_stays(registry: Registry, name: str) -> None:
    publish(registry, name, 1)
    registry.move_alias(name, "production", 1, by="me")
    registry.delete_alias(name, "production")
    with pytest.raises(NotFound, match="no alias production; there are: latest"):
        registry.delete_alias(name, "production")
    with pytest.raises(Conflict, match="latest"):
        registry.delete_alias(name, "latest")
    assert registry.resolve(name) == (name, 1)


def test_a_model_is_deleted_whole_and_its_numbers_never_come_back(
    registry: Registry, object_store: ObjectStore, name: str
) -> None:
    for job in range(2):
        publish(registry, name, job)
    registry.move_alias(name, "production", 1, by="me")
    registry.delete_model(name)
    with pytest.raises(NotFound, match=f"no model {name}"):
        registry.resolve(name)
    left = [info.key for info in object_store.list(keys.model_versions(name))]
    assert left == [keys.model_claim(name, version) for version in (1, 2)]
    assert publish(registry, name, 1).version == 3, "the job may publish again"
    assert registry.model(name).aliases == {"latest": 3}
