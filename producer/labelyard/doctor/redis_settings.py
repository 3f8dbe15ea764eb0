"""Settings and state of a Redis server that endanger jobs, read with INFO and CONFIG GET."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from labelyard.doctor import redis_kinds as kinds
from labelyard.doctor.report import Finding
from labelyard.doctor.servers import RedisRole
from labelyard.doctor.settings import DoctorSettings

CONFIG_NAMES: Final = ("maxmemory-policy", "appendonly", "appendfsync", "save", "timeout")
#: Part of maxmemory, and of the connections, past which an operator should act.
HIGH_SHARE: Final = 0.7
FULL_SHARE: Final = 0.95
#: A machine below that is soon full.
SMALL_MACHINE_BYTES: Final = 16 * 2**30
MIB: Final = 2**20
OLDEST_VERSION: Final = (6, 2)
WAITAOF_VERSION: Final = (7, 2)
#: With appendfsync everysec the wait for one write takes up to a second.
EVERYSEC_WAIT_S: Final = 1.5


@dataclass(frozen=True)
class RedisInstance:
    """One Redis server, with all roles that it has for labelyard.

    Attributes:
        info: Fields of INFO.
        config: Settings by name, those that CONFIG GET returned; empty if it is forbidden.
    """

    roles: tuple[RedisRole, ...]
    info: Mapping[str, Any]
    config: Mapping[str, str]

    @property
    def name(self) -> str:
        """Address and roles, as the subject of a sentence."""
        host = self.roles[0].place.partition("/")[0]
        return f"Redis at {host} ({', '.join(role.name for role in self.roles)})"

    @property
    def keeps_jobs(self) -> bool:
        """Whether it is more than the cache of embeddings."""
        return any(role.keeps_jobs for role in self.roles)

    def has_role(self, name: str) -> bool:
        """Return whether it is the ledger, or the broker."""
        return any(role.name == name for role in self.roles)

    @property
    def version(self) -> tuple[int, ...]:
        """Version of Redis that it is compatible with."""
        parts = str(self.info.get("redis_version", "")).split(".")
        return tuple(int(part) for part in parts if part.isdigit())

    def number(self, name: str) -> int:
        """Return a number of INFO; 0 if it is missing."""
        try:
            return int(self.info.get(name, 0))
        except (TypeError, ValueError):
            return 0

    @property
    def policy(self) -> str:
        """Eviction policy; empty if unknown."""
        known = self.config.get("maxmemory-policy") or self.info.get("maxmemory_policy")
        return str(known or "")


def read_instances(clients: Mapping[RedisRole, "redis.Redis"]) -> list[RedisInstance]:
    """Read INFO and a few settings of each server, once for all roles that it has."""
    found: dict[str, RedisInstance] = {}
    for role, client in clients.items():
        info = read_info(client)
        identity = str(info.get("run_id") or role.place.partition("/")[0])
        roles: Sequence[RedisRole] = found[identity].roles if identity in found else ()
        config = found[identity].config if identity in found else read_config(client)
        found[identity] = RedisInstance((*roles, role), info, config)
    return list(found.values())


def read_info(client: "redis.Redis") -> dict[str, Any]:
    """Read INFO; empty if the user may not."""
    try:
        info: Any = client.info()
    except RedisError:
        return {}
    return dict(info)


def read_config(client: "redis.Redis") -> dict[str, str]:
    """Read the settings one by one: managed servers forbid some, or CONFIG as a whole."""
    config: dict[str, str] = {}
    for name in CONFIG_NAMES:
        try:
            answer: Any = client.config_get(name)
        except RedisError:
            continue
        config |= {key: str(value) for key, value in dict(answer).items()}
    return config


def check_instance(instance: RedisInstance, settings: DoctorSettings) -> Iterator[Finding]:
    """Find settings and states of one server that endanger jobs."""
    if not instance.info:
        yield kinds.REDIS_INFO_HIDDEN.at(server=instance.name)
    if instance.keeps_jobs:
        missing = [name for name in CONFIG_NAMES if name not in instance.config]
        if missing:
            yield kinds.REDIS_CONFIG_HIDDEN.at(server=instance.name, names=", ".join(missing))
        if instance.info:
            yield from check_kind_of_server(instance)
            yield from check_persistence(instance)
        yield from check_eviction(instance)
        yield from check_memory(instance)
        yield from check_connections(instance)
        if instance.has_role("ledger"):
            yield from check_durable_writes(instance, settings)
    yield from check_sharing(instance)


def check_kind_of_server(instance: RedisInstance) -> Iterator[Finding]:
    """Find servers that are too old, replicas, or members of a cluster."""
    values: dict[str, Any] = {
        "server": instance.name,
        "version": instance.info.get("redis_version", "?"),
    }
    if instance.version and instance.version < OLDEST_VERSION:
        yield kinds.REDIS_TOO_OLD.at(**values)
    if instance.number("cluster_enabled") or instance.info.get("redis_mode") == "cluster":
        yield kinds.REDIS_CLUSTER.at(**values)
    if instance.info.get("role") == "slave":
        host, port = instance.info.get("master_host", "?"), instance.info.get("master_port", "?")
        settings = " and ".join(role.setting for role in instance.roles if role.keeps_jobs)
        yield kinds.REDIS_REPLICA.at(**values, primary=f"{host}:{port}", settings=settings)


def check_persistence(instance: RedisInstance) -> Iterator[Finding]:
    """Find servers that lose records when they end."""
    info, config, server = instance.info, instance.config, instance.name
    if "aof_enabled" not in info:
        return
    if not instance.number("aof_enabled"):
        snapshots = config.get("save")
        if snapshots == "":
            is_ledger = instance.has_role("ledger")
            kind = kinds.LEDGER_NOT_PERSISTENT if is_ledger else kinds.BROKER_NOT_PERSISTENT
            yield kind.at(server=server)
        else:
            yield kinds.REDIS_SNAPSHOTS_ONLY.at(server=server, save=snapshots or "unknown")
    elif config.get("appendfsync") == "no":
        yield kinds.REDIS_NO_FSYNC.at(server=server)
    states = ("aof_last_write_status", "rdb_last_bgsave_status")
    if failed := [name for name in states if info.get(name, "ok") != "ok"]:
        yield kinds.REDIS_DISK_FAILS.at(server=server, state=f"{failed[0]} is {info[failed[0]]}")


def check_eviction(instance: RedisInstance) -> Iterator[Finding]:
    """Find servers that evict records, or will."""
    if not instance.policy or instance.policy == "noeviction":
        return
    values: dict[str, Any] = {"server": instance.name, "policy": instance.policy}
    if instance.number("maxmemory"):
        evicted = instance.number("evicted_keys")
        yield kinds.REDIS_EVICTS.at(**values, evicted=evicted)
    else:
        yield kinds.REDIS_WOULD_EVICT.at(**values)


def check_memory(instance: RedisInstance) -> Iterator[Finding]:
    """Find servers that are nearly full, or that have no limit on a small machine."""
    limit, used = instance.number("maxmemory"), instance.number("used_memory")
    machine = instance.number("total_system_memory")
    values: dict[str, Any] = {
        "server": instance.name,
        "used_mib": used / MIB,
        "limit_mib": limit / MIB,
    }
    if limit:
        share = used / limit
        if share > HIGH_SHARE:
            kind = kinds.REDIS_FULL if share > FULL_SHARE else kinds.REDIS_MEMORY_HIGH
            yield kind.at(**values, percent=100 * share)
    elif 0 < machine < SMALL_MACHINE_BYTES:
        yield kinds.REDIS_UNBOUNDED.at(**values, machine_gib=machine / 2**30)


def check_connections(instance: RedisInstance) -> Iterator[Finding]:
    """Find servers that drop idle connections, or have few left."""
    seconds = instance.config.get("timeout", "0")
    if seconds.isdigit() and int(seconds):
        yield kinds.REDIS_DROPS_IDLE.at(server=instance.name, seconds=seconds)
    most, now = instance.number("maxclients"), instance.number("connected_clients")
    if most and now > HIGH_SHARE * most:
        yield kinds.REDIS_CONNECTIONS_HIGH.at(server=instance.name, now=now, most=most)


def check_durable_writes(instance: RedisInstance, settings: DoctorSettings) -> Iterator[Finding]:
    """Find ledgers that cannot keep the promise of LABELYARD_DURABLE_WRITES."""
    server, fsync = instance.name, instance.config.get("appendfsync")
    match settings.durable_writes:
        case "fsync" if instance.version and instance.version < WAITAOF_VERSION:
            yield kinds.DURABLE_WITHOUT_WAITAOF.at(
                server=server, version=instance.info["redis_version"]
            )
        case "fsync" if "aof_enabled" in instance.info and not instance.number("aof_enabled"):
            yield kinds.DURABLE_WITHOUT_FILE.at(server=server)
        case "fsync" if fsync == "no":
            yield kinds.DURABLE_WITHOUT_FSYNC.at(server=server)
        case "fsync" if fsync == "everysec" and settings.durable_timeout_s < EVERYSEC_WAIT_S:
            yield kinds.DURABLE_TIMEOUT_SHORT.at(seconds=settings.durable_timeout_s)
        case "replica" if instance.number("connected_slaves") < settings.durable_replicas:
            yield kinds.DURABLE_WITHOUT_REPLICAS.at(
                server=server,
                replicas=instance.number("connected_slaves"),
                wanted=settings.durable_replicas,
            )


def check_sharing(instance: RedisInstance) -> Iterator[Finding]:
    """Find roles that should not share a database, or a server."""
    by_name = {role.name: role for role in instance.roles}
    ledger, broker = by_name.get("ledger"), by_name.get("broker")
    if ledger and broker and ledger.database == broker.database:
        yield kinds.REDIS_DATABASE_SHARED.at(place=ledger.place)
    if len(instance.roles) > 1 and not all(role.keeps_jobs for role in instance.roles):
        yield kinds.EMBEDDINGS_SHARE_SERVER.at(server=instance.name)
