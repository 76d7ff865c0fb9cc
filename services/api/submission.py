"""The rules of a submit: what a spec means now, and the order in which it becomes a job.

First the spec is resolved (names looked up, versions pinned), then the job is written to the object
store, then the queue hears of it. A request that is repeated under its Idempotency-Key meets the
first try in the store and changes nothing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.api.deps import Parts
from services.api.problems import pointer
from shared import tracing
from shared.errors import ElmyrError, FieldError, IdempotencyClash, InvalidInput, NotFound
from shared.ids import JobId, job_id_for, new_job_id
from shared.inception import find_inception
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import Job, JobKind, JobState, JobSubmission
from shared.schemas.models import ModelCard
from shared.schemas.presets import PRESETS
from shared.schemas.recipes import GanConfig
from shared.schemas.specs import (
    SPECS,
    EncodeSpec,
    EvaluateSpec,
    IngestSpec,
    SampleSpec,
    Spec,
    TrainSpec,
)
from shared.storage import datasets, documents, keys
from shared.text import find_encoder

E = TypeVar("E", bound=ElmyrError)
ModelAndDataset = TypeVar("ModelAndDataset", EncodeSpec, EvaluateSpec)


class Accepted(BaseModel):
    """`runs/{job}/job.json`: the job as accepted. The same request gives the same bytes."""

    id: JobId
    owner: str
    body_sha256: str
    """Of the request as it came, before names were resolved: what a repeat is held against."""
    submission: JobSubmission


@dataclass(frozen=True, slots=True)
class Resolved:
    """A submission whose names are pinned, and the configuration that it leads to (if any yet)."""

    submission: JobSubmission
    config: GanConfig | None = None


def submit(parts: Parts, submission: JobSubmission, *, owner: str, key: str | None) -> Job:
    """Make a job of a request, or find the one that the same request under `key` made before.

    Raises InvalidInput and NotFound from `resolve`; IdempotencyClash when `key` belongs to another
    request; Unavailable when the queue is full or a store is down.
    """
    body_sha256 = _digest(submission)
    job_id = job_id_for(owner, key) if key else new_job_id()
    try:
        resolved = resolve(parts, submission).submission
    except ElmyrError:
        # A repeat gets its job although what it names may have gone by now.
        if key is None or (accepted := _recorded(parts, job_id)) is None:
            raise
    else:
        accepted = record(parts, job_id, resolved, owner=owner, body_sha256=body_sha256)
    if accepted.body_sha256 != body_sha256:
        raise IdempotencyClash(f"this Idempotency-Key made job {job_id} from another request")
    return enqueue(parts, accepted)


def record(
    parts: Parts, job_id: str, resolved: JobSubmission, *, owner: str, body_sha256: str
) -> Accepted:
    """Write the job to the store; returns what lies there, which a twin may have written."""
    accepted = Accepted(id=job_id, owner=owner, body_sha256=body_sha256, submission=resolved)
    try:
        parts.runs.record(job_id, documents.dump(accepted))
    except IdempotencyClash:
        return documents.read(parts.store, Accepted, keys.job(job_id))
    return accepted


def enqueue(parts: Parts, accepted: Accepted) -> Job:
    """Tell the queue of a recorded job; it may know it already."""
    job, _ = parts.queue.submit(
        accepted.id,
        accepted.submission,
        owner=accepted.owner,
        body_sha256=accepted.body_sha256,
        traceparent=tracing.traceparent(),
    )
    return job


def _recorded(parts: Parts, job_id: str) -> Accepted | None:
    try:
        return documents.read(parts.store, Accepted, keys.job(job_id))
    except NotFound:
        return None


def _digest(submission: JobSubmission) -> str:
    canonical = json.dumps(submission.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def resolve(parts: Parts, submission: JobSubmission) -> Resolved:
    """Check the spec against its kind and against what there is, and pin what its names mean now.

    Raises InvalidInput, with pointers into the body; NotFound for a dataset or model that is not
    there (and that no job of `after` will make).
    """
    if submission.kind is JobKind.INGEST:
        raise _at("/kind", InvalidInput, "an ingest is made by PUT /v1/datasets/{name}")
    spec = _spec(submission)
    after = [_earlier(parts, i, job_id) for i, job_id in enumerate(submission.after)]
    pinned, config = RESOLVERS[type(spec)](parts, spec, after)
    spec_dict = pinned.model_dump(mode="json")
    return Resolved(submission.model_copy(update={"spec": spec_dict}), config)


def _spec(submission: JobSubmission) -> Spec:
    try:
        return SPECS[submission.kind].model_validate(submission.spec)
    except ValidationError as error:
        raise InvalidInput(
            f"this is not the spec of a job of kind {submission.kind}",
            errors=[
                FieldError(pointer=pointer("spec", *problem["loc"]), detail=problem["msg"])
                for problem in error.errors()
            ],
        ) from error


def _earlier(parts: Parts, index: int, job_id: str) -> Job:
    try:
        return parts.queue.get(job_id)
    except NotFound as error:
        raise _at(pointer("after", index), InvalidInput, f"there is no job {job_id}") from error


def _train(
    parts: Parts, spec: TrainSpec, after: Sequence[Job]
) -> tuple[TrainSpec, GanConfig | None]:
    if spec.preset not in PRESETS:
        there = ", ".join(PRESETS)
        raise _at("/spec/preset", InvalidInput, f"no preset {spec.preset}; there are: {there}")
    if _dataset_will_come(after, spec):
        return spec, None  # its size is not known yet: the attempt resolves the preset
    manifest = _manifest(parts, spec)
    config = spec.resolved(manifest)
    if config.generator.text_dim:
        find_encoder(parts.settings.text_encoder, pointer="/spec/preset")
    return spec.model_copy(update={"dataset_version": manifest.version}), config


def _sample(parts: Parts, spec: SampleSpec, after: Sequence[Job]) -> tuple[SampleSpec, None]:
    if _model_will_come(after, spec.model):
        return spec, None
    card = _card(parts, spec.model)
    classes = card.class_names
    known = (
        spec.label is None
        or spec.label in classes
        or (isinstance(spec.label, int) and 0 <= spec.label < len(classes))
    )
    if not known:
        there = ", ".join(classes) or "none: it knows no classes"
        detail = f"{spec.label!r} is no class of {_pinned(card)}; there are: {there}"
        raise _at("/spec/label", InvalidInput, detail)
    if spec.prompt is not None:
        if not card.takes_prompt:
            detail = f"{_pinned(card)} takes no prompt: it was not trained on captions"
            raise _at("/spec/prompt", InvalidInput, detail)
        find_encoder(parts.settings.text_encoder, pointer="/spec/prompt")
    return spec.model_copy(update={"model": _pinned(card)}), None


def _model_and_dataset(
    parts: Parts, spec: ModelAndDataset, after: Sequence[Job]
) -> tuple[ModelAndDataset, None]:
    pinned = {}
    if not _dataset_will_come(after, spec):
        pinned["dataset_version"] = _manifest(parts, spec).version
    if not _model_will_come(after, spec.model):
        pinned["model"] = _pinned(_card(parts, spec.model))
    return spec.model_copy(update=pinned), None


def _evaluate(parts: Parts, spec: EvaluateSpec, after: Sequence[Job]) -> tuple[EvaluateSpec, None]:
    if spec.features == "inception":
        find_inception(parts.settings.inception_weights, pointer="/spec/features")
    return _model_and_dataset(parts, spec, after)


def _manifest(parts: Parts, spec: TrainSpec | EncodeSpec | EvaluateSpec) -> DatasetManifest:
    try:
        if spec.dataset_version is None:
            return parts.manifest_of(spec.dataset, parts.latest_of(spec.dataset))
        return datasets.manifest(parts.store, spec.dataset, spec.dataset_version)
    except NotFound as error:
        hint = None
        if spec.dataset_version is None:
            hint = _made_by(parts, JobKind.INGEST, "dataset", spec.dataset)
        if hint is None:
            names = [found.name for found in datasets.list_datasets(parts.store)]
            hint = f"there are: {', '.join(names) or 'none'}"
        raise _at("/spec/dataset", NotFound, f"{error.detail}; {hint}") from error


def _card(parts: Parts, ref: str) -> ModelCard:
    try:
        return parts.card_of(*parts.version_of(ref))
    except NotFound as error:
        hint = _made_by(parts, JobKind.TRAIN, "model", ref)
        detail = f"{error.detail}; {hint}" if hint else error.detail
        raise _at("/spec/model", NotFound, detail) from error


def _made_by(parts: Parts, kind: JobKind, field: str, name: str) -> str | None:
    """Which job is to make the dataset or model of this name, and what to do about it; None when
    none is."""
    for job in parts.unfinished(kind):
        if job.spec[field] == name:
            return f"job {job.id} is to make it: wait for it, or name it in `after`"
    return None


def _pinned(card: ModelCard) -> str:
    return f"{card.model}@{card.version}"


RESOLVERS: dict[
    type[Spec], Callable[[Parts, Any, Sequence[Job]], tuple[Spec, GanConfig | None]]
] = {
    TrainSpec: _train,
    SampleSpec: _sample,
    EncodeSpec: _model_and_dataset,
    EvaluateSpec: _evaluate,
}


def _dataset_will_come(after: Sequence[Job], spec: TrainSpec | EncodeSpec | EvaluateSpec) -> bool:
    return spec.dataset_version is None and _will_come(
        after, JobKind.INGEST, "dataset", spec.dataset
    )


def _model_will_come(after: Sequence[Job], ref: str) -> bool:
    return _will_come(after, JobKind.TRAIN, "model", ref.partition("@")[0])


def _will_come(after: Sequence[Job], kind: JobKind, field: str, name: str) -> bool:
    """Whether an unfinished job of `after` makes the thing of this name."""
    return any(
        job.kind is kind and job.spec[field] == name and job.state is not JobState.SUCCEEDED
        for job in after
    )


def _at(place: str, kind: type[E], detail: str) -> E:
    """An error that points at one place of the body."""
    return kind(detail, errors=[FieldError(pointer=place, detail=detail)])


def submit_ingest(parts: Parts, job_id: str, spec: IngestSpec, *, owner: str) -> Job:
    """Make the job that ingests an upload; the upload lies in the store already."""
    submission = JobSubmission(kind=JobKind.INGEST, spec=spec.model_dump(mode="json"))
    return enqueue(
        parts,
        record(parts, job_id, submission, owner=owner, body_sha256=_digest(submission)),
    )
