"""The queue under random interleavings: users, two dispatchers and attempts of any age, against a
real Redis and beside a model of what must happen.

Scripts are atomic, so that a sequence of calls in random order is every interleaving of processes.
Leases end without sleeping: one of 0 s has ended when it begins.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.errors import Conflict, ElmyrError, IdempotencyClash, InvalidInput, StaleToken
from shared.queue.connection import Connection
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.queue.keys import QueueKeys
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import (
    ACTIVE_STATES,
    FINAL_STATES,
    TRANSITIONS,
    Job,
    JobState,
    JobSubmission,
    Outcome,
    StopRequest,
)

IDS = ("job-0", "job-1", "job-2", "job-3")
ids = st.sampled_from(IDS)
picks = st.integers(0, 11)
"""Which job a call is about: 0 to 2 any job, above that one for which the call may succeed."""
OWNERS = ("dispatcher-a", "dispatcher-b")
likely_picks = st.integers(3, 11)
owners = st.sampled_from(OWNERS)
priorities = st.sampled_from([-100, 0, 100])
ttls = st.sampled_from([0.0, 3600.0])
tokens = st.sampled_from([None, None, None, 0, 1, 2, 3])
"""Which attempt speaks: None the one under way, a number one of any age."""
PAUSED, FAILED, CANCELED = JobState.PAUSED, JobState.FAILED, JobState.CANCELED
MET = {StopRequest.CANCEL: JobState.CANCELED, StopRequest.PAUSE: JobState.PAUSED}


@dataclass
class Expected:
    """What the model knows of one job."""

    sequence: int
    priority: int
    max_attempts: int
    body: str
    after: list[str]
    state: JobState = JobState.QUEUED
    place: str = ""
    owner: str | None = None
    lease_over: bool = False
    open: int = 0
    outcomes: dict[int, Outcome | None] = field(default_factory=dict)
    num_failures: int = 0
    stop: StopRequest | None = None
    interrupted: int = 0
    num_ends: int = 0

    @property
    def token(self) -> int:
        return max(self.outcomes, default=0)


class QueueMachine(RuleBasedStateMachine):
    def __init__(self, redis_url: str) -> None:
        super().__init__()
        name = f"machine-{uuid.uuid4().hex[:12]}"
        connection = Connection(redis_url, name)
        self.queue = JobQueue(connection, max_queued_jobs=100, retry_base_s=0, retry_max_s=0)
        self.log = EventLog(connection)
        self.keys = QueueKeys(name)
        self.redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self.jobs: dict[str, Expected] = {}
        self.claimed = Counter[str]()
        self.retried: str | None = None
        self.seen: dict[str, tuple[JobState, list[int]]] = {}
        self.told: defaultdict[str, list[Event]] = defaultdict(list)

    def teardown(self) -> None:
        self.redis.close()

    def any(self, *states: JobState) -> bool:
        return any(job.state in states for job in self.jobs.values())

    def pick(self, pick: int, likely: Callable[[Expected], bool]) -> str:
        known = sorted(self.jobs)
        fitting = [job_id for job_id in known if likely(self.jobs[job_id])]
        candidates = fitting if fitting and pick > 2 else known
        return candidates[pick % len(candidates)]

    # Users

    @initialize(
        priorities=st.tuples(priorities, priorities, priorities),
        max_attempts=st.integers(1, 2),
        waits=st.booleans(),
    )
    def begin_with_three_jobs(
        self, priorities: tuple[int, int, int], max_attempts: int, waits: bool
    ) -> None:
        for job_id, priority in zip(IDS, priorities, strict=False):
            after = ["job-0"] if waits and job_id == "job-2" else []
            self.submit(job_id, "body", after, priority, max_attempts)

    @precondition(lambda self: self.any(JobState.SUCCEEDED, *ACTIVE_STATES))
    @rule(
        job_id=ids,
        body=st.sampled_from(["body", "body", "other"]),
        after=st.lists(ids, max_size=2, unique=True),
        priority=priorities,
        max_attempts=st.integers(1, 3),
    )
    def submit(
        self, job_id: str, body: str, after: list[str], priority: int, max_attempts: int
    ) -> None:
        known = self.jobs.get(job_id)
        error: type[ElmyrError] | None = None
        if known is not None:
            error = IdempotencyClash if known.body != body else None
        elif any(earlier not in self.jobs for earlier in after):
            error = InvalidInput
        with self.expect(error):
            submission = JobSubmission(
                kind="train", spec={}, after=after, priority=priority, max_attempts=max_attempts
            )
            _, new = self.queue.submit(job_id, submission, owner="user", body_sha256=body)
            assert new == (known is None)
        if known is None and error is None:
            job = Expected(len(self.jobs), priority, max_attempts, body, after)
            self.jobs[job_id] = job
            self.place(job)
            if any(self.jobs[earlier].state in (FAILED, CANCELED) for earlier in after):
                self.move(job_id, CANCELED)

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        job_id = self.pick(pick, lambda job: job.state in ACTIVE_STATES)
        job = self.jobs[job_id]
        with self.expect(self.forbids(job, JobState.CANCELED)) as fine:
            self.queue.cancel(job_id)
        if fine:
            self.stop(job_id, StopRequest.CANCEL)

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(pick=picks)
    def pause(self, pick: int) -> None:
        job_id = self.pick(pick, lambda job: job.state in ACTIVE_STATES)
        job = self.jobs[job_id]
        error = self.forbids(job, JobState.PAUSED)
        if job.stop is StopRequest.CANCEL:
            error = Conflict
        with self.expect(error) as fine:
            self.queue.pause(job_id)
        if fine:
            self.stop(job_id, StopRequest.PAUSE)

    @precondition(lambda self: self.any(PAUSED))
    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        job_id = self.pick(pick, lambda job: job.state is JobState.PAUSED)
        error = None if self.jobs[job_id].state is JobState.PAUSED else Conflict
        with self.expect(error) as fine:
            self.queue.resume(job_id)
        if fine:
            self.move(job_id, JobState.QUEUED)

    @precondition(lambda self: self.any(FAILED, CANCELED))
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        job_id = self.pick(pick, lambda job: job.state in (FAILED, CANCELED))
        job = self.jobs[job_id]
        blocked = any(self.jobs[earlier].state in (FAILED, CANCELED) for earlier in job.after)
        error = Conflict if job.state not in (FAILED, CANCELED) or blocked else None
        with self.expect(error) as fine:
            self.queue.retry(job_id)
        if fine:
            job.num_failures = 0
            self.retried = job_id
            self.move(job_id, JobState.QUEUED)

    # Dispatchers

    @precondition(lambda self: any(job.place == "delayed" for job in self.jobs.values()))
    @rule()
    def ready(self) -> None:
        for job in self.jobs.values():
            if job.place == "delayed":
                job.place = "ready"
        assert [job.id for job in self.queue.ready()] == self.ready_ids()

    @precondition(lambda self: any(job.place for job in self.jobs.values()))
    @rule(pick=picks, owner=owners, ttl_s=ttls)
    def lease(self, pick: int, owner: str, ttl_s: float) -> None:
        job_id = self.pick(pick, lambda job: job.place == "ready")
        job = self.jobs[job_id]
        leased = self.queue.lease(job_id, owner=owner, ttl_s=ttl_s)
        assert (leased is not None) == (job.place == "ready")
        if leased:
            self.move(job_id, JobState.STARTING)
            job.owner, job.lease_over = owner, ttl_s == 0

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(pick=picks, other=st.sampled_from([*[None] * 6, *OWNERS]), slow=picks)
    def begin(self, pick: int, other: str | None, slow: int) -> None:
        """`slow` 0: with a number that was claimed before, by somebody who was slow."""
        job_id = self.pick(pick, lambda job: job.owner is not None and not job.open)
        job = self.jobs[job_id]
        owner = other or job.owner or OWNERS[0]
        self.claimed[job_id] += slow > 0
        number = max(1, self.claimed[job_id])
        error: type[ElmyrError] | None = None
        if job.owner != owner:
            error = StaleToken
        elif job.open:
            error = Conflict if job.open != number else None
        elif number <= job.token:
            error = StaleToken
        with self.expect(error) as fine:
            assert self.queue.begin(job_id, owner=owner, number=number).token == number
        if fine:
            job.outcomes.setdefault(number, None)
            job.open = self.claimed[job_id] = number

    @precondition(lambda self: any(job.place == "ready" for job in self.jobs.values()))
    @rule(pick=likely_picks, owner=owners, ttl_s=ttls)
    def start(self, pick: int, owner: str, ttl_s: float) -> None:
        """What happens to a job that nothing disturbs; the other rules get deeper states."""
        self.lease(pick, owner, ttl_s)
        self.begin(pick, None, 1)
        self.heartbeat(pick, None)

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(owner=owners, ttl_s=ttls)
    def renew(self, owner: str, ttl_s: float) -> None:
        expected = {i for i, job in self.jobs.items() if job.owner == owner}
        assert self.queue.renew(IDS, owner=owner, ttl_s=ttl_s) == expected
        for job_id in expected:
            self.jobs[job_id].lease_over = ttl_s == 0

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(owner=owners)
    def adopt(self, owner: str) -> None:
        expected = {i for i, job in self.jobs.items() if job.lease_over}
        assert {job.id for job in self.queue.adopt(owner=owner, ttl_s=3600)} == expected
        for job_id in expected:
            self.jobs[job_id].owner, self.jobs[job_id].lease_over = owner, False

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(job_ids=st.lists(ids, min_size=1, max_size=2, unique=True), owner=owners)
    def release(self, job_ids: list[str], owner: str) -> None:
        self.queue.release(job_ids, owner=owner)
        for job_id, job in self.jobs.items():
            if job.owner == owner and job_id in job_ids:
                job.owner, job.lease_over = None, True

    # Attempts, of any age

    @precondition(lambda self: any(job.open for job in self.jobs.values()))
    @rule(pick=picks, token=tokens)
    def heartbeat(self, pick: int, token: int | None) -> None:
        job_id = self.pick(pick, lambda job: job.open > 0)
        job = self.jobs[job_id]
        token = job.open if token is None else token
        with self.expect(self.fences(job, token)) as fine:
            answer = self.queue.heartbeat(job_id, token)
        if fine:
            assert answer == (job.stop or ("interrupt" if job.interrupted == token else None))
            job.state = JobState.RUNNING

    @precondition(lambda self: any(job.open for job in self.jobs.values()))
    @rule(pick=picks, token=tokens)
    def interrupt(self, pick: int, token: int | None) -> None:
        job_id = self.pick(pick, lambda job: job.open > 0)
        job = self.jobs[job_id]
        token = job.open if token is None else token
        with self.expect(self.fences(job, token)) as fine:
            self.queue.interrupt(job_id, token)
        if fine:
            job.interrupted = token

    @precondition(lambda self: any(job.open for job in self.jobs.values()))
    @rule(pick=picks, token=tokens)
    def speak(self, pick: int, token: int | None) -> None:
        job_id = self.pick(pick, lambda job: job.open > 0)
        token = self.jobs[job_id].open if token is None else token
        with self.expect(self.fences(self.jobs[job_id], token)):
            self.log.append(job_id, EventType.LOG, {"line": "x", "stream": "out"}, token=token)

    @precondition(lambda self: self.any(*ACTIVE_STATES))
    @rule(pick=picks, token=tokens, outcome=st.sampled_from(Outcome), owner=owners)
    def finish(self, pick: int, token: int | None, outcome: Outcome, owner: str) -> None:
        job_id = self.pick(pick, lambda job: job.state in ACTIVE_STATES)
        job = self.jobs[job_id]
        token = job.open if token is None else token
        error: type[ElmyrError] | None = None
        repeated = job.outcomes.get(token) is outcome
        if token == 0:
            error = StaleToken if job.owner != owner or job.open else None
        elif not repeated:
            error = self.fences(job, token)
        with self.expect(error) as fine:
            self.queue.finish(job_id, token, outcome, error="why", owner=owner)
        if fine and not repeated:
            if token:
                job.outcomes[token] = outcome
            job.num_failures += outcome is Outcome.CRASHED
            self.follow(job_id, job, outcome)

    @precondition(lambda self: any(job.open for job in self.jobs.values()))
    @rule(pick=likely_picks, outcome=st.sampled_from([Outcome.CRASHED, Outcome.INTERRUPTED]))
    def die(self, pick: int, outcome: Outcome) -> None:
        self.finish(pick, None, outcome, OWNERS[0])

    @precondition(lambda self: any(job.open for job in self.jobs.values()))
    @rule(pick=likely_picks, outcome=st.sampled_from(Outcome))
    def end(self, pick: int, outcome: Outcome) -> None:
        self.finish(pick, None, outcome, OWNERS[0])

    # The model

    def follow(self, job_id: str, job: Expected, outcome: Outcome) -> None:
        retryable = outcome in (Outcome.CRASHED, Outcome.INTERRUPTED)
        if job.stop and (retryable or outcome is Outcome.PAUSED):
            self.move(job_id, MET[job.stop])
        elif outcome is Outcome.CRASHED and job.num_failures >= job.max_attempts:
            self.move(job_id, FAILED)
        elif retryable:
            self.move(job_id, JobState.QUEUED)
            job.place = "delayed" if outcome is Outcome.CRASHED else "ready"
        else:
            self.move(job_id, JobState(outcome.value))

    def stop(self, job_id: str, wish: StopRequest) -> None:
        if self.jobs[job_id].state in ACTIVE_STATES:
            self.jobs[job_id].stop = wish
        else:
            self.move(job_id, MET[wish])

    def move(self, job_id: str, state: JobState) -> None:
        job = self.jobs[job_id]
        assert state in TRANSITIONS[job.state]
        job.state, job.place = state, ""
        if state is JobState.QUEUED:
            self.place(job)
        if state not in ACTIVE_STATES:
            job.owner, job.lease_over, job.open, job.stop, job.interrupted = None, False, 0, None, 0
        if state in FINAL_STATES:
            job.num_ends += 1
            for later_id, later in self.jobs.items():
                if job_id not in later.after:
                    continue
                if state is JobState.SUCCEEDED and later.place == "waiting":
                    self.place(later)
                elif state is not JobState.SUCCEEDED and later.state in (
                    JobState.QUEUED,
                    PAUSED,
                ):
                    self.move(later_id, CANCELED)

    def place(self, job: Expected) -> None:
        succeeded = all(self.jobs[e].state is JobState.SUCCEEDED for e in job.after)
        job.place = "ready" if succeeded else "waiting"

    def ready_ids(self) -> list[str]:
        ready = [job_id for job_id, job in self.jobs.items() if job.place == "ready"]
        return sorted(ready, key=lambda i: (-self.jobs[i].priority, self.jobs[i].sequence))

    def forbids(self, job: Expected, target: JobState) -> type[ElmyrError] | None:
        return None if target in TRANSITIONS[job.state] else Conflict

    def fences(self, job: Expected, token: int) -> type[ElmyrError] | None:
        return None if job.open == token and token else StaleToken

    @contextmanager
    def expect(self, error: type[ElmyrError] | None) -> Iterator[bool]:
        """The block raises exactly this error; gives whether it raises none."""
        if error is None:
            yield True
            return
        with pytest.raises(error) as caught:
            yield False
        assert type(caught.value) is error
        assert "job" in str(caught.value)

    # What holds after every step

    @invariant()
    def every_job_is_as_the_model_says(self) -> None:
        jobs = {job_id: self.queue.get(job_id) for job_id in self.jobs}
        for job_id, expected in self.jobs.items():
            job = jobs[job_id]
            assert job.state is expected.state
            assert job.stop_requested is expected.stop
            assert job.num_failures == expected.num_failures
            assert {a.number: a.outcome for a in job.attempts} == expected.outcomes
        for ahead, job_id in enumerate(self.ready_ids()):
            assert jobs[job_id].jobs_ahead == ahead
        self.attempts_only_grow_and_ends_are_final(jobs)

    def attempts_only_grow_and_ends_are_final(self, jobs: dict[str, Job]) -> None:
        for job_id, job in jobs.items():
            numbers = [attempt.number for attempt in job.attempts]
            assert numbers == sorted(set(numbers))
            state_before, numbers_before = self.seen.get(job_id, (JobState.QUEUED, []))
            assert numbers[: len(numbers_before)] == numbers_before
            if state_before in FINAL_STATES and job_id != self.retried:
                assert job.state is state_before
            self.seen[job_id] = job.state, numbers
        self.retried = None

    @invariant()
    def no_job_is_lost(self) -> None:
        """Each is in the index of its state, and where such jobs wait, and nowhere else; an active
        one has one owner at most."""
        places = ("ready", "delayed", "waiting")
        with self.redis.pipeline(transaction=False) as pipeline:
            for state in JobState:
                pipeline.zrange(self.keys.key("state", state), 0, -1)
            for place in (*places, "leases"):
                pipeline.zrange(self.keys.key(place), 0, -1)
            for job_id in self.jobs:
                pipeline.hget(self.keys.key("job", job_id), "lease_owner")
            found = iter(pipeline.execute())
        for state in JobState:
            assert set(next(found)) == {i for i, job in self.jobs.items() if job.state is state}
        for place in places:
            assert set(next(found)) == {i for i, job in self.jobs.items() if job.place == place}
        assert set(next(found)) == {i for i, j in self.jobs.items() if j.state in ACTIVE_STATES}
        assert list(found) == [job.owner for job in self.jobs.values()]

    @invariant()
    def no_job_ends_twice(self) -> None:
        """Each end has one `done`, right behind its state; the log tells every move."""
        for job_id, expected in self.jobs.items():
            log = self.told[job_id]
            log += self.log.read(job_id, after=log[-1].id if log else None)
            events = [event for event in log if event.type is not EventType.LOG]
            states = [JobState(e.data["state"]) for e in events if e.type is EventType.STATE]
            assert states[0] is JobState.QUEUED
            assert states[-1] is expected.state
            for before, after in itertools.pairwise(states):
                assert before is after or after in TRANSITIONS[before]
            done = [i for i, event in enumerate(events) if event.type is EventType.DONE]
            ends = [
                i
                for i, event in enumerate(events)
                if event.type is EventType.STATE and event.data["state"] in FINAL_STATES
            ]
            assert done == [i + 1 for i in ends]
            assert len(done) == expected.num_ends


def test_the_queue_holds_its_invariants(redis_url: str) -> None:
    class Machine(QueueMachine):
        def __init__(self) -> None:
            super().__init__(redis_url)

    run_state_machine_as_test(
        Machine, settings=hypothesis_settings(max_examples=120, stateful_step_count=50)
    )
