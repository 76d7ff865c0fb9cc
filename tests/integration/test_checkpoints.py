"""Checkpoints in a real store: committed by HEAD, verified on load, never torn, never stale."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from shared.errors import CorruptObject, NotFound, StaleToken
from shared.ids import new_job_id
from shared.schemas.presets import PRESETS
from shared.schemas.recipes import GanConfig
from shared.storage.objects import ObjectStore
from shared.storage.runs import RunStore
from tests.training import PARTS, tiny, train_steps
from workers.training.checkpoints import CheckpointManifest, CheckpointStore
from workers.training.loop import Checkpoint


@pytest.fixture(scope="module")
def checkpoints() -> list[Checkpoint]:
    return checkpoints_of(tiny("lecture", kimg=2.4, checkpoint_every_kimg=0.8))


def checkpoints_of(config: GanConfig, start: Checkpoint | None = None) -> list[Checkpoint]:
    _, reports, _ = train_steps(config, start=start)
    return [report for report in reports if isinstance(report, Checkpoint)]


def saved(store: ObjectStore, checkpoints: list[Checkpoint]) -> CheckpointStore:
    job_id = new_job_id()
    RunStore(store).take_head(job_id, 1)
    saver = CheckpointStore(store, job_id, 1)
    for checkpoint in checkpoints:
        saver.save(checkpoint)
    return saver


def assert_same(loaded: Checkpoint | None, original: Checkpoint) -> None:
    assert loaded is not None
    assert (loaded.step, loaded.kimg) == (original.step, original.kimg)
    for part in ("networks", "optimizers"):
        ours, theirs = getattr(loaded, part), getattr(original, part)
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), name
    assert (loaded.replay is None) == (original.replay is None)
    if original.replay:
        for name, tensor in vars(original.replay).items():
            assert torch.equal(getattr(loaded.replay, name), tensor)


def test_no_checkpoint_yet(object_store: ObjectStore) -> None:
    assert CheckpointStore(object_store, new_job_id(), 1).load_newest() is None


def test_the_newest_comes_back_bit_for_bit(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    assert_same(saved(object_store, checkpoints).load_newest(), checkpoints[-1])


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [*((preset, {}) for preset in PRESETS), *PARTS.values()],
    ids=[*PRESETS, *PARTS],
)
def test_a_resumed_run_ends_with_the_same_bits(
    object_store: ObjectStore, preset: str, overrides: dict
) -> None:
    config = tiny(preset, **overrides, kimg=0.9, checkpoint_every_kimg=0.3)
    *before, last = checkpoints_of(config)
    assert len(before) >= 2
    for checkpoint in before:
        loaded = saved(object_store, [checkpoint]).load_newest()
        assert_same(checkpoints_of(config, start=loaded)[-1], last)


@pytest.mark.parametrize("blob", ["networks", "optimizers", "replay"])
@pytest.mark.parametrize("damage", ["flipped bit", "cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    object_store: ObjectStore, checkpoints: list[Checkpoint], blob: str, damage: str
) -> None:
    saver = saved(object_store, checkpoints[:1])
    manifest = saver.save(checkpoints[1])
    key = manifest.replay.shards[0].key if blob == "replay" else getattr(manifest, blob).key
    data = bytearray(object_store.get(key))
    data[len(data) // 2] ^= 1
    if damage == "gone":
        object_store.delete(key)
    else:
        object_store.put(key, bytes(data if damage == "flipped bit" else data[:-1]))
    assert_same(saver.load_newest(), checkpoints[0])


def test_the_newest_two_keep_their_tensors(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    assert len(checkpoints) == 3
    saver = saved(object_store, [])
    first, second, third = [saver.save(checkpoint) for checkpoint in checkpoints]

    there = {info.key for info in object_store.list(f"runs/{saver.job_id}/")}
    for manifest in (first, second, third):
        assert {saver.manifest_key(manifest), manifest.replay.picture_key} <= there
        tensors = {manifest.networks.key, manifest.optimizers.key, manifest.replay.shards[0].key}
        assert tensors & there == (set() if manifest is first else tensors)
    object_store.delete(third.networks.key)
    assert_same(saver.load_newest(), checkpoints[1])


def test_saving_the_same_step_again_changes_nothing(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    saver = saved(object_store, checkpoints[:1])
    manifest = saver.save(checkpoints[1])
    assert saver.save(checkpoints[1]) == manifest
    object_store.delete(manifest.networks.key)
    assert_same(saver.load_newest(), checkpoints[0])


def test_nothing_whole_is_said_and_not_trained_over(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    saver = saved(object_store, [])
    manifest = saver.save(checkpoints[0])
    object_store.delete(manifest.networks.key)
    with pytest.raises(CorruptObject, match="no checkpoint of this job is whole"):
        saver.load_newest()


def test_an_older_attempt_cannot_commit(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    zombie = saved(object_store, checkpoints[:1])
    job_id = zombie.job_id
    RunStore(object_store).take_head(job_id, 2)
    with pytest.raises(StaleToken):
        zombie.save(checkpoints[1])
    assert_same(CheckpointStore(object_store, job_id, 2).load_newest(), checkpoints[0])


def test_each_checkpoint_names_its_parent_and_its_repository(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    saver = saved(object_store, checkpoints[:1])
    manifest = saver.save(checkpoints[1])
    assert manifest.parent is not None
    assert f"{checkpoints[0].kimg:010.3f}" in manifest.parent
    assert manifest.replay.num_images == 200
    assert sum(manifest.replay.ages.values()) == 200
    assert manifest.replay.ages[0] == 100
    assert object_store.get(manifest.replay.picture_key)[:4] == b"RIFF"


def test_the_best_by_score_is_kept_beside_the_newest_two(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    scores = [3.0, 1.0, 2.0, 5.0, 4.0, 0.5]
    saver = saved(object_store, [])
    manifests = [
        saver.save(replace(checkpoints[0], step=i, kimg=float(i), score=score))
        for i, score in enumerate(scores, start=1)
    ]
    best = saver.load_best()
    assert best is not None
    assert (best.kimg, best.score) == (6.0, 0.5)

    def whole(manifest: CheckpointManifest) -> bool:
        try:
            object_store.stat(manifest.networks.key)
        except NotFound:
            return False
        return True

    # Number 2 was the best until 6 came; 5 and 6 are the newest.
    assert [whole(m) for m in manifests] == [False, False, False, False, True, True]
    saver.save(replace(checkpoints[0], step=7, kimg=7.0, score=9.0))
    saver.save(replace(checkpoints[0], step=8, kimg=8.0, score=9.0))
    assert whole(manifests[5])
    assert not whole(manifests[4])
    unscored = saved(object_store, checkpoints[:1])
    assert unscored.load_best() is None


def test_the_same_place_after_a_recovery_is_another_checkpoint(
    object_store: ObjectStore, checkpoints: list[Checkpoint]
) -> None:
    saver = saved(object_store, checkpoints[:1])
    again = replace(checkpoints[0], changes=["rates"], lowest={"mean_distance": 0.1})
    saver.save(again)
    loaded = saver.load_newest()
    assert loaded is not None
    assert (loaded.changes, loaded.lowest) == (["rates"], {"mean_distance": 0.1})
