"""Settings of a worker that contradict each other, or the supervisor that runs it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from labelyard.doctor import Finding, FindingKind, Severity
from labelyard.messages import MAX_IMAGES
from labelyard.queues import Queue, is_amqp
from labelyard_worker.celery_app import HEARTBEAT_S
from labelyard_worker.intake.sources.registry import SHARE_OF_TIMEOUT
from labelyard_worker.settings import WorkerSettings

#: Seconds that a drained worker needs besides LABELYARD_DRAIN_S; docs/operations.md names them.
AFTER_DRAIN_S: Final = 10
#: A worker that stalls for this long (a page fault storm, a paused container) is not dead.
LONG_STALL_S: Final = 15
BYTES_PER_PIXEL: Final = 4

Rule = Callable[[WorkerSettings], bool]


def _kind(code: str, found: str, advice: str, severity: Severity = Severity.WARNING) -> FindingKind:
    return FindingKind(code, "settings", severity, found, advice)


GUARDS_OFF: Final = _kind(
    "guards_off",
    "LABELYARD_STOCK_CELERY is on: jobs are lost, run twice or hang for ever.",
    "Unset LABELYARD_STOCK_CELERY: only measurements use it.",
    Severity.SERIOUS,
)
CLAIM_NOT_ATOMIC: Final = _kind(
    "claim_not_atomic",
    "LABELYARD_ATOMIC_CLAIM is off: about one job in a thousand is late when a worker is killed, "
    "and a malformed message can end a worker.",
    "Set LABELYARD_ATOMIC_CLAIM=1, unless the broker is behind Sentinel.",
)
VISIBILITY_SHORT: Final = _kind(
    "visibility_short",
    "LABELYARD_VISIBILITY_TIMEOUT_S is {visibility_timeout_s}: a worker that stalls for as long "
    "counts as dead, and its jobs run twice.",
    "Set LABELYARD_VISIBILITY_TIMEOUT_S to 30 or more.",
)
DRAIN_EXCEEDS_HEARTBEAT: Final = _kind(
    "drain_exceeds_heartbeat",
    "LABELYARD_DRAIN_S is {drain_s:g}, and RabbitMQ drops a draining worker after 40 s without a "
    "heartbeat: jobs that still run are delivered to others as well.",
    "Set LABELYARD_DRAIN_S below 40.",
)
WATCH_EXCEEDS_TIMEOUT: Final = _kind(
    "watch_exceeds_timeout",
    "LABELYARD_INFERENCE_TIMEOUT_S is {inference_timeout_s:g} and LABELYARD_JOB_TIMEOUT_S "
    "{job_timeout_s:g}: a hung forward pass is noticed after the job was given up.",
    "Set LABELYARD_INFERENCE_TIMEOUT_S below LABELYARD_JOB_TIMEOUT_S.",
)
IMAGE_EXCEEDS_JOB: Final = _kind(
    "image_exceeds_job",
    "LABELYARD_IMAGE_TIMEOUT_S is {image_timeout_s:g} and LABELYARD_JOB_TIMEOUT_S "
    "{job_timeout_s:g}: one slow image fails its whole job.",
    "Set LABELYARD_JOB_TIMEOUT_S well above LABELYARD_IMAGE_TIMEOUT_S.",
)
STALL_BELOW_JOB: Final = _kind(
    "stall_below_job",
    "LABELYARD_STALL_S is {stall_s:g} and LABELYARD_JOB_TIMEOUT_S {job_timeout_s:g}: a worker whose "
    "jobs are all long is restarted by its liveness probe.",
    "Set LABELYARD_STALL_S to at least LABELYARD_JOB_TIMEOUT_S.",
)
OPEN_TTL_SHORT: Final = _kind(
    "open_ttl_short",
    "LABELYARD_OPEN_TTL_S is {open_ttl_s}, and jobs may wait for their storage for "
    "LABELYARD_STORAGE_WAIT_S={storage_wait_s:g}: a waiting job's record is dropped.",
    "Set LABELYARD_OPEN_TTL_S well above LABELYARD_STORAGE_WAIT_S.",
    Severity.SERIOUS,
)
ONE_ATTEMPT: Final = _kind(
    "one_attempt",
    "LABELYARD_MAX_ATTEMPTS is 1: a storage that is away for a second fails its jobs.",
    "Set LABELYARD_MAX_ATTEMPTS to 3 or more.",
)
BURIED_EARLY: Final = _kind(
    "buried_early",
    "LABELYARD_QUARANTINE_AFTER={quarantine_after} and LABELYARD_DEAD_AFTER={dead_after}: two "
    "workers that die by chance bury an innocent job.",
    "Set both to 2 or more.",
)
NO_INTERACTIVE_SLOT: Final = _kind(
    "no_interactive_slot",
    "LABELYARD_CONCURRENCY={concurrency} and LABELYARD_BULK_SHARE={bulk_share:g} let bulk jobs take "
    "every slot: interactive jobs wait for them.",
    "Lower LABELYARD_BULK_SHARE, or raise LABELYARD_CONCURRENCY to 2 or more.",
)
QUEUE_CAPACITY_SMALL: Final = _kind(
    "queue_capacity_small",
    "LABELYARD_QUEUE_CAPACITY is {queue_capacity}, and one job may bring {job} images: the model "
    "waits for decoded images.",
    "Set LABELYARD_QUEUE_CAPACITY to LABELYARD_CONCURRENCY x {job}, which is {all_images} here.",
    Severity.ADVICE,
)
FILE_EXCEEDS_BUFFER: Final = _kind(
    "file_exceeds_buffer",
    "LABELYARD_MAX_IMAGE_BYTES is {max_image_bytes}, and half of LABELYARD_MAX_FETCHED_BYTES, "
    "which unfinished fetches share, is {half}: one large file holds up all others.",
    "Set LABELYARD_MAX_FETCHED_BYTES to at least four times LABELYARD_MAX_IMAGE_BYTES.",
)
PIXELS_EXCEED_MEMORY: Final = _kind(
    "pixels_exceed_memory",
    "LABELYARD_MAX_IMAGE_PIXELS is {max_image_pixels}, which takes {decoded} bytes to decode, and "
    "LABELYARD_MAX_CHILD_MEMORY_BYTES only {max_child_memory_bytes}: large pictures fail.",
    "Raise LABELYARD_MAX_CHILD_MEMORY_BYTES to {decoded} or more, or lower "
    "LABELYARD_MAX_IMAGE_PIXELS.",
)
GRACE_EXCEEDS_FETCH: Final = _kind(
    "grace_exceeds_fetch",
    "LABELYARD_FETCH_GRACE_S is {fetch_grace_s:g}, and a fetch ends after {fetch_s:g} s, 80 % of "
    "LABELYARD_IMAGE_TIMEOUT_S: LABELYARD_MIN_FETCH_BYTES_PER_S never acts.",
    "Set LABELYARD_FETCH_GRACE_S below {fetch_s:g}.",
)
WEBHOOKS_UNSIGNED: Final = _kind(
    "webhooks_unsigned",
    "LABELYARD_WEBHOOK_HOSTS lists receivers, and there is no LABELYARD_WEBHOOK_SECRET: no webhook "
    "is sent.",
    "Set LABELYARD_WEBHOOK_SECRET to whsec_ and the Base64 text of 24 to 64 random bytes.",
    Severity.SERIOUS,
)
HTTPS_WITHOUT_HOSTS: Final = _kind(
    "https_without_hosts",
    "LABELYARD_HTTPS_SOURCES is on, and LABELYARD_HTTPS_HOSTS is empty: every https image is "
    "refused.",
    "List the hosts in LABELYARD_HTTPS_HOSTS.",
)
HTTPS_OFF: Final = _kind(
    "https_off",
    "LABELYARD_HTTPS_HOSTS lists hosts, and LABELYARD_HTTPS_SOURCES is off: every https image is "
    "refused.",
    "Set LABELYARD_HTTPS_SOURCES=1, or unset LABELYARD_HTTPS_HOSTS.",
)
COMPILER_MISSING: Final = _kind(
    "compiler_missing",
    "LABELYARD_COMPILE is on, and this machine has no C++ compiler: the worker does not start.",
    "Install one (apt-get install g++), or unset LABELYARD_COMPILE.",
    Severity.SERIOUS,
)
GRACE_SHORT: Final = _kind(
    "grace_short",
    "LABELYARD_DRAIN_S is {drain_s:g}; {supervisor} kills a worker {default_s} s after SIGTERM by "
    "default.",
    "Set {option} to {needed_s:.0f} or more, if that is not done yet: 10 s more than "
    "LABELYARD_DRAIN_S.",
    Severity.ADVICE,
)

#: Each contradiction with the test that finds it; the sentences take values of the settings.
RULES: Final[Mapping[FindingKind, Rule]] = {
    GUARDS_OFF: lambda one: one.stock_celery,
    CLAIM_NOT_ATOMIC: lambda one: not one.atomic_claim and not is_amqp(one.broker_url),
    VISIBILITY_SHORT: lambda one: one.visibility_timeout_s < LONG_STALL_S,
    DRAIN_EXCEEDS_HEARTBEAT: lambda one: is_amqp(one.broker_url) and one.drain_s >= 2 * HEARTBEAT_S,
    WATCH_EXCEEDS_TIMEOUT: lambda one: one.inference_timeout_s >= one.job_timeout_s,
    IMAGE_EXCEEDS_JOB: lambda one: one.image_timeout_s >= one.job_timeout_s,
    STALL_BELOW_JOB: lambda one: one.stall_s < one.job_timeout_s,
    OPEN_TTL_SHORT: lambda one: one.open_ttl_s <= max(one.storage_wait_s, one.job_timeout_s),
    ONE_ATTEMPT: lambda one: one.max_attempts == 1,
    BURIED_EARLY: lambda one: one.quarantine_after + one.dead_after <= 2,
    NO_INTERACTIVE_SLOT: lambda one: (
        Queue.BULK.slots(concurrency=one.concurrency, bulk_share=one.bulk_share) >= one.concurrency
    ),
    QUEUE_CAPACITY_SMALL: lambda one: one.queue_capacity < one.concurrency * MAX_IMAGES,
    FILE_EXCEEDS_BUFFER: lambda one: one.max_image_bytes > one.max_fetched_bytes // 2,
    PIXELS_EXCEED_MEMORY: lambda one: decoded_bytes(one) > one.max_child_memory_bytes,
    GRACE_EXCEEDS_FETCH: lambda one: one.fetch_grace_s >= SHARE_OF_TIMEOUT * one.image_timeout_s,
    WEBHOOKS_UNSIGNED: lambda one: bool(one.webhook_hosts) and not one.webhook_secret,
    HTTPS_WITHOUT_HOSTS: lambda one: one.https_sources and not one.https_hosts,
    HTTPS_OFF: lambda one: bool(one.https_hosts) and not one.https_sources,
    COMPILER_MISSING: lambda one: (
        one.compile and not any(map(shutil.which, ("c++", "g++", "clang++")))
    ),
}
KINDS: Final = (*RULES, GRACE_SHORT)


def check_worker_settings(
    settings: WorkerSettings, environ: Mapping[str, str], *, root: Path = Path("/")
) -> Iterator[Finding]:
    """Find contradictions between the settings of a worker.

    Args:
        root: Where the marks of a container are looked for.
    """
    values = {
        **settings.model_dump(),
        "job": MAX_IMAGES,
        "all_images": settings.concurrency * MAX_IMAGES,
        "half": settings.max_fetched_bytes // 2,
        "decoded": decoded_bytes(settings),
        "fetch_s": SHARE_OF_TIMEOUT * settings.image_timeout_s,
    }
    for kind, is_broken in RULES.items():
        if is_broken(settings):
            yield kind.at(**values)
    yield from check_grace(settings, environ, root=root)


def check_grace(
    settings: WorkerSettings, environ: Mapping[str, str], *, root: Path
) -> Iterator[Finding]:
    """Compare the drain with the time that a supervisor leaves by default."""
    supervisors = (
        ("Kubernetes", "terminationGracePeriodSeconds", 30, "KUBERNETES_SERVICE_HOST" in environ),
        ("Docker", "stop_grace_period (--stop-timeout)", 10, (root / ".dockerenv").exists()),
        ("systemd", "TimeoutStopSec", 90, "INVOCATION_ID" in environ),
    )
    needed_s = settings.drain_s + AFTER_DRAIN_S
    for supervisor, option, default_s, is_here in supervisors:
        if is_here:
            if needed_s > default_s:
                yield GRACE_SHORT.at(
                    supervisor=supervisor,
                    option=option,
                    default_s=default_s,
                    needed_s=needed_s,
                    drain_s=settings.drain_s,
                )
            return  # the outermost alone decides


def decoded_bytes(settings: WorkerSettings) -> int:
    """Return the memory that the largest allowed picture takes while it is decoded."""
    return BYTES_PER_PIXEL * settings.max_image_pixels
