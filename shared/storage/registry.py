"""The model registry: versions that never change, and aliases that move.

A version's number is claimed by If-None-Match and never given twice, even when the version is
deleted. A job publishes one version per model: the commit is its publication object, written once,
which holds the card; `card.json`, written from it, makes the version visible. How weights become a
network is not known here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress

from shared.clock import now
from shared.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from shared.ids import NAME_PATTERN
from shared.schemas.models import Alias, AliasMove, ModelCard, ModelSummary, SnapshotConfig
from shared.schemas.scores import Evaluation
from shared.storage import documents, keys
from shared.storage.objects import ObjectStore

LATEST = "latest"
MAX_HISTORY = 100
CARD = re.compile(r"/(\d+)/card\.json$")


class Registry:
    """The models of an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # Publishing

    def publish(self, card: ModelCard, weights: bytes, config: SnapshotConfig) -> ModelCard:
        """Publish a snapshot as the model's next version and move `latest` to it.

        `card` comes with version 0; number, sizes and digests are filled in here. A job that has
        published under this model before gets that card back, and nothing is written twice.
        """
        publication = _publication(card)
        try:
            published = documents.read(self._store, ModelCard, publication)
        except NotFound:
            published = self._write(card, weights, documents.dump(config))
        # From here on it is published; a crash is mended by the next call.
        self._store.put_if_absent(
            keys.model_card(published.model, published.version), documents.dump(published)
        )
        self._move(
            published.model, LATEST, published.version, by=published.job_id, only_forward=True
        )
        return published

    def _write(self, card: ModelCard, weights: bytes, config: bytes) -> ModelCard:
        """Claim a number, write the snapshot below it, commit; returns the card that holds."""
        version = self._claim(card)
        card = card.model_copy(
            update={
                "version": version,
                "weights_sha256": hashlib.sha256(weights).hexdigest(),
                "weights_bytes": len(weights),
                "config_sha256": hashlib.sha256(config).hexdigest(),
            }
        )
        self._store.put(keys.model_weights(card.model, version), weights)
        self._store.put(keys.model_config(card.model, version), config)
        publication = _publication(card)
        try:
            self._store.put_if_absent(publication, documents.dump(card))
        except PreconditionFailed:  # another attempt of this job was faster: its version holds
            return documents.read(self._store, ModelCard, publication)
        return card

    def _claim(self, card: ModelCard) -> int:
        taken = self._store.folders(keys.model_versions(card.model))
        # The newest may be our own claim, of a publish that failed half-way.
        version = max((int(number) for number in taken), default=1)
        claim = json.dumps({"job_id": card.job_id, "attempt": card.attempt}).encode()
        while True:
            try:
                self._store.put_if_absent(keys.model_claim(card.model, version), claim)
            except PreconditionFailed:
                version += 1
            else:
                return version

    # Reading

    def models(self) -> list[ModelSummary]:
        """Every model that has a version, by name."""
        summaries = (self._summary(name) for name in self._store.folders(keys.MODELS))
        return sorted((s for s in summaries if s.versions), key=lambda summary: summary.name)

    def model(self, name: str) -> ModelSummary:
        """One model. Raises NotFound, which says what models there are."""
        summary = self._summary(name)
        if not summary.versions:
            there = ", ".join(model.name for model in self.models()) or "none"
            raise NotFound(f"there is no model {name}; there are: {there}")
        return summary

    def card(self, name: str, version: int) -> ModelCard:
        """Where a version comes from. Raises NotFound, which says what versions there are."""
        try:
            return documents.read(self._store, ModelCard, keys.model_card(name, version))
        except NotFound as error:
            there = ", ".join(str(number) for number in self.model(name).versions)
            raise NotFound(f"model {name} has no version {version}; there are: {there}") from error

    def resolve(self, ref: str) -> tuple[str, int]:
        """The model and version that `name`, `name@version` or `name@alias` means now.

        Raises InvalidInput for anything else; NotFound, which says what there is.
        """
        parts = ref.split("@")
        if len(parts) > 2 or not all(re.fullmatch(NAME_PATTERN, part) for part in parts):
            raise InvalidInput(f"{ref!r} is not a model: write name, name@version or name@alias")
        name, target = (*parts, LATEST)[:2]
        if target.isdecimal():
            return name, self.card(name, int(target)).version
        return name, self.alias(name, target).version

    def snapshot(self, name: str, version: int) -> tuple[bytes, SnapshotConfig]:
        """Weights (safetensors) and configuration, both held against the card.

        Raises NotFound; CorruptObject when either differs from what was published.
        """
        card = self.card(name, version)
        weights = self._store.get_verified(
            keys.model_weights(name, version),
            num_bytes=card.weights_bytes,
            sha256=card.weights_sha256,
        )
        key = keys.model_config(name, version)
        config = self._store.get_verified(key, sha256=card.config_sha256)
        return weights, documents.parse(SnapshotConfig, config, key)

    def _summary(self, name: str) -> ModelSummary:
        prefix = keys.model_versions(name)
        found = (CARD.search(info.key) for info in self._store.list(prefix))
        versions = sorted(int(match[1]) for match in found if match)
        aliases = {alias.alias: alias.version for alias in self._aliases(name)} if versions else {}
        latest = aliases.get(LATEST)
        return ModelSummary(
            name=name,
            versions=versions,
            aliases=aliases,
            latest=self.card(name, latest) if latest in versions else None,
        )

    def _aliases(self, name: str) -> Iterator[Alias]:
        for info in self._store.list(keys.model_aliases(name)):
            yield documents.read(self._store, Alias, info.key)

    # Aliases

    def alias(self, name: str, alias: str) -> Alias:
        """An alias with its history. Raises NotFound, which says what aliases there are."""
        try:
            return documents.read(self._store, Alias, keys.model_alias(name, alias))
        except NotFound as error:
            there = ", ".join(self.model(name).aliases) or "none"
            raise NotFound(f"model {name} has no alias {alias}; there are: {there}") from error

    def move_alias(self, name: str, alias: str, version: int, *, by: str) -> Alias:
        """Point an alias at a version, forward or back; the last 100 moves are kept.

        Raises NotFound: no such version. InvalidInput: the name could be taken for a version.
        """
        if alias.isdecimal() or not re.fullmatch(NAME_PATTERN, alias):
            raise InvalidInput(f"{alias!r} cannot be an alias: take a name that is not a number")
        self.card(name, version)
        return self._move(name, alias, version, by=by)

    def _move(
        self, name: str, alias: str, version: int, *, by: str, only_forward: bool = False
    ) -> Alias:
        key = keys.model_alias(name, alias)

        def move(present: bytes | None) -> bytes:
            history = []
            if present:
                current = documents.parse(Alias, present, key)
                if current.version == version or (only_forward and current.version > version):
                    return present
                history = current.history
            history = [*history, AliasMove(version=version, by=by, at=now())][-MAX_HISTORY:]
            return documents.dump(Alias(alias=alias, version=version, history=history))

        return documents.parse(Alias, self._store.update(key, move), key)

    # Deleting

    def delete_model(self, name: str) -> None:
        """Delete every alias and version of a model; its numbers stay taken.

        What is published meanwhile stays. Raises NotFound, which says what models there are.
        """
        model = self.model(name)
        for alias in model.aliases:
            self._store.delete(keys.model_alias(name, alias))
        for version in model.versions:
            self.delete_version(name, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias with its history; what it names stays.

        Raises NotFound; Conflict for `latest`, which every model has.
        """
        if alias == LATEST:
            raise Conflict(f"every model has an alias {LATEST}: delete the model, or move it")
        self.alias(name, alias)
        self._store.delete(keys.model_alias(name, alias))

    def delete_version(self, name: str, version: int) -> None:
        """Delete a version; its number stays taken. Its job may then publish again, as a new one.

        Raises NotFound; Conflict while an alias points at it.
        """
        card = self.card(name, version)
        self._check_unnamed(name, version)
        self._store.delete(keys.model_card(name, version))
        try:
            self._check_unnamed(name, version)
        except Conflict:  # an alias moved here in between: the version stays
            self._store.put(keys.model_card(name, version), documents.dump(card))
            raise
        # The claim goes to nobody, so that not even the same attempt gets the number again.
        self._store.put(keys.model_claim(name, version), b"{}")
        self._store.delete(_publication(card))
        self._store.delete(keys.model_weights(name, version))
        self._store.delete(keys.model_config(name, version))
        for info in list(self._store.list(keys.model_scores(name, version))):
            self._store.delete(info.key)

    # Scores

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Keep what an evaluation said of a version; again for the same job changes nothing."""
        key = keys.model_score(evaluation.model, evaluation.version, evaluation.job_id)
        with suppress(PreconditionFailed):
            self._store.put_if_absent(key, documents.dump(evaluation))

    def evaluations(self, name: str, version: int) -> list[Evaluation]:
        """All that was said of a version, newest first. Raises NotFound: no such version."""
        self.card(name, version)
        found = [
            documents.read(self._store, Evaluation, info.key)
            for info in self._store.list(keys.model_scores(name, version))
        ]
        return sorted(found, key=lambda evaluation: evaluation.created_at, reverse=True)

    def _check_unnamed(self, name: str, version: int) -> None:
        names = [alias.alias for alias in self._aliases(name) if alias.version == version]
        if names:
            raise Conflict(
                f"version {version} of model {name} is {', '.join(names)}: move the alias first"
            )


def _publication(card: ModelCard) -> str:
    return keys.model_publication(card.model, card.job_id, rescued=card.rescued)
