"""Settings of jobs."""

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class JobSettings(BaseModel):
    """Worker settings of jobs: slots, timeouts and attempts."""

    #: Jobs in work at once.
    concurrency: PositiveInt = 64
    #: Part of the jobs in work that may be bulk, so that interactive jobs always find room.
    bulk_share: float = Field(default=0.75, gt=0, le=1)
    #: Seconds that one attempt may take; twice that ends the worker.
    job_timeout_s: PositiveFloat = 300.0
    #: Attempts before a job's transient errors become its result.
    max_attempts: PositiveInt = 5
    #: Deaths of its worker after which a job is a suspect: one suspect at a time runs in a worker,
    #: beside ordinary jobs. A death beside a suspect counts as half of one.
    quarantine_after: PositiveInt = 2
    #: Deaths as a suspect after which a job is a dead letter. For the last of them it begins
    #: alone, when its worker is idle within 30 s; without such a moment two more are needed.
    dead_after: PositiveInt = 2
    #: Seconds that SIGTERM leaves for what is running.
    drain_s: NonNegativeFloat = 30.0
