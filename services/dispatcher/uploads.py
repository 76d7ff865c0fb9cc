"""Uploads leave object storage once no attempt can want them any more.

A listing decides, so nothing has to be remembered: an upload whose request died before there was a
job is found as well. Deleting is not undone by anything: see KEPT for the retries. What an upload
holds is not known here.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from shared.errors import NotFound
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobState
from shared.storage import keys
from shared.storage.objects import ObjectInfo, ObjectStore

KEPT = {
    # A Redis that crashes may forget its last second, and the job then runs again.
    JobState.SUCCEEDED: timedelta(minutes=10),
    # Somebody may ask for a retry, which reads the upload again.
    JobState.FAILED: timedelta(days=7),
    JobState.CANCELED: timedelta(days=7),
}
"""How long after the end of its job an upload stays."""

KEPT_UNKNOWN = timedelta(days=7)
"""How long after it was written an upload stays that no job of the queue names."""

log = structlog.get_logger()


class UploadSweep:
    """Deletes what is over. Any number of dispatchers may do so at once."""

    def __init__(self, queue: JobQueue, store: ObjectStore) -> None:
        self._queue = queue
        self._store = store

    def sweep(self, now: datetime) -> None:
        """Look at every upload there is. A retry at the very end of its time may come too late:
        the attempt then says that the upload is gone."""
        for info in self._store.list(keys.UPLOADS):
            if self._ends_at(info, now) < now:
                self._store.delete(info.key)
                log.info("upload deleted", key=info.key, bytes=info.bytes)

    def _ends_at(self, info: ObjectInfo, now: datetime) -> datetime:
        """When an upload is over; `now` while that is not known."""
        try:
            job = self._queue.get(info.key.removeprefix(keys.UPLOADS))
        except NotFound:
            return info.modified_at + KEPT_UNKNOWN
        if job.state not in KEPT or job.ended_at is None:
            return now
        return job.ended_at + KEPT[job.state]
