"""Kinds of findings about the settings and the state of a Redis server."""

from typing import Final

from labelyard.doctor.report import FindingKind, Severity

REDIS_INFO_HIDDEN: Final = FindingKind(
    "redis_info_hidden",
    "redis",
    Severity.UNCHECKED,
    "{server}: version, role, memory and persistence could not be checked, INFO is refused.",
    "Give the user the right with +info, or check them in the provider's console.",
)
REDIS_CONFIG_HIDDEN: Final = FindingKind(
    "redis_config_hidden",
    "redis",
    Severity.UNCHECKED,
    "{server}: {names} could not be checked, CONFIG GET is refused or does not know them.",
    "Look them up in the provider's console: maxmemory-policy noeviction, appendonly yes, "
    "appendfsync everysec or always, timeout 0; or give the user +config|get.",
)
REDIS_TOO_OLD: Final = FindingKind(
    "redis_too_old",
    "redis",
    Severity.SERIOUS,
    "{server} is of version {version}; labelyard needs Redis 6.2, or Valkey.",
    "Upgrade the server to Redis 7.2 or newer, or to Valkey.",
)
REDIS_CLUSTER: Final = FindingKind(
    "redis_cluster",
    "redis",
    Severity.SERIOUS,
    "{server} runs in cluster mode, in which labelyard's scripts and Celery do not work.",
    "Use a server with cluster-enabled no, or a primary with replicas and Sentinel.",
)
REDIS_REPLICA: Final = FindingKind(
    "redis_replica",
    "redis",
    Severity.SERIOUS,
    "{server} is a replica of {primary}: it refuses writes, or loses them.",
    "Set {settings} to the address of the primary, {primary}.",
)
LEDGER_NOT_PERSISTENT: Final = FindingKind(
    "ledger_not_persistent",
    "redis",
    Severity.SERIOUS,
    "{server} keeps nothing on disk (appendonly no, save empty): all jobs are lost when it ends.",
    "Run CONFIG SET appendonly yes, and CONFIG REWRITE, or set appendonly yes in its file.",
)
BROKER_NOT_PERSISTENT: Final = FindingKind(
    "broker_not_persistent",
    "redis",
    Severity.WARNING,
    "{server} keeps nothing on disk (appendonly no, save empty): when it ends, each queued "
    "job waits until the reconciler publishes it again.",
    "Run CONFIG SET appendonly yes, and CONFIG REWRITE, or set appendonly yes in its file.",
)
REDIS_SNAPSHOTS_ONLY: Final = FindingKind(
    "redis_snapshots_only",
    "redis",
    Severity.WARNING,
    "{server} has no append-only file, only snapshots (save {save}): what came after the last "
    "one is lost when it ends.",
    "Run CONFIG SET appendonly yes, and CONFIG REWRITE, or set appendonly yes in its file.",
)
REDIS_NO_FSYNC: Final = FindingKind(
    "redis_no_fsync",
    "redis",
    Severity.WARNING,
    "{server} has appendfsync no: about 30 s of writes are lost when its machine fails.",
    "Run CONFIG SET appendfsync everysec, or always for a ledger that may lose no accepted job.",
)
REDIS_DISK_FAILS: Final = FindingKind(
    "redis_disk_fails",
    "redis",
    Severity.SERIOUS,
    "{server} cannot write to its disk: {state}.",
    "Free space on its disk, look at its log, then run BGREWRITEAOF or BGSAVE.",
)
REDIS_EVICTS: Final = FindingKind(
    "redis_evicts",
    "redis",
    Severity.SERIOUS,
    "{server} has maxmemory-policy {policy}: when it is full it evicts jobs ({evicted} keys "
    "were evicted so far).",
    "Run CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE.",
)
REDIS_WOULD_EVICT: Final = FindingKind(
    "redis_would_evict",
    "redis",
    Severity.WARNING,
    "{server} has maxmemory-policy {policy}: as soon as a maxmemory is set it evicts jobs.",
    "Run CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE.",
)
REDIS_FULL: Final = FindingKind(
    "redis_full",
    "redis",
    Severity.SERIOUS,
    "{server} uses {used_mib:.0f} of {limit_mib:.0f} MiB ({percent:.0f} % of maxmemory): it "
    "refuses new jobs, or is about to.",
    "Raise maxmemory, start workers, or lower LABELYARD_RESULT_TTL_S so that results go earlier.",
)
REDIS_MEMORY_HIGH: Final = FindingKind(
    "redis_memory_high",
    "redis",
    Severity.WARNING,
    "{server} uses {used_mib:.0f} of {limit_mib:.0f} MiB ({percent:.0f} % of maxmemory).",
    "Raise maxmemory, lower LABELYARD_RESULT_TTL_S, or bound the queue with "
    "LABELYARD_MAX_QUEUED_IMAGES.",
)
REDIS_UNBOUNDED: Final = FindingKind(
    "redis_unbounded",
    "redis",
    Severity.ADVICE,
    "{server} has maxmemory 0 on a machine of {machine_gib:.0f} GiB: if memory runs out, the "
    "kernel ends it.",
    "Run CONFIG SET maxmemory with about half of the machine's memory; producers then get an "
    "error in time.",
)
REDIS_DROPS_IDLE: Final = FindingKind(
    "redis_drops_idle",
    "redis",
    Severity.WARNING,
    "{server} drops connections that are idle for {seconds} s (timeout): workers reconnect "
    "again and again.",
    "Run CONFIG SET timeout 0.",
)
REDIS_CONNECTIONS_HIGH: Final = FindingKind(
    "redis_connections_high",
    "redis",
    Severity.WARNING,
    "{server} has {now} of at most {most} connections.",
    "Run CONFIG SET maxclients with a larger number, or look for clients that leak them: "
    "CLIENT LIST.",
)
DURABLE_WITHOUT_WAITAOF: Final = FindingKind(
    "durable_without_waitaof",
    "redis",
    Severity.SERIOUS,
    "LABELYARD_DURABLE_WRITES is fsync, and {server} is of version {version}, which has no "
    "WAITAOF: no worker starts.",
    "Upgrade it to Redis 7.2 or Valkey, or set LABELYARD_DURABLE_WRITES to off and appendfsync to "
    "always.",
)
DURABLE_WITHOUT_FILE: Final = FindingKind(
    "durable_without_file",
    "redis",
    Severity.SERIOUS,
    "LABELYARD_DURABLE_WRITES is fsync, and {server} has no append-only file: no worker starts.",
    "Run CONFIG SET appendonly yes, and CONFIG REWRITE.",
)
DURABLE_WITHOUT_FSYNC: Final = FindingKind(
    "durable_without_fsync",
    "redis",
    Severity.SERIOUS,
    "LABELYARD_DURABLE_WRITES is fsync, and {server} has appendfsync no: submits wait in vain "
    "and fail.",
    "Run CONFIG SET appendfsync everysec, or always.",
)
DURABLE_TIMEOUT_SHORT: Final = FindingKind(
    "durable_timeout_short",
    "redis",
    Severity.WARNING,
    "LABELYARD_DURABLE_TIMEOUT_S is {seconds:g}, and with appendfsync everysec a write waits up to "
    "a second: submits fail at random.",
    "Set LABELYARD_DURABLE_TIMEOUT_S to 2.5 or more, or appendfsync to always.",
)
DURABLE_WITHOUT_REPLICAS: Final = FindingKind(
    "durable_without_replicas",
    "redis",
    Severity.SERIOUS,
    "LABELYARD_DURABLE_WRITES waits for {wanted} replicas, and {server} has {replicas}: "
    "submits fail.",
    "Attach replicas (REPLICAOF), or lower LABELYARD_DURABLE_REPLICAS.",
)
REDIS_DATABASE_SHARED: Final = FindingKind(
    "redis_database_shared",
    "redis",
    Severity.WARNING,
    "Ledger and broker share one database, {place}: an emptied broker (FLUSHDB) empties the ledger.",
    "Set LABELYARD_LEDGER_URL to another server, or at least to another database.",
)
EMBEDDINGS_SHARE_SERVER: Final = FindingKind(
    "embeddings_share_server",
    "redis",
    Severity.ADVICE,
    "{server} has jobs and cached embeddings, which take memory that jobs need.",
    "Give LABELYARD_EMBEDDINGS_URL a server of its own, with maxmemory-policy allkeys-lru.",
)
KINDS: Final = (
    REDIS_INFO_HIDDEN,
    REDIS_CONFIG_HIDDEN,
    REDIS_TOO_OLD,
    REDIS_CLUSTER,
    REDIS_REPLICA,
    LEDGER_NOT_PERSISTENT,
    BROKER_NOT_PERSISTENT,
    REDIS_SNAPSHOTS_ONLY,
    REDIS_NO_FSYNC,
    REDIS_DISK_FAILS,
    REDIS_EVICTS,
    REDIS_WOULD_EVICT,
    REDIS_FULL,
    REDIS_MEMORY_HIGH,
    REDIS_UNBOUNDED,
    REDIS_DROPS_IDLE,
    REDIS_CONNECTIONS_HIGH,
    DURABLE_WITHOUT_WAITAOF,
    DURABLE_WITHOUT_FILE,
    DURABLE_WITHOUT_FSYNC,
    DURABLE_TIMEOUT_SHORT,
    DURABLE_WITHOUT_REPLICAS,
    REDIS_DATABASE_SHARED,
    EMBEDDINGS_SHARE_SERVER,
)
