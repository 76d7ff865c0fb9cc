"""How well pictures of `text-to-image` fit captions that no training has seen.

    .venv/bin/python -m tests.benchmarks.bench_text [SIZE [KIMG [SEED [KEY=VALUE ...]]]]

Emoji at 64 px, one thread; KEY=VALUE as after `--set`. About one name in ten is held out (`elmyr
datasets fetch --split`). R-precision: how often a picture's own caption is the nearest of 100,
which by chance is 1 %. The judge has learned from all real pictures, held-out ones too: it has to
know what they look like. It is another network than the run's guide, which never sees those.
`cut`: the same of z with a truncation of 0.5.
`swapped`: pictures of held-out captions, judged by another's. `moved`: how far another caption
moves a picture of the same z, over how far another z moves one of the same caption. `copied`: what
the nearest real picture of the training reaches on held-out names.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from services.cli.train import overrides
from services.local import sources
from shared.decoding import decode
from shared.networks.generators import Generator
from shared.networks.sampling import latents, to_uint8
from shared.networks.text import SentenceEncoder
from shared.schemas.presets import resolve_preset
from shared.settings import settings
from shared.text import find_encoder
from tests.benchmarks.table import print_table
from tests.benchmarks.text_judge import Judge, r_precision, train_judge
from workers.recipes.gan import Gan
from workers.training.captions import Captions
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu
from workers.training.ranks import Ranks

SIZE, KIMG, SEED = 64, 100, 0
EVERY_KIMG = 20.0
JUDGE_STEPS = 1000
NUM_SEEN = 200
"""Captions of the training that are judged, too."""
PICTURES = 4
"""Of each caption."""


def main() -> None:
    """Train, judge every 20 kimg, print a line each time; the first is of real pictures."""
    deterministic_cpu()
    numbers, changes = sys.argv[1:4], sys.argv[4:]
    size, kimg, seed = (*map(int, numbers), *(SIZE, KIMG, SEED)[len(numbers) :])
    encoder = SentenceEncoder(find_encoder(settings().text_encoder))
    seen, held_out = (emoji(encoder, split, size) for split in ("train", "test"))
    judge = train_judge(joined(seen, held_out), JUDGE_STEPS, seed=0)
    rows = [
        ["real", "", *(percent(real(judge, part)) for part in (seen, held_out)), "", "", ""],
        ["copied", "", "", percent(copied(judge, seen, held_out)), "", "", ""],
    ]
    sys.stderr.write(f"{rows}\n")

    config = resolve_preset(
        "text-to-image",
        size=size,
        channels=3,
        num_classes=0,
        has_captions=True,
        overrides=overrides([f"seed={seed}", f"kimg={kimg}", *changes]),
    )
    recipe = Gan(config, seen, Ranks())
    steps, every = (round(n * 1000 / recipe.images_per_step) for n in (kimg, EVERY_KIMG))
    began = time.perf_counter()
    for _ in recipe.bootstrap():
        pass
    seconds = time.perf_counter() - began
    for step in range(steps):
        began = time.perf_counter()
        recipe.step(step, step / steps)
        seconds += time.perf_counter() - began
        if (step + 1) % every == 0 or step + 1 == steps:
            done = (step + 1) * recipe.images_per_step / 1000
            figures = judged(judge, recipe.G_ema, seen, held_out)
            rows.append([f"{done:.0f}", f"{seconds:.0f}", *figures])
            sys.stderr.write(f"{rows[-1]}\n")
    print_table(["kimg", "s", "seen %", "held out %", "cut %", "swapped %", "moved"], rows)


def emoji(encoder: SentenceEncoder, split: str, size: int) -> TrainingData:
    """Pictures of a split with their captions as vectors."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = sources.fetch("emoji", Path(scratch), split=split).path / split
        entries = [json.loads(line) for line in (folder / "metadata.jsonl").open()]
        pictures = [
            decode((folder / entry["file_name"]).read_bytes(), size=size, channels=3, fit="crop")
            for entry in entries
        ]
    texts = [entry["text"] for entry in entries]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return TrainingData(images, None, texts, Captions.of(texts, encoder.embed, encoder.sha256))


def joined(one: TrainingData, other: TrainingData) -> TrainingData:
    """Both sets; they share no caption."""
    a, b = captions(one), captions(other)
    return TrainingData(
        torch.cat([one.images, other.images]),
        None,
        None,
        replace(
            a,
            sentences=a.sentences + b.sentences,
            vectors=torch.cat([a.vectors, b.vectors]),
            rows=torch.cat([a.rows, b.rows + len(a.sentences)]),
            starts=torch.cat([a.starts, b.starts[1:] + a.starts[-1]]),
        ),
    )


def captions(data: TrainingData) -> Captions:
    assert data.captions is not None
    return data.captions


def real(judge: Judge, data: TrainingData) -> float:
    """R-precision of real pictures."""
    return r_precision(judge, data.images, captions(data).rows, captions(data).vectors, seed=0)


def copied(judge: Judge, seen: TrainingData, held_out: TrainingData) -> float:
    """R-precision on held-out captions of the training's own picture whose caption is nearest: what
    one reaches who only remembers."""
    likeness = captions(held_out).vectors @ captions(seen).vectors.T
    _, pictures = captions(seen).rows[None].eq(likeness.argmax(1)[:, None]).max(1)
    images, texts = seen.images[pictures], captions(held_out).vectors
    return r_precision(judge, images, torch.arange(len(texts)), texts, seed=0)


def judged(
    judge: Judge, generator: Generator, seen: TrainingData, held_out: TrainingData
) -> list[str]:
    """R-precision on seen captions, on held-out ones, of truncated z and on swapped ones, and what
    moves."""
    some = captions(seen).vectors[:: len(captions(seen).vectors) // NUM_SEEN]
    unseen = captions(held_out).vectors
    rows = torch.arange(len(unseen)).repeat(PICTURES)
    pictures = drawn(generator, unseen[rows])
    cut = drawn(generator, unseen[rows], truncation=0.5)
    swapped = drawn(generator, unseen[(rows + len(unseen) // 2) % len(unseen)])
    other_z = drawn(generator, unseen[rows], seed=1)
    some_rows = torch.arange(len(some)).repeat(PICTURES)
    return [
        percent(r_precision(judge, drawn(generator, some[some_rows]), some_rows, some, seed=0)),
        percent(r_precision(judge, pictures, rows, unseen, seed=0)),
        percent(r_precision(judge, cut, rows, unseen, seed=0)),
        percent(r_precision(judge, swapped, rows, unseen, seed=0)),
        f"{distance(pictures, swapped) / distance(pictures, other_z):.2f}",
    ]


@torch.inference_mode()
def drawn(generator: Generator, c: Tensor, *, seed: int = 0, truncation: float = 1.0) -> Tensor:
    """A picture of each of c [n, dim], each from another z: uint8 [n, 3, H, W]."""
    z = latents(seed, range(len(c)), generator.config.z_dim, truncation)
    parts = [generator(*pair) for pair in zip(z.split(250), c.split(250), strict=True)]
    return torch.from_numpy(to_uint8(torch.cat(parts))).permute(0, 3, 1, 2)


def distance(one: Tensor, other: Tensor) -> float:
    """Mean difference of pixels."""
    return (one.float() - other.float()).abs().mean().item()


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
