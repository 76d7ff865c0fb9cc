"""A bare Ray Train job of the same networks: prints when its first step is done. For bench_start.

python -m tests.benchmarks.bare_trainer WORKERS
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def on_rank(config: dict[str, Any]) -> None:
    """One step of D and G, as short as it can be written."""
    from shared.networks.catalog import build_discriminator, build_generator
    from shared.schemas.presets import modern

    preset = modern(size=32, channels=1, num_classes=0)
    G, D = build_generator(preset.generator), build_discriminator(preset.discriminator)
    fake = G(torch.randn(32, 64))
    loss = D(fake).mean()
    loss.backward()
    torch.optim.Adam(D.parameters()).step()
    torch.optim.Adam(G.parameters()).step()
    Path(config["mark"]).write_text(str(time.time()))


def main() -> None:
    """Run the trainer and print the time of its first step."""
    workers = int(sys.argv[1])
    folder = tempfile.mkdtemp()
    mark = Path(folder) / "first-step"
    TorchTrainer(
        on_rank,
        train_loop_config={"mark": str(mark)},
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(storage_path=folder),
    ).fit()
    sys.stdout.write(f"first-step {mark.read_text()}\n")


if __name__ == "__main__":
    main()
