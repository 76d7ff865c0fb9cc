"""What happens to a job, as its event log tells it: the payloads of SSE, by type."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class EventType(StrEnum):
    STATE = "state"  # {state, reason, attempt}
    METRIC = (
        "metric"  # {kimg, step, img_per_s, eta_s, of, and the recipe's scalars: loss_d, loss_g ...}
    )
    SAMPLE = "sample"  # {key, path; of a training kimg}: a grid lies in object storage
    CHECKPOINT = "checkpoint"  # {kimg, key, bytes, seconds}
    COLLAPSE = "collapse"  # {kimg, alarms, signs, action}
    LOG = "log"  # {line, stream}; an attempt's last words may stand behind `done`
    DONE = "done"  # {state, result}: the end of a job, and of every stream of its events


class Event(BaseModel):
    """One entry of a job's log. `id` is a Redis stream id; ids of one job only grow."""

    id: str
    type: EventType
    at: datetime
    data: dict[str, Any]
