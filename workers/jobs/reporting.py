"""From the loop's reports to events, grids and checkpoints: all in the background.

The loop is never held up: metrics go to the heartbeat thread, grids and checkpoints to a thread
here. At most one checkpoint is under way; one that comes due meanwhile is left out, unless it is
the last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import structlog

from shared.errors import Unavailable
from shared.images import captioned, encode, grid
from shared.schemas.events import EventType
from shared.schemas.jobs import Progress
from shared.storage import keys
from workers.jobs.context import AttemptContext
from workers.training.checkpoints import CheckpointStore
from workers.training.loop import Checkpoint, Collapse, Grid, Metrics

log = structlog.get_logger()


Written = TypeVar("Written")


class RunReporter:
    """The `report` of one attempt's loop. Close it to wait for what is under way."""

    def __init__(
        self,
        context: AttemptContext,
        checkpoints: CheckpointStore,
        *,
        of: float,
        columns: int,
        captions: Sequence[str],
    ) -> None:
        """A run of `of` kimg, whose grids have so many columns; `captions` are of a grid's rows,
        and empty without text."""
        self._context = context
        self._checkpoints = checkpoints
        self._of = of
        self._columns = columns
        self._captions = captions
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._saving: Future[None] | None = None
        self._drawing: list[Future[None]] = []
        self.latest: dict[str, float] = {}
        """The newest means of the recipe, for the model's card."""

    def __call__(self, report: Metrics | Grid | Checkpoint | Collapse) -> None:
        match report:
            case Metrics():
                self._metrics(report)
            case Grid():
                self._drawing.append(self._thread.submit(self._grid, report))
            case Checkpoint():
                self._checkpoint(report)
            case Collapse():
                self._context.report(
                    EventType.COLLAPSE,
                    {
                        "kimg": round(report.kimg, 3),
                        "alarms": report.alarms,
                        "signs": _rounded(report.signs),
                        "action": report.action,
                    },
                )

    def close(self) -> None:
        """Wait until all is written. Raises what the background met, e.g. StaleToken."""
        self._thread.shutdown(wait=True)
        for future in [*self._drawing, *([self._saving] if self._saving else [])]:
            future.result()

    def _metrics(self, metrics: Metrics) -> None:
        self.latest = metrics.values
        self._context.report(
            EventType.METRIC,
            {
                "step": metrics.step,
                "kimg": round(metrics.kimg, 3),
                "of": self._of,
                "img_per_s": round(metrics.img_per_s, 1),
                "eta_s": round(metrics.eta_s, 1),
                **_rounded(metrics.values),
            },
        )
        self._context.progress(
            Progress(
                kimg=round(metrics.kimg, 3),
                of=self._of,
                img_per_s=round(metrics.img_per_s, 1),
                eta_s=round(metrics.eta_s, 1),
            )
        )

    def _grid(self, drawn: Grid) -> None:
        job_id, token = self._context.job.id, self._context.token
        key = keys.sample_grid(job_id, token, drawn.kimg)
        sheet = grid(drawn.images, columns=self._columns)
        words = {}
        if self._captions:
            sheet = captioned(sheet, self._captions)
            words = {"captions": self._captions}
        picture = encode(sheet, "webp")
        self._patiently(lambda: self._context.store.put(key, picture, content_type="image/webp"))
        path = key.removeprefix(keys.run_prefix(job_id))
        self._context.report(
            EventType.SAMPLE,
            {"kimg": round(drawn.kimg, 3), "key": key, "path": path, **words},
        )

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        if self._saving and self._saving.done():
            self._saving.result()
        if self._saving and not self._saving.done() and not checkpoint.final:
            log.warning("a checkpoint is still being written: this one is left out")
            return
        self._saving = self._thread.submit(self._save, checkpoint)

    def _save(self, checkpoint: Checkpoint) -> None:
        started = time.monotonic()
        manifest = self._patiently(lambda: self._checkpoints.save(checkpoint))
        self._context.report(
            EventType.CHECKPOINT,
            {
                "kimg": round(manifest.kimg, 3),
                "key": self._checkpoints.manifest_key(manifest),
                "bytes": manifest.networks.bytes + manifest.optimizers.bytes,
                "seconds": round(time.monotonic() - started, 3),
            }
            | ({} if manifest.score is None else {"frechet_distance": round(manifest.score, 4)}),
        )

    def _patiently(self, write: Callable[[], Written]) -> Written:
        """Object storage may be away for minutes; the training goes on meanwhile."""
        while True:
            try:
                return write()
            except Unavailable as error:
                log.warning("object storage is away; trying again", error=str(error))
                time.sleep(error.retry_after_s or 1.0)


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """Five digits; None for what is not finite, which JSON has no word for."""
    return {
        name: float(f"{value:.5g}") if math.isfinite(value) else None
        for name, value in values.items()
    }
