"""Every object key, built here and nowhere else. Names and ids were checked before (shared.ids)."""

from __future__ import annotations

import re

from shared.errors import InvalidInput

MAX_KEY_BYTES = 1024  # S3's own limit

DATASETS = "datasets/"
MODELS = "models/"
UPLOADS = "uploads/"

# Control characters and lone surrogates; a backslash is a slash to some stores.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


def checked(key: str) -> str:
    """The key (or prefix) itself, when no store can read it as another place.

    Raises InvalidInput: a segment is `.`, `..` or empty (only the last may be, in a prefix), a
    character is a control character or a backslash, or the key exceeds 1,024 bytes.
    """
    *folders, last = key.split("/")
    if (
        _UNSAFE.search(key)
        or not {"", ".", ".."}.isdisjoint(folders)
        or last in (".", "..")
        or len(key.encode()) > MAX_KEY_BYTES
    ):
        raise InvalidInput(f"{key!r} is not a safe object key")
    return key


def upload(job_id: str) -> str:
    """The raw upload that an ingest job reads."""
    return f"{UPLOADS}{job_id}"


def dataset_prefix(name: str) -> str:
    return f"datasets/{name}/"


def dataset_version(name: str, version: str) -> str:
    return f"datasets/{name}/versions/{version}/"


def dataset_manifest(name: str, version: str) -> str:
    return f"datasets/{name}/versions/{version}/manifest.json"


def dataset_shard(name: str, version: str, index: int) -> str:
    return f"datasets/{name}/versions/{version}/part-{index:05d}.parquet"


def dataset_latest(name: str) -> str:
    """The newest version's manifest, as a pointer (changed by If-Match)."""
    return f"datasets/{name}/latest.json"


def dataset_yardstick(name: str, version: str, kind: str) -> str:
    """The classifier that was trained on a version to measure by; `kind` tells what decides it."""
    return f"datasets/{name}/versions/{version}/yardsticks/{kind}.safetensors"


def run_prefix(job_id: str) -> str:
    return f"runs/{job_id}/"


def job(job_id: str) -> str:
    return f"runs/{job_id}/job.json"


def head(job_id: str) -> str:
    return f"runs/{job_id}/HEAD"


def result(job_id: str) -> str:
    return f"runs/{job_id}/RESULT"


def events_prefix(job_id: str) -> str:
    return f"runs/{job_id}/events/"


def events_part(job_id: str, index: int) -> str:
    return f"runs/{job_id}/events/part-{index:05d}.jsonl"


def attempt_prefix(job_id: str, attempt: int) -> str:
    return f"runs/{job_id}/attempts/{attempt}/"


def claim(job_id: str, attempt: int) -> str:
    return f"runs/{job_id}/attempts/{attempt}/claim.json"


def checkpoint_prefix(job_id: str, attempt: int, kimg: float, recoveries: int = 0) -> str:
    """Thousandths of a kimg are single images, and a run that was taken back has recoveries behind
    it, so no two checkpoints of an attempt share a key."""
    return f"runs/{job_id}/attempts/{attempt}/checkpoints/{kimg:010.3f}{_again(recoveries)}/"


def sample_grid(job_id: str, attempt: int, kimg: float) -> str:
    return f"runs/{job_id}/attempts/{attempt}/samples/{kimg:010.3f}.webp"


def latents(job_id: str, attempt: int) -> str:
    """What an encode job found."""
    return f"runs/{job_id}/attempts/{attempt}/latents.safetensors"


def latents_grid(job_id: str, attempt: int) -> str:
    return f"runs/{job_id}/attempts/{attempt}/samples/latents.webp"


def replay_shard(job_id: str, attempt: int, round_: int, rank: int, recoveries: int = 0) -> str:
    name = f"{round_:08d}{_again(recoveries)}-r{rank}.safetensors"
    return f"runs/{job_id}/attempts/{attempt}/replay/{name}"


def replay_picture(job_id: str, attempt: int, round_: int, recoveries: int = 0) -> str:
    return f"runs/{job_id}/attempts/{attempt}/replay/{round_:08d}{_again(recoveries)}.webp"


def _again(recoveries: int) -> str:
    return f"-again{recoveries}" if recoveries else ""


def sampled_model(job_id: str) -> str:
    """The version that a sampling job draws from, looked up once (If-None-Match)."""
    return f"runs/{job_id}/model.json"


def sampled_chunks(job_id: str) -> str:
    return f"runs/{job_id}/chunks/"


def sampled_chunk(job_id: str, index: int) -> str:
    """A chunk of a sampling job: a zip of pictures. Not under an attempt: its content is a pure
    function of the spec, so any attempt may make it."""
    return f"runs/{job_id}/chunks/{index:05d}.zip"


def model_prefix(model: str) -> str:
    return f"models/{model}/"


def model_versions(model: str) -> str:
    return f"models/{model}/versions/"


def model_claim(model: str, version: int) -> str:
    """Who claimed the number (If-None-Match). It outlives the version: no number comes twice."""
    return f"models/{model}/versions/{version}/claim.json"


def model_publication(model: str, job_id: str, *, rescued: bool = False) -> str:
    """The card of the one version that a job published, or of the one that was rescued from it
    before a retry (If-None-Match)."""
    return f"models/{model}/jobs/{job_id}{'-rescued' if rescued else ''}.json"


def model_weights(model: str, version: int) -> str:
    return f"models/{model}/versions/{version}/model.safetensors"


def model_config(model: str, version: int) -> str:
    return f"models/{model}/versions/{version}/config.json"


def model_card(model: str, version: int) -> str:
    return f"models/{model}/versions/{version}/card.json"


def model_scores(model: str, version: int) -> str:
    return f"models/{model}/versions/{version}/scores/"


def model_score(model: str, version: int, job_id: str) -> str:
    """What one evaluation said of a version."""
    return f"models/{model}/versions/{version}/scores/{job_id}.json"


def model_aliases(model: str) -> str:
    return f"models/{model}/aliases/"


def model_alias(model: str, alias: str) -> str:
    return f"models/{model}/aliases/{alias}.json"
