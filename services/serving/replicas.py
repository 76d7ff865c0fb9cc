"""What runs in a replica: the parts of each deployment, put together from the settings.

Ray's name does not occur here, and all of it runs as well in a bare process.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from services.serving.batching import SHORT_S
from services.serving.bulk import BulkRoutes
from services.serving.metering import Meter, Metered
from services.serving.models import Models
from services.serving.routes import Routes
from services.serving.traces import traced
from shared import metrics, tracing
from shared.draining import at_work_for_life
from shared.logs import configure_logs
from shared.niceness import yield_to_requests
from shared.settings import Settings
from shared.storage.objects import ObjectStore

NUM_DRAWING_THREADS = 2
"""A slow model shall not hold up a fast one; each model uses one of them at a time."""


def interactive(settings: Settings) -> Metered:
    """The application of the interactive deployment."""
    executor = ThreadPoolExecutor(NUM_DRAWING_THREADS, thread_name_prefix="draw")
    models, _, meter = _parts("interactive", settings, executor)
    return Metered(traced(Routes(models, settings).app()), meter)


def bulk(settings: Settings) -> Metered:
    """The application of the bulk deployment."""
    executor = ThreadPoolExecutor(1, "draw", initializer=yield_to_requests)
    models, store, meter = _parts("bulk", settings, executor, short_s=0)  # all of it yields
    return Metered(traced(BulkRoutes(models, store, settings).app()), meter)


def _parts(
    deployment: str, settings: Settings, executor: ThreadPoolExecutor, short_s: float = SHORT_S
) -> tuple[Models, ObjectStore, Meter]:
    process = "serving" if deployment == "interactive" else deployment
    configure_logs(process)
    tracing.configure(process, settings)
    # One picture in 0.7 ms: more threads cost more than they bring, and roundings may differ.
    torch.set_num_threads(1)
    at_work_for_life(settings.drain_file)
    store = ObjectStore.from_settings(settings)
    meter = Meter(deployment)
    models = Models(
        store,
        executor=executor,
        max_bytes=settings.serve_cache_bytes,
        alias_ttl_s=settings.serve_alias_ttl_s,
        on_batch=meter.drawn,
        short_s=short_s,
    )
    meter.gauges = {
        metrics.SERVING_MODELS: models.num_loaded,
        metrics.SERVING_MODEL_BYTES: models.num_bytes,
    }
    return models, store, meter
