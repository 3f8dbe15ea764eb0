"""Settings of runs."""

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt


class RunSettings(BaseModel):
    """Worker settings of runs: how large shards are, and how much of them is in work."""

    #: Lines of a shard, unless the run is so slow that it would take more than half a minute. More
    #: make fewer files and fewer messages, and are computed again when a worker dies.
    shard_lines: int = Field(default=1000, ge=1, le=20_000)
    #: Shards in work at once; on Redis the worker leaves further ones to others, on RabbitMQ there is
    #: no limit but LABELYARD_BULK_SHARE. Those of at most 64 lines do not count. Fewer are computed
    #: again when the worker dies; with more, runs whose storage is slow hold up others less.
    shards_at_once: PositiveInt = 4
    #: Images of one shard on their way at once. More hide slow storage, and take places in the
    #: intake's queue.
    shard_window: PositiveInt = 128
    #: Seconds that one attempt at a shard may take; twice that ends the worker.
    shard_timeout_s: PositiveFloat = 900.0
    #: Seconds that one attempt at the plan or the end of a run may take. A plan goes on from where
    #: it came to.
    plan_timeout_s: PositiveFloat = 3600.0
