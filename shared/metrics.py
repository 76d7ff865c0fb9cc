"""Every metric of Elmyr: its name, its labels, its meaning. The page docs/metrics.md lists them.

Processes make their instruments from these words; how they are exported is not known here. Labels
have few values, whatever users send: no model, no dataset, no prompt. A `job_id` is only on gauges
of what runs now, which end with their process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RAY_PREFIX = "ray_"
"""Ray's node agent puts it before the name of all that it exports."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `buckets` are the upper bounds of a histogram, +Inf apart."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# The API; the metrics of the queue are the same from each of its processes.
API_REQUESTS = Metric(
    "counter", "elmyr_api_requests_total", "Requests answered.", ("method", "route", "status")
)
API_LATENCY = Metric(
    "histogram",
    "elmyr_api_latency_seconds",
    "From the request's arrival to the first byte of the answer.",
    ("method", "route"),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
STORE_UP = Metric(
    "gauge", "elmyr_store_up", "1 if Redis or S3 answers the API, else 0.", ("store",)
)
QUEUE_JOBS = Metric("gauge", "elmyr_queue_jobs", "Jobs by state.", ("state",))
QUEUE_OLDEST_AGE = Metric(
    "gauge",
    "elmyr_queue_oldest_age_seconds",
    "Since the submit of the job that is the oldest in a state that is not final; 0 without one.",
    ("state",),
)
QUEUE_ATTEMPTS = Metric(
    "counter", "elmyr_queue_attempts_total", "Attempts that have ended.", ("kind", "outcome")
)
QUEUE_LEASE_EXPIRIES = Metric(
    "counter",
    "elmyr_queue_lease_expiries_total",
    "Leases that ended without their dispatcher letting go: it died or hung.",
)

# A dispatcher
DISPATCHER_TURN = Metric(
    "gauge", "elmyr_dispatcher_turn_timestamp_seconds", "When its loop last turned; Unix time."
)
DISPATCHER_LEASES = Metric("gauge", "elmyr_dispatcher_leases", "Jobs that it looks after.")
DISPATCHER_RAY_UP = Metric("gauge", "elmyr_dispatcher_ray_up", "1 if Ray answers it, else 0.")
READY_JOBS = Metric(
    "gauge", "elmyr_dispatcher_ready_jobs", "Jobs that could start if there were room; at most 500."
)
READY_OLDEST_AGE = Metric(
    "gauge",
    "elmyr_dispatcher_ready_oldest_age_seconds",
    "Since the submit of the oldest of these; 0 without one.",
)
QUEUE_WAIT = Metric(
    "histogram",
    "elmyr_queue_wait_seconds",
    "From a job's submit to the start of its first attempt.",
    ("kind",),
    (1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400),
)
DEVICE_SECONDS = Metric(
    "counter",
    "elmyr_device_seconds_total",
    "Seconds that attempts held a device: a GPU, or a processor where the job trains on those.",
    ("owner", "device"),
)

# The attempt of a training. Gauges: they end with the attempt, as a counter of Ray's would not, and
# a counter that starts anew at each attempt hides its first event from increase().
TRAINING_IMAGES_PER_SECOND = Metric(
    "gauge", "elmyr_training_images_per_second", "Real images seen a second.", ("job_id",)
)
TRAINING_KIMG = Metric(
    "gauge", "elmyr_training_kimg", "Thousands of real images seen.", ("job_id",)
)
TRAINING_PROGRESS = Metric(
    "gauge", "elmyr_training_progress_ratio", "Share of the run that is done, 0 to 1.", ("job_id",)
)
TRAINING_CHECKPOINT_SECONDS = Metric(
    "gauge",
    "elmyr_training_checkpoint_seconds",
    "What the newest checkpoint took to write, beside the training.",
    ("job_id",),
)
TRAINING_CHECKPOINT_BYTES = Metric(
    "gauge", "elmyr_training_checkpoint_bytes", "Tensors of the newest checkpoint.", ("job_id",)
)
TRAINING_CHECKPOINT_TIMESTAMP = Metric(
    "gauge",
    "elmyr_training_checkpoint_timestamp_seconds",
    "When the newest checkpoint was committed, or the attempt began; Unix time.",
    ("job_id",),
)
TRAINING_COLLAPSES = Metric(
    "gauge", "elmyr_training_collapses", "Collapses that this attempt has seen.", ("job_id",)
)

# A replica of serving; `deployment` is interactive or bulk, `endpoint` a name of ours.
SERVING_REQUESTS = Metric(
    "counter",
    "elmyr_serving_requests_total",
    "Requests answered.",
    ("deployment", "endpoint", "status"),
)
SERVING_LATENCY = Metric(
    "histogram",
    "elmyr_serving_latency_seconds",
    "From the request's arrival at the replica to the first byte of the answer.",
    ("deployment", "endpoint"),
    (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
SERVING_BATCH = Metric(
    "histogram",
    "elmyr_serving_batch_images",
    "Images asked for that were drawn together.",
    ("deployment",),
    (1, 2, 4, 8, 16, 32, 64),
)
SERVING_MODELS = Metric(
    "gauge", "elmyr_serving_models_loaded", "Model versions in memory.", ("deployment",)
)
SERVING_MODEL_BYTES = Metric(
    "gauge", "elmyr_serving_models_loaded_bytes", "Their weights.", ("deployment",)
)

FROM_API = (
    API_REQUESTS,
    API_LATENCY,
    STORE_UP,
    QUEUE_JOBS,
    QUEUE_OLDEST_AGE,
    QUEUE_ATTEMPTS,
    QUEUE_LEASE_EXPIRIES,
)
FROM_DISPATCHER = (
    DISPATCHER_TURN,
    DISPATCHER_LEASES,
    DISPATCHER_RAY_UP,
    READY_JOBS,
    READY_OLDEST_AGE,
    QUEUE_WAIT,
    DEVICE_SECONDS,
)
FROM_ATTEMPTS = (
    TRAINING_IMAGES_PER_SECOND,
    TRAINING_KIMG,
    TRAINING_PROGRESS,
    TRAINING_CHECKPOINT_SECONDS,
    TRAINING_CHECKPOINT_BYTES,
    TRAINING_CHECKPOINT_TIMESTAMP,
    TRAINING_COLLAPSES,
)
FROM_SERVING = (
    SERVING_REQUESTS,
    SERVING_LATENCY,
    SERVING_BATCH,
    SERVING_MODELS,
    SERVING_MODEL_BYTES,
)
