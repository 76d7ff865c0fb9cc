"""What a checkpoint costs the loop, in steps.

    .venv/bin/python -m tests.benchmarks.bench_checkpoint

The same run with and without checkpoints, in turns, against a real S3 on this machine. The copy is
made in the loop, the writing in the background; both show in the difference of the two times.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import SecretStr

from services.local.servers import start_s3
from shared.ids import new_job_id
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.runs import RunStore
from tests.benchmarks.bench_loop import config_of, pictures
from tests.benchmarks.table import print_table
from workers.recipes.gan import Gan
from workers.training.checkpoints import CheckpointStore
from workers.training.loop import Checkpoint, Grid, Metrics, deterministic_cpu, train
from workers.training.ranks import Ranks

TURNS, STEPS, EVERY = 5, 120, 40
"""Steps a turn, and steps between checkpoints: at the presets' 25 kimg it would be 390."""


def run_s(store: ObjectStore, preset: str, *, checkpoints: bool) -> float:
    """Seconds of STEPS steps; with checkpoints, until the last of them lies in the store."""
    images = config_of(preset, {}).images_per_round / 1000
    config = config_of(
        preset,
        {
            "kimg": (STEPS + 1) * images,
            "checkpoint_every_kimg": EVERY * images if checkpoints else 1e6,
            "grid_every_kimg": 1e6,
        },
    )
    recipe = Gan(config, pictures(), Ranks())
    job_id = new_job_id()
    RunStore(store).take_head(job_id, 1)
    saver = CheckpointStore(store, job_id, 1)
    saving: list[Future[object]] = []
    with ThreadPoolExecutor(1) as thread:

        def report(report: Metrics | Grid | Checkpoint) -> None:
            if checkpoints and isinstance(report, Checkpoint) and not report.final:
                saving.append(thread.submit(saver.save, report))

        started = time.perf_counter()
        train(recipe, config, Ranks(), start_step=1, should_stop=lambda: False, report=report)
        for future in saving:
            future.result()
        return time.perf_counter() - started


def main() -> None:
    """Print a checkpoint's cost beside a step's."""
    deterministic_cpu()
    rows = []
    with tempfile.TemporaryDirectory() as folder, start_s3(Path(folder)) as server:
        store = ObjectStore.from_settings(
            Settings(
                s3_endpoint=server.endpoint,
                s3_access_key=SecretStr(server.access_key),
                s3_secret_key=SecretStr(server.secret_key),
                s3_bucket="bench",
            )
        )
        store.ensure_bucket()
        for preset in ("lecture", "modern-conditional"):
            run_s(store, preset, checkpoints=True)
            pairs = [
                (
                    run_s(store, preset, checkpoints=True),
                    run_s(store, preset, checkpoints=False),
                )
                for _ in range(TURNS)
            ]
            step_s = statistics.median(without for _, without in pairs) / STEPS
            stall_s = statistics.median(a - b for a, b in pairs) / (STEPS // EVERY)
            rows.append(
                [preset, f"{step_s * 1e3:.1f}", f"{stall_s * 1e3:.1f}", f"{stall_s / step_s:.2f}"]
            )
    print_table(["preset", "step ms", "checkpoint ms", "checkpoint/step"], rows)


if __name__ == "__main__":
    main()
