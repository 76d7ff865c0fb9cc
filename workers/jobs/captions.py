"""A dataset's captions for a run with text: as vectors for networks, as words for reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import structlog

from shared.errors import InvalidInput
from shared.networks.text import SentenceEncoder
from shared.text import find_encoder
from workers.recipes.gan import GRID_ROWS
from workers.training.captions import Captions
from workers.training.data import TrainingData

log = structlog.get_logger()


def with_captions(pictures: TrainingData, text_dim: int, folder: Path | None) -> TrainingData:
    """The pictures with their captions as vectors, by the encoder in `folder` (None: that of the
    package), which is not kept.

    Raises:
        InvalidInput: there is no sentence encoder, its vectors have another size, or all pictures
            have one caption.
    """
    assert pictures.texts is not None, "no recipe with text is resolved for such a dataset"
    encoder = SentenceEncoder(find_encoder(folder))
    if encoder.dim != text_dim:
        raise InvalidInput(f"the encoder's vectors have {encoder.dim} numbers, text_dim {text_dim}")
    captions = Captions.of(pictures.texts, encoder.embed, encoder.sha256)
    log.info("captions read", sentences=len(captions.sentences), encoder=encoder.sha256)
    return replace(pictures, captions=captions)


def grid_captions(captions: Captions | None) -> list[str]:
    """What each row of a grid shows; none without text."""
    if captions is None:
        return []
    return [captions.examples[number] for number in captions.spread(GRID_ROWS)]
