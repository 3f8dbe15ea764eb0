"""Decisions of the doctor that need no server: rights, old servers, contradictions, the machine."""

import re
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from docs.doctor_page import TITLES, all_kinds

from labelyard.doctor import DoctorSettings, FindingKind, Severity
from labelyard.doctor.examination import guarded, run_sections
from labelyard.doctor.permissions import (
    CONSUME_TRIALS,
    LEDGER_TRIALS,
    PUBLISH_TRIALS,
    TRACKING_COMMANDS,
)
from labelyard.doctor.redis_settings import RedisInstance, check_instance
from labelyard.doctor.servers import RedisRole
from labelyard.doctor.settings import check_variables, known_variables
from labelyard.ledger.scripts import SCRIPTS
from labelyard.settings import PREFIX
from labelyard_worker.operations.doctor import contradictions, machine
from labelyard_worker.operations.doctor.contradictions import RULES, check_worker_settings
from labelyard_worker.operations.doctor.machine import check_health_port, check_open_files
from labelyard_worker.operations.probe_server import ProbeServer
from labelyard_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
NOWHERE = Path("/nonexistent")
GIB = 2**30
# Settings that contradict each other, and nothing else, in the order of RULES.
BROKEN: dict[FindingKind, dict[str, Any]] = {
    contradictions.GUARDS_OFF: {"stock_celery": True},
    contradictions.CLAIM_NOT_ATOMIC: {"atomic_claim": False},
    contradictions.VISIBILITY_SHORT: {"visibility_timeout_s": 4},
    contradictions.DRAIN_EXCEEDS_HEARTBEAT: {"broker_url": "amqp://rabbit", "drain_s": 60},
    contradictions.WATCH_EXCEEDS_TIMEOUT: {"inference_timeout_s": 300},
    contradictions.IMAGE_EXCEEDS_JOB: {"image_timeout_s": 400},
    contradictions.STALL_BELOW_JOB: {"stall_s": 60},
    contradictions.OPEN_TTL_SHORT: {"open_ttl_s": 3600, "result_ttl_s": 3600},
    contradictions.ONE_ATTEMPT: {"max_attempts": 1},
    contradictions.BURIED_EARLY: {"quarantine_after": 1, "dead_after": 1},
    contradictions.NO_INTERACTIVE_SLOT: {"bulk_share": 1},
    contradictions.QUEUE_CAPACITY_SMALL: {"queue_capacity": 100},
    contradictions.FILE_EXCEEDS_BUFFER: {"max_fetched_bytes": 60_000_000},
    contradictions.PIXELS_EXCEED_MEMORY: {"max_child_memory_bytes": 200_000_000},
    contradictions.GRACE_EXCEEDS_FETCH: {"fetch_grace_s": 30},
    contradictions.WEBHOOKS_UNSIGNED: {"webhook_hosts": ("example.org",)},
    contradictions.HTTPS_WITHOUT_HOSTS: {"https_sources": True},
    contradictions.HTTPS_OFF: {"https_hosts": ("example.org",)},
    contradictions.COMPILER_MISSING: {"compile": True},
}


def codes(findings: Iterator[Any]) -> set[str]:
    return {one.code for one in findings}


@pytest.mark.parametrize("kind", list(RULES), ids=lambda kind: kind.code)
def test_a_contradiction_is_found_alone_and_names_its_settings(
    kind: FindingKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # no compiler
    settings = WorkerSettings(**BROKEN[kind])

    [finding] = check_worker_settings(settings, {}, root=NOWHERE)

    assert finding.code == kind.code
    named = re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", finding.found + finding.advice)
    assert named
    assert set(named) <= known_variables()


def test_the_defaults_contradict_nothing() -> None:
    assert list(check_worker_settings(WorkerSettings(), {}, root=NOWHERE)) == []


@pytest.mark.parametrize(
    ("environ", "option"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "terminationGracePeriodSeconds to 40"),
        ({"INVOCATION_ID": "1"}, None),  # systemd leaves 90 s
        ({}, None),
    ],
)
def test_a_drain_beyond_the_supervisors_default_is_advice(
    environ: dict[str, str], option: str | None
) -> None:
    found = list(check_worker_settings(WorkerSettings(), environ, root=NOWHERE))

    assert [one.severity for one in found] == ([Severity.ADVICE] if option else [])
    assert all(option and option in one.advice for one in found)


def test_each_command_of_the_scripts_is_tried() -> None:
    """A new command in a script needs a trial, or a user without it goes unnoticed."""
    called = re.compile(r"redis\.p?call\('(\w+)'")
    ledger = {name for text in SCRIPTS.values() for name in called.findall(text)}
    packages = [ROOT / "producer/labelyard", ROOT / "worker/labelyard_worker"]
    files = {path for one in packages for kind in ("py", "lua") for path in one.rglob(f"*.{kind}")}
    broker = {
        name
        for path in files - set((ROOT / "producer/labelyard/ledger").rglob("*"))
        for name in called.findall(path.read_text("utf-8"))
    }

    tried_first = {"SET", "DEL"}
    tried = {trial.call[0] for trial in LEDGER_TRIALS} | tried_first
    tried_broker = {trial.call[0] for trial in (*PUBLISH_TRIALS, *CONSUME_TRIALS)} | tried_first
    assert ledger - tried == set()
    assert broker - tried_broker == set()
    assert {"HGET", "ZADD"} <= ledger & broker


def test_the_commands_of_a_worker_that_waits_are_tried() -> None:
    channel = (ROOT / "worker/labelyard_worker/broker/channel.py").read_text("utf-8")

    sent = re.findall(r'"CLIENT"(?:, "[A-Z]+")+', channel)
    assert {tuple(re.findall("[A-Z]+", one)) for one in sent} == set(TRACKING_COMMANDS)


INFO = {
    "redis_version": "7.2.4",
    "aof_enabled": 1,
    "maxmemory": GIB,
    "used_memory": GIB // 10,
    "maxmemory_policy": "noeviction",
    "role": "master",
}
CONFIG = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "timeout": "0",
}
LEDGER = RedisRole("ledger", "LABELYARD_LEDGER_URL", "redis://ledger/0")
BROKER = RedisRole("broker", "LABELYARD_BROKER_URL", "redis://broker/0")


@pytest.mark.parametrize(
    ("code", "info", "config", "roles"),
    [
        ("redis_too_old", {"redis_version": "6.0.16"}, {}, (LEDGER,)),
        ("redis_cluster", {"cluster_enabled": 1}, {}, (LEDGER,)),
        ("redis_disk_fails", {"aof_last_write_status": "err"}, {}, (BROKER,)),
        ("broker_not_persistent", {"aof_enabled": 0}, {"appendonly": "no"}, (BROKER,)),
        ("redis_full", {"used_memory": 0.97 * GIB}, {}, (BROKER,)),
        ("redis_unbounded", {"maxmemory": 0, "total_system_memory": 4 * GIB}, {}, (LEDGER,)),
        ("redis_connections_high", {"maxclients": 100, "connected_clients": 80}, {}, (LEDGER,)),
    ],
)
def test_a_state_of_redis_that_tests_cannot_plant_is_found_alone(
    code: str, info: dict[str, Any], config: dict[str, str], roles: tuple[RedisRole, ...]
) -> None:
    instance = RedisInstance(roles, INFO | info, CONFIG | config)

    assert codes(check_instance(instance, DoctorSettings())) == {code}


def test_a_server_without_waitaof_cannot_make_writes_durable() -> None:
    instance = RedisInstance((LEDGER,), INFO | {"redis_version": "7.0.15"}, CONFIG)
    settings = DoctorSettings(durable_writes="fsync")

    [finding] = check_instance(instance, settings)

    assert finding.code == "durable_without_waitaof"
    assert "LABELYARD_DURABLE_WRITES" in finding.advice


def test_a_cache_of_embeddings_may_evict_and_forget() -> None:
    cache = RedisRole("cache of embeddings", "LABELYARD_EMBEDDINGS_URL", "redis://cache/0")
    info = INFO | {"maxmemory_policy": "allkeys-lru", "aof_enabled": 0, "used_memory": GIB}

    assert list(check_instance(RedisInstance((cache,), info, {}), DoctorSettings())) == []


def test_an_unlike_variable_is_to_be_removed_and_a_known_one_is_not_found() -> None:
    environ = {"LABELYARD_WHATEVER_THIS_IS": "1", "LABELYARD_CHECKPOINT": "lite", "PATH": "/bin"}

    [finding] = check_variables(environ, is_worker=True)

    assert finding.severity is Severity.SERIOUS  # a worker does not start
    assert "unset LABELYARD_WHATEVER_THIS_IS" in finding.advice


def test_a_port_that_another_program_has_is_found_and_a_workers_is_not() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with closing(ProbeServer({"/live": list}, host="127.0.0.1", port=0)) as probes:
            taken = list(check_health_port(WorkerSettings(health_port=port)))
            ours = list(check_health_port(WorkerSettings(health_port=probes.port)))

    assert [(one.code, one.severity) for one in taken] == [("health_port_taken", Severity.SERIOUS)]
    assert "LABELYARD_HEALTH_PORT" in taken[0].advice
    assert [one.severity for one in ours] == [Severity.OK]
    assert list(check_health_port(WorkerSettings(health_port=0))) == []


def test_too_few_open_files_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))

    [finding] = check_open_files(WorkerSettings())

    assert finding.code == "files_few"
    assert "ulimit -n 4096" in finding.advice


@pytest.mark.parametrize(("free_mib", "limit_mib"), [(300, None), (64_000, 300)])
def test_too_little_memory_is_found_on_the_machine_and_in_its_control_group(
    tmp_path: Path, free_mib: int, limit_mib: int | None
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {free_mib * 1024} kB\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n" if limit_mib is None else f"{limit_mib * 2**20}\n")
    (group / "memory.current").write_text("0\n")

    [finding] = machine.check_memory(WorkerSettings(), root=tmp_path)

    assert finding.found.startswith("300 MiB of memory are free")
    assert "LABELYARD_MAX_PIXELS_IN_FLIGHT_BYTES" in finding.advice


def test_a_check_that_raises_is_a_finding() -> None:
    def broken() -> Iterator[Any]:
        raise ValueError("redis://user:password@host is broken")
        yield

    [finding] = guarded("The broken part", broken)
    report = run_sections({"Another": broken}, time_limit_s=5, secrets=())

    assert finding.severity is Severity.UNCHECKED
    assert finding.found == (
        "The broken part could not be checked: ValueError: redis://host is broken."
    )
    assert [one.code for one in report.findings] == ["check_failed"]
    assert report.exit_code == 0


def test_every_kind_has_a_code_of_its_own_a_remedy_and_a_table() -> None:
    kinds = all_kinds()

    assert len({one.code for one in kinds}) == len(kinds)
    assert {one.group for one in kinds} == set(TITLES)
    assert [one.code for one in kinds if not one.advice and one.severity is not Severity.OK] == []
    assert [one.code for one in kinds if not one.found.endswith(".")] == []
