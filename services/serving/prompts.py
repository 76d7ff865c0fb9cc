"""Prompts as vectors: what a model with text is told.

The encoder is read once in a replica, when the first prompt comes, and the newest vectors are kept:
a prompt is mostly asked for again. A prompt goes through the encoder alone, so the same one gives
the same bits. Encoding is done in a thread of its own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path

from torch import Tensor

from shared.errors import Conflict, FieldError, InvalidInput
from shared.networks.text import SentenceEncoder, as_condition
from shared.schemas.models import SnapshotConfig
from shared.text import find_encoder

MAX_KEPT = 4096
"""Vectors of 1.5 kB."""


class Prompts:
    """The prompts of one replica."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: where the setting says that the encoder lies."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._vector = lru_cache(MAX_KEPT)(self._embedded)

    async def condition(
        self, prompt: str | None, config: SnapshotConfig, *, pointer: str
    ) -> Tensor | None:
        """What a model is told of a prompt: float32 [text_dim]; None stays None.

        Raises:
            InvalidInput: the model takes no prompt, or there is no encoder here; `pointer` says
                where in the request the prompt stands.
            Conflict: the model was trained with another encoder than the one here.
        """
        if prompt is None:
            return None
        if config.text_encoder_sha256 is None:
            detail = "the model takes no prompt: it was not trained on captions"
            raise InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._checked, prompt, config.text_encoder_sha256, pointer
        )

    def _checked(self, prompt: str, sha256: str, pointer: str) -> Tensor:
        find_encoder(self._folder, pointer=pointer)
        if self._encoder.sha256 != sha256:
            raise Conflict(
                f"the model knows the vectors of encoder {sha256[:12]}, and here is "
                f"{self._encoder.sha256[:12]}: name the right one by ELMYR_TEXT_ENCODER"
            )
        return self._vector(prompt)

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        return SentenceEncoder(find_encoder(self._folder))

    def _embedded(self, prompt: str) -> Tensor:
        return as_condition(self._encoder.embed([prompt]))[0]
