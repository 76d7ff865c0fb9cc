"""What runs in a replica: the parts of each deployment, put together from the settings.

Ray's name does not occur here, and all of it runs as well in a bare process.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from starlette.applications import Starlette

from services.serving.bulk import BulkRoutes
from services.serving.models import Models
from services.serving.routes import Routes
from shared.draining import at_work_for_life
from shared.logs import configure_logs
from shared.niceness import yield_to_requests
from shared.settings import Settings
from shared.storage.objects import ObjectStore

NUM_DRAWING_THREADS = 2
"""A slow model shall not hold up a fast one; each model uses one of them at a time."""


def interactive(settings: Settings) -> Starlette:
    """The application of the interactive deployment."""
    executor = ThreadPoolExecutor(NUM_DRAWING_THREADS, thread_name_prefix="draw")
    models, _ = _parts("serving", settings, executor)
    return Routes(models, settings).app()


def bulk(settings: Settings) -> Starlette:
    """The application of the bulk deployment."""
    executor = ThreadPoolExecutor(1, "draw", initializer=yield_to_requests)
    models, store = _parts("bulk", settings, executor)
    return BulkRoutes(models, store, settings).app()


def _parts(
    process: str, settings: Settings, executor: ThreadPoolExecutor
) -> tuple[Models, ObjectStore]:
    configure_logs(process)
    # One picture in 0.7 ms: more threads cost more than they bring, and roundings may differ.
    torch.set_num_threads(1)
    at_work_for_life(settings.drain_file)
    store = ObjectStore.from_settings(settings)
    models = Models(
        store,
        executor=executor,
        max_bytes=settings.serve_cache_bytes,
        alias_ttl_s=settings.serve_alias_ttl_s,
    )
    return models, store
