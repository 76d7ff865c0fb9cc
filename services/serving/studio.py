"""What every door of a replica shares: room, models, prompts and seeds. HTTP is not known here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from torch import Tensor

from services.serving.batching import WaitingRoom
from services.serving.models import LoadedModel, Models
from services.serving.prompts import Prompts
from services.serving.requests import MAX_SEED, Label
from shared.errors import FieldError, InvalidInput
from shared.settings import Settings


class Studio:
    """Where a replica draws. All methods belong to one event loop."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self._max_images = settings.serve_max_images
        self._prompts = Prompts(settings.text_encoder)
        self._room = WaitingRoom(settings.serve_max_waiting_images)
        # No secrets; asking the system for each would let go of the interpreter's lock.
        self._seeds = Random()  # noqa: S311

    def seed(self, asked: int | None) -> int:
        """The seed that was asked for, else a new one."""
        return self._seeds.randrange(MAX_SEED) if asked is None else asked

    def check_num(self, n: int, *, pointer: str) -> None:
        """Raises InvalidInput for more pictures than come in one answer; `pointer` says where in
        the request the number stands."""
        if n > self._max_images:
            raise InvalidInput(
                f"n is {n}, and at most {self._max_images} pictures come in one answer: for more, "
                "submit a job of kind sample",
                errors=[FieldError(pointer=pointer, detail=f"at most {self._max_images}")],
            )

    @asynccontextmanager
    async def place(self, ref: str, num_images: int) -> AsyncIterator[LoadedModel]:
        """The model that a reference means, with room for so many pictures of it.

        Raises TooMany when there is no room, and as `Models.use`.
        """
        with self._room.seat(num_images):
            async with self.models.use(ref) as model:
                yield model

    async def condition(
        self, model: LoadedModel, label: Label | None, prompt: str | None, *, root: str
    ) -> tuple[int | None, Tensor | None]:
        """What the model is told: the number of the class, or the prompt's float32 [text_dim].

        Raises as `LoadedModel.label_number` and `Prompts.condition`; label and prompt stand below
        `root` in the request.
        """
        number = model.label_number(label, pointer=f"{root}/label")
        text = await self._prompts.condition(prompt, model.config, pointer=f"{root}/prompt")
        return number, text
