"""Every setting of the worker, read once from ``LABELYARD_*`` at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import NoDecode

from labelyard.settings import DAY_S, ClientSettings, ConnectionSettings, refuse_unknown_variables

MIB = 1024 * 1024


def _split(value: object) -> object:
    """Read ``a,b`` as a tuple, as an operator would write it in an environment file."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class WorkerSettings(ConnectionSettings):
    """How this worker reads, batches, scores and survives.

    Attributes:
        checkpoint: ``lite``, a folder that transformers can load, a hub name, or
            ``name@revision`` with a branch, tag or commit of the hub. Pin a commit: a name
            alone loads whatever is newest at the start.
        device: ``auto`` (CUDA, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` is bfloat16 where the device is faster in it (a CPU is tried at the
            start), else float32.
        compile: Compile the image tower with ``torch.compile``; a slower start.
        model_threads: Threads of one forward pass on a CPU; 0 decides from the cores.
        model_streams: Forward passes at once; 0 decides from the device and the cores.
        cache_dir: Where the lite checkpoint is built; unset means the user's cache.

        max_batch_size: Most images in one forward pass; 0 decides from the device.
        queue_capacity: Images that may wait for the model; past it a job is retried.
        max_pixels_in_flight_bytes: Most decoded pixels held at once, over all jobs; of these
            no more than 16 batches for each stream of the model.
        inference_timeout_s: Seconds that one forward pass may take; twice that ends the worker.
        label_cache_bytes: Most bytes of label sets and their text embeddings kept in memory,
            names and overhead included; a set of 10,000 labels takes 11 to 42 MB.
        image_cache_bytes: Image embeddings kept in memory, for pictures that come again;
            0 keeps none.
        always_fetch: Fetch known pictures, too, so that their SHA-256 decides and no ETag is
            believed: for moderation. It costs the fetch and the decoding of each picture,
            also of jobs that only score again.
        embeddings_url: Redis that keeps image embeddings for all workers and for
            re-scoring, about 3 kB an image, and text embeddings, 2 to 4.2 kB a prompt.
            It may evict: give it an instance of its own with ``maxmemory-policy
            allkeys-lru``. Unset keeps them in memory only, so that each worker encodes
            its label sets itself.
        embeddings_ttl_s: Seconds that it keeps them; prompts of label sets that are not
            registered are kept for an hour.

        decode: ``draft`` decodes JPEGs at the smallest DCT scale that is at least twice
            the model's size, several times faster on large ones; ``exact`` decodes every
            pixel; ``auto`` drafts for all checkpoints whose answers hold, which are all
            but lite and ALIGN.
        transparency: ``white`` composes on white; ``drop`` drops the alpha channel. With
            decode ``exact``, ``drop`` gives the pixels of transformers' pipeline, which
            composes one transparent colour (GIF, PNG) on white and clips greys of more than
            8 bits to white; otherwise these are scaled to 8 bits.
        intake_children: Processes that decode; 0 decides from the cores.
        fetchers: Processes that fetch, each with many fetches at once. One takes 35 MiB of
            memory, 66 MiB once it has needed boto3 to sign requests.
        fetches: Most fetches at once. Bulk jobs get three quarters of them, a tenant a
            half, a bucket or host a quarter, so that a slow one does not hold them all.
        max_fetched_bytes: Bytes of files that are fetched and not decoded yet; one file
            more than that may be held.
        image_timeout_s: Seconds to fetch and decode one image; a fetch gets at most 80 %,
            decoding what the fetch left, at least 20 %.
        fetch_grace_s: Seconds that each piece of a file (256 KiB, or a whole file up to
            1 MiB) may take at any rate.
        min_fetch_bytes_per_s: Rate below which a fetch is given up after that, as
            storage_unavailable.
        storage_wait_s: Seconds since it was submitted that a job waits, without using up
            its attempts, while a bucket or host fails as a whole or is too slow for all
            the jobs that want it. 0 never waits: such jobs use up their attempts.
        max_image_bytes: Largest file that is fetched.
        max_image_pixels: Largest width x height, read from the header.
        max_child_memory_bytes: Address space that decoding may take beyond the child's own.
        image_retries: Times that one image's transient error is retried in place.
        allowed_buckets: Buckets that may be read; empty means all that the credentials
            allow.
        https_sources: Whether ``https://`` images may be fetched.
        https_hosts: Hosts that they may come from; needed when https_sources is on.

        concurrency: Jobs in work at once.
        bulk_share: Part of these that bulk jobs may take, so that interactive jobs
            always find room.
        job_timeout_s: Seconds that one attempt may take; twice that ends the worker.
        max_attempts: Attempts before a job's transient errors become its result.
        quarantine_after: Deaths of its worker after which a job is a suspect: one suspect
            at a time runs in a worker, beside ordinary jobs. A death beside a suspect counts
            as half of one.
        dead_after: Deaths as a suspect after which a job is a dead letter. For the last of
            them it begins alone, when its worker is idle within 30 s; without such a moment
            two more are needed.
        drain_s: Seconds that SIGTERM leaves for what is running.

        atomic_claim: Take messages by one atomic step (Redis brokers). Without it messages
            pass no admission gate either: a malformed one can end the worker.
        safe_pool: Use the thread pool that loses no escape.
        heartbeat: Renew the visibility of what is in work (Redis brokers).
        single_flight: Run a job once in this process, however often it is delivered.
        reconciler: Send again what no queue holds.
        reconcile_every_s: Seconds between two rounds of the reconciler.
        reconcile_after_s: Age in seconds from which a job is looked for.
        watchdog: End the process when a job or the model hangs beyond its deadline.
        visibility_timeout_s: Seconds after which a dead worker's jobs come again.
        remote_control: Listen to Celery's remote control (``celery inspect``, ``control``),
            within the namespace. Whoever may write to the broker can then stop workers.
        celery_follow_ups: Calls that a Celery application may chain behind a job, each as
            ``task@queue``; the worker publishes them with the job's state to that queue of its
            broker. Empty refuses chains: whoever may write to our queues could else have
            any task of any service called.
        celery_results_url: Redis that gets the task's result where a Celery application asks
            for it; unset means the ledger's.

        result_buckets: Where ``deliver.object_uri`` may write: ``bucket`` or
            ``bucket/prefix/``, in which ``{tenant}`` stands for the job's tenant; empty
            refuses all. A bucket that allowed_buckets lists needs a prefix, or a result
            could take a picture's place.
        object_timeout_s: Seconds that writing one object may take, 30 at most.
        webhook_secret: Signs webhooks, ``whsec_…``; without it none is sent.
        webhook_hosts: Receivers that webhooks may go to, ``host`` or ``host:port`` over
            https, ``http://host:port`` without TLS; empty refuses all. ``localhost`` and
            ``127.0.0.1`` alone permit every port and http, for development.
        webhook_timeout_s: Seconds that one whole call may take, 30 at most.
        health_port: Port of ``/live`` and ``/ready`` on 127.0.0.1; 0 picks a free one,
            -1 turns it off.
        health_host: Address that the port is bound to.
        stall_s: Seconds without a finished job, while jobs wait, until not live.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``text`` or ``json``.
    """

    checkpoint: str = "lite"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    model_threads: NonNegativeInt = 0
    model_streams: NonNegativeInt = 0
    cache_dir: Path | None = None

    max_batch_size: NonNegativeInt = 0
    queue_capacity: PositiveInt = 4096
    max_pixels_in_flight_bytes: PositiveInt = 256 * MIB
    inference_timeout_s: PositiveFloat = 60.0
    label_cache_bytes: PositiveInt = 256 * MIB
    image_cache_bytes: NonNegativeInt = 64 * MIB
    always_fetch: bool = False
    embeddings_url: str | None = None
    embeddings_ttl_s: PositiveInt = 7 * DAY_S

    decode: Literal["auto", "draft", "exact"] = "auto"
    transparency: Literal["white", "drop"] = "white"
    intake_children: NonNegativeInt = 0
    fetchers: PositiveInt = 1
    fetches: PositiveInt = 128
    max_fetched_bytes: PositiveInt = 256 * MIB
    image_timeout_s: PositiveFloat = 30.0
    fetch_grace_s: PositiveFloat = 5.0
    min_fetch_bytes_per_s: PositiveInt = 50_000
    storage_wait_s: NonNegativeFloat = 6 * 3600.0
    max_image_bytes: PositiveInt = 50_000_000
    max_image_pixels: PositiveInt = 100_000_000
    max_child_memory_bytes: PositiveInt = 2048 * MIB
    image_retries: NonNegativeInt = 2
    allowed_buckets: Names = ()
    https_sources: bool = False
    https_hosts: Names = ()

    concurrency: PositiveInt = 64
    bulk_share: float = Field(default=0.75, gt=0, le=1)
    job_timeout_s: PositiveFloat = 300.0
    max_attempts: PositiveInt = 5
    quarantine_after: PositiveInt = 2
    dead_after: PositiveInt = 2
    drain_s: NonNegativeFloat = 30.0

    atomic_claim: bool = True
    safe_pool: bool = True
    heartbeat: bool = True
    single_flight: bool = True
    reconciler: bool = True
    reconcile_every_s: PositiveFloat = 15.0
    reconcile_after_s: PositiveFloat = 30.0
    watchdog: bool = True
    visibility_timeout_s: PositiveInt = 120
    remote_control: bool = False
    celery_follow_ups: Names = ()
    celery_results_url: str | None = None

    result_buckets: Names = ()
    # Both below the lease of a delivery, see jobs/delivery/pool.py.
    object_timeout_s: float = Field(default=30.0, gt=0, le=30)
    webhook_secret: str | None = None
    webhook_hosts: Names = ()
    webhook_timeout_s: float = Field(default=5.0, gt=0, le=30)
    health_port: int = Field(default=9464, ge=-1, le=65535)
    health_host: str = "127.0.0.1"
    stall_s: PositiveFloat = 300.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"


def read_settings() -> WorkerSettings:
    """Read the environment, and refuse a misspelt variable.

    Raises:
        ServiceConfigError: A value or a name is wrong.
    """
    refuse_unknown_variables([WorkerSettings, ClientSettings])
    return WorkerSettings.read()
