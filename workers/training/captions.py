"""The captions of a dataset as vectors: read once, at the start of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import InvalidInput
from shared.networks.text import as_condition
from shared.text import MAX_EXAMPLES, lines

Embed = Callable[[Sequence[str]], Tensor]
"""Sentences to unit vectors float32 [n, dim]."""


@dataclass(frozen=True, slots=True)
class Captions:
    """`sentences` [M], each once, in order of their first picture; `vectors` float32 [M, dim], as
    networks are given them. Picture i has the sentences `rows[starts[i] : starts[i + 1]]`: rows
    int64 [R], starts int64 [N + 1]. `encoder_sha256` is of whom the vectors come from."""

    sentences: list[str]
    vectors: Tensor
    rows: Tensor
    starts: Tensor
    encoder_sha256: str

    @classmethod
    def of(cls, texts: Sequence[str | None], embed: Embed, encoder_sha256: str) -> Captions:
        """From the caption of each picture; several lines of it are several captions.

        Raises:
            InvalidInput: there is only one: no picture could be told from another by it.
        """
        numbers: dict[str, int] = {}
        rows, starts = [], [0]
        for text in texts:
            rows += [numbers.setdefault(line, len(numbers)) for line in lines(text)]
            starts.append(len(rows))
        if len(numbers) < 2:
            raise InvalidInput("text needs a dataset with at least two different captions")
        return cls(
            sentences=list(numbers),
            vectors=as_condition(embed(list(numbers))),
            rows=torch.tensor(rows),
            starts=torch.tensor(starts),
            encoder_sha256=encoder_sha256,
        )

    @property
    def examples(self) -> list[str]:
        """At most MAX_EXAMPLES of the sentences, evenly spread."""
        return [self.sentences[row] for row in self._example_rows()]

    def example_vectors(self) -> Tensor:
        """Vectors of the examples, over and over: float32 [MAX_EXAMPLES, dim]."""
        rows = self._example_rows()
        return self.vectors[[rows[i % len(rows)] for i in range(MAX_EXAMPLES)]]

    def spread(self, n: int) -> list[int]:
        """Numbers of n of the examples, evenly spread; some twice, where there are fewer."""
        return [i * len(self._example_rows()) // n for i in range(n)]

    def _example_rows(self) -> list[int]:
        n = min(len(self.sentences), MAX_EXAMPLES)
        return [i * len(self.sentences) // n for i in range(n)]
