"""The doctor finds each planted fault, and nothing else; a sound installation has no finding."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labelyard.cli import app
from labelyard.doctor import Severity
from labelyard.doctor.examination import secrets_in
from labelyard.queues import Queue, queue_name
from labelyard_worker.local.servers import ValkeyServer
from tests.conftest import SESSION_SERVERS
from tests.support.installation import (
    PASSWORD,
    READER,
    Installation,
    Servers,
    aws_variables,
    faults_in,
    running_servers,
    sound_installation,
)

SERIOUS, WARNING, ADVICE, UNCHECKED = (
    Severity.SERIOUS,
    Severity.WARNING,
    Severity.ADVICE,
    Severity.UNCHECKED,
)
Plant = Callable[[Installation], Any]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Run the servers that the tests of this file share."""
    with running_servers(tmp_path_factory.mktemp("doctor")) as running:
        SESSION_SERVERS.extend((running.valkey, running.seaweed))
        yield running
        SESSION_SERVERS.remove(running.valkey)
        SESSION_SERVERS.remove(running.seaweed)


@pytest.fixture
def installation(servers: Servers) -> Iterator[Installation]:
    """A sound installation with one worker."""
    with sound_installation(servers) as sound:
        yield sound


@dataclass(frozen=True)
class Fault:
    """A fault with its finding.

    Attributes:
        advice: Words of the advice: a setting, or a command.
        others: Findings that the same fault also causes.
    """

    code: str
    severity: Severity
    plant: Plant
    advice: str
    others: frozenset[str] = field(default_factory=frozenset)


def settings(**values: Any) -> Plant:
    """Plant settings."""
    return lambda one: one.settings.update(values)


def config(**values: object) -> Plant:
    """Plant settings of the Valkey."""
    return lambda one: one.configure(**values)


def environ(**values: str) -> Plant:
    """Plant variables of the environment."""
    return lambda one: one.environ.update(values)


def user(role: str, *rules: str) -> Plant:
    """Plant a user of the Valkey with some rights."""
    return lambda one: one.log_in_as(role, *rules)


def options(**values: Any) -> Plant:
    """Plant arguments of the examination."""
    return lambda one: one.options.update(values)


def both(*plants: Plant) -> Plant:
    """Plant several causes of one fault."""
    return lambda one: [plant(one) for plant in plants]


def fill(share: float) -> Plant:
    """Set maxmemory so that the Valkey is full to a share."""

    def plant(one: Installation) -> None:
        used: Any = one.admin.info("memory")
        one.configure(maxmemory=int(used["used_memory"] / share))

    return plant


def replicate(one: Installation) -> None:
    """Make the Valkey a replica of a server that is away."""
    one.admin.execute_command("REPLICAOF", "127.0.0.1", free_port())


def wrong_password(one: Installation) -> None:
    """Log in with another password than the user's."""
    one.log_in_as("ledger", "+@all", "~*", "&*")
    one.settings["ledger_url"] = one.settings["ledger_url"].replace(PASSWORD, "wrong-password")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def behind(seconds: float) -> Callable[[], float]:
    """Return a clock that is wrong."""
    return lambda: time.time() - seconds


def nowhere(one: Installation) -> None:
    """Point the broker to a port that nobody listens on."""
    one.settings["broker_url"] = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0"


def storage_away(one: Installation) -> None:
    """Point S3 to a port that nobody listens on."""
    one.settings["s3_endpoint_url"] = f"http://127.0.0.1:{free_port()}"


def no_worker(one: Installation) -> None:
    """Forget the worker."""
    one.admin.flushall()


def misspelt_namespace(one: Installation) -> None:
    """Have a worker in another namespace than the producer's."""
    one.admin.flushall()
    one.add_worker("theirs", namespace="labelyrad")


def idle_queue(one: Installation) -> None:
    """Queue messages that no worker takes."""
    one.admin.lpush(queue_name("labelyard", Queue.BULK), "a", "b")


def worker(name: str = "second", **details: object) -> Plant:
    """Plant a second worker, or another first."""
    return lambda one: one.add_worker(name, **details)


FAULTS = [
    # Servers.
    Fault("redis_unreachable", SERIOUS, nowhere, "set LABELYARD_BROKER_URL"),
    Fault("redis_login_refused", SERIOUS, wrong_password, "Set LABELYARD_LEDGER_URL"),
    Fault(
        "redis_database_refused",
        SERIOUS,
        lambda one: one.settings.update(ledger_url=one.servers.valkey.url_of(99)),
        "Set LABELYARD_LEDGER_URL",
    ),
    Fault(
        "embeddings_unreachable",
        WARNING,
        lambda one: one.settings.update(embeddings_url=f"redis://127.0.0.1:{free_port()}"),
        "LABELYARD_EMBEDDINGS_URL",
    ),
    # Settings of Redis.
    Fault(
        "redis_evicts",
        SERIOUS,
        config(maxmemory_policy="allkeys-lru"),
        "CONFIG SET maxmemory-policy noeviction",
    ),
    Fault(
        "redis_would_evict",
        WARNING,
        config(maxmemory_policy="volatile-ttl", maxmemory=0),
        "CONFIG SET maxmemory-policy noeviction",
        frozenset({"redis_unbounded"}),
    ),
    Fault("ledger_not_persistent", SERIOUS, config(appendonly="no"), "CONFIG SET appendonly yes"),
    Fault(
        "redis_snapshots_only",
        WARNING,
        config(appendonly="no", save="3600 1"),
        "CONFIG SET appendonly yes",
    ),
    Fault("redis_no_fsync", WARNING, config(appendfsync="no"), "CONFIG SET appendfsync everysec"),
    Fault("redis_memory_high", WARNING, fill(0.8), "LABELYARD_RESULT_TTL_S"),
    Fault("redis_drops_idle", WARNING, config(timeout=20), "CONFIG SET timeout 0"),
    Fault("redis_replica", SERIOUS, replicate, "LABELYARD_LEDGER_URL and LABELYARD_BROKER_URL"),
    Fault(
        "redis_database_shared",
        WARNING,
        lambda one: one.settings.update(broker_url=one.settings["ledger_url"]),
        "Set LABELYARD_LEDGER_URL",
    ),
    Fault(
        "embeddings_share_server",
        ADVICE,
        lambda one: one.settings.update(embeddings_url=one.servers.valkey.url_of(2)),
        "LABELYARD_EMBEDDINGS_URL",
    ),
    Fault(
        "durable_without_fsync",
        SERIOUS,
        both(settings(durable_writes="fsync"), config(appendfsync="no")),
        "CONFIG SET appendfsync everysec",
        frozenset({"redis_no_fsync"}),
    ),
    Fault(
        "durable_without_file",
        SERIOUS,
        both(settings(durable_writes="fsync"), config(appendonly="no")),
        "CONFIG SET appendonly yes",
        frozenset({"ledger_not_persistent"}),
    ),
    Fault(
        "durable_timeout_short",
        WARNING,
        settings(durable_writes="fsync", durable_timeout_s=0.5),
        "LABELYARD_DURABLE_TIMEOUT_S to 2.5",
    ),
    Fault(
        "durable_without_replicas",
        SERIOUS,
        settings(durable_writes="replica"),
        "LABELYARD_DURABLE_REPLICAS",
    ),
    # Rights.
    Fault(
        "commands_refused",
        SERIOUS,
        user("ledger", "+@all", "-evalsha", "-subscribe", "~*", "&*"),
        "ACL SETUSER ledger-user +evalsha +subscribe +unsubscribe",
    ),
    Fault(
        "commands_refused",
        SERIOUS,
        user("ledger", "+@all", "~another:*", "&*"),
        "ACL SETUSER ledger-user ~labelyard:*",
        frozenset({"check_failed"}),  # its fleet cannot be read
    ),
    Fault(
        "commands_refused",
        SERIOUS,
        both(
            user("ledger", "+@all", "-waitaof", "~*", "&*"),
            settings(durable_writes="fsync"),
        ),
        "+waitaof",
    ),
    Fault(
        "worker_commands_refused",
        WARNING,
        user("broker", "+@all", "-client|tracking", "-rpop", "~*", "&*"),
        "ACL SETUSER broker-user +client|tracking +client|caching +rpop",
    ),
    Fault(
        "redis_config_hidden",
        UNCHECKED,
        both(
            user("ledger", "+@all", "-config", "~*", "&*"),
            user("broker", "+@all", "-config", "~*", "&*"),
        ),
        "maxmemory-policy noeviction",
    ),
    # Object storage.
    Fault("s3_unreachable", SERIOUS, storage_away, "LABELYARD_S3_ENDPOINT_URL"),
    Fault(
        "s3_credentials_refused",
        SERIOUS,
        environ(AWS_SECRET_ACCESS_KEY="wrong-secret"),
        "AWS_SECRET_ACCESS_KEY",
    ),
    Fault(
        "s3_bucket_missing",
        SERIOUS,
        settings(result_buckets=("no-such-bucket",)),
        "LABELYARD_RESULT_BUCKETS",
    ),
    Fault(
        "s3_bucket_missing",
        SERIOUS,
        settings(allowed_buckets=("no-such-bucket",)),
        "LABELYARD_ALLOWED_BUCKETS",
    ),
    Fault(
        "s3_upload_bucket_new",
        ADVICE,
        settings(upload_bucket="not-yet-here"),
        "LABELYARD_UPLOAD_BUCKET",
    ),
    Fault(
        "s3_write_refused",
        SERIOUS,
        environ(AWS_ACCESS_KEY_ID=READER["accessKey"], AWS_SECRET_ACCESS_KEY=READER["secretKey"]),
        "s3:PutObject",
    ),
    Fault(
        "s3_config_refused",
        SERIOUS,
        settings(s3_endpoint_url="nonsense"),
        "LABELYARD_S3_ENDPOINT_URL",
    ),
    # Clocks.
    Fault("clock_differs", WARNING, options(clock=behind(30)), "timedatectl set-ntp true"),
    Fault(
        "clock_breaks_signatures",
        SERIOUS,
        options(clock=behind(-3600)),
        "timedatectl set-ntp true",
        frozenset({"clock_differs"}),
    ),
    # The fleet.
    Fault("no_workers", SERIOUS, no_worker, "labelyard-worker start"),
    Fault(
        "workers_elsewhere",
        WARNING,
        misspelt_namespace,
        "Set LABELYARD_NAMESPACE",
        frozenset({"no_workers"}),
    ),
    Fault(
        "mixed_checkpoints",
        SERIOUS,
        worker(checkpoint="clip", fingerprint="sha256:clip"),
        "LABELYARD_CHECKPOINT",
    ),
    Fault("mixed_dtypes", WARNING, worker(dtype="bfloat16"), "LABELYARD_DTYPE"),
    Fault("mixed_versions", ADVICE, worker(version="0.2.0"), "pip install the same version"),
    Fault("no_ready_worker", WARNING, worker("first", state="draining"), "logs"),
    Fault(
        "start_takes_long",
        WARNING,
        worker(state="starting"),
        "labelyard-worker doctor",
    ),
    Fault(
        "breakers_open",
        WARNING,
        worker(open_breakers=("fetch s3://away",), open_breaker_count=1),
        "servers and their credentials",
    ),
    Fault("queue_stands_still", SERIOUS, idle_queue, "LABELYARD_BROKER_URL"),
    # Settings of labelyard.
    Fault(
        "variable_unknown",
        WARNING,
        environ(LABELYARD_LEDGER_URI="redis://ledger"),
        "Write LABELYARD_LEDGER_URL.",
    ),
    Fault(
        "results_outlive_index",
        WARNING,
        settings(result_ttl_s=86_400, open_ttl_s=3_600),
        "Set LABELYARD_OPEN_TTL_S",
    ),
    Fault(
        "queue_shorter_than_job",
        WARNING,
        settings(max_queued_images=10),
        "Set LABELYARD_MAX_QUEUED_IMAGES to at least 64",
    ),
]


def test_a_sound_installation_has_no_finding(installation: Installation) -> None:
    report = installation.examine()

    assert faults_in(report) == {}
    assert report.exit_code == 0
    assert {one.code for one in report.findings} >= {
        "redis_reached",
        "s3_bucket_usable",
        "clock_agrees",
        "fleet_lives",
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: f"{one.code}-{one.advice[:20]}")
def test_a_planted_fault_is_found_alone_with_its_remedy(
    installation: Installation, fault: Fault
) -> None:
    if not fault.code.startswith(("s3", "clock")):
        installation.environ.clear()  # opening a client of S3 takes most of an examination
    fault.plant(installation)

    report = installation.examine()

    found = faults_in(report)
    assert set(found) - fault.others == {fault.code}
    assert found[fault.code].severity is fault.severity
    assert fault.advice in found[fault.code].advice
    assert report.exit_code == any(one.severity is SERIOUS for one in found.values())


class ValkeyWithoutClient(ValkeyServer):
    """Valkey that knows no CLIENT command, as proxies do not."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--rename-command", "CLIENT", "OFF"]


def test_a_server_without_client_tracking_is_found(
    installation: Installation, tmp_path: Path
) -> None:
    installation.environ.clear()
    with ValkeyWithoutClient(tmp_path / "proxied") as proxied:
        installation.settings["broker_url"] = proxied.url_of(0)
        found = faults_in(installation.examine())
        installation.settings["atomic_claim"] = False
        without = faults_in(installation.examine())

    assert found["client_tracking_unsupported"].severity is SERIOUS
    assert "LABELYARD_ATOMIC_CLAIM=0" in found["client_tracking_unsupported"].advice
    assert "client_tracking_unsupported" not in without


def test_a_server_that_never_answers_does_not_hold_up_the_report(
    installation: Installation,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        installation.settings["ledger_url"] = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        installation.options["time_limit_s"] = 0.5
        installation.environ = {"LABELYARD_TYPO": "1"}
        report = installation.examine()

    assert faults_in(report)["check_unfinished"].severity is UNCHECKED
    assert "--time-limit-s" in faults_in(report)["check_unfinished"].advice
    assert "variable_unknown" in faults_in(report)


def test_nothing_that_the_doctor_writes_stays(installation: Installation) -> None:
    before = sorted(everything_in(installation))

    installation.examine()

    assert sorted(everything_in(installation)) == before


def everything_in(one: Installation) -> list[str]:
    """List all keys of the Valkey, and all objects of the buckets."""
    keys = []
    for database in range(3):
        one.admin.execute_command("SELECT", database)
        keys += [f"{database}:{key}" for key in one.admin.scan_iter()]
    with closing(one.servers.seaweed.s3_client()) as s3:
        for bucket in s3.list_buckets()["Buckets"]:
            listed = s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
            keys += [f"{bucket['Name']}/{found['Key']}" for found in listed]
    return keys


def test_no_sentence_holds_a_password_or_a_secret(installation: Installation) -> None:
    wrong_password(installation)
    nowhere(installation)
    installation.environ |= {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}

    report = installation.examine()

    text = json.dumps(report.fields())
    assert report.exit_code == 1
    assert not any(secret in text for secret in (PASSWORD, "wrong-password", "wrong-secret"))


def test_a_secret_in_a_servers_words_is_redacted(installation: Installation) -> None:
    installation.settings["ledger_url"] = "redis://user:of%40fice@127.0.0.1/0"
    from labelyard.doctor import DoctorReport, DoctorSettings
    from labelyard.doctor.examination import CHECK_FAILED

    secrets = secrets_in(DoctorSettings(**installation.settings), installation.environ)
    finding = CHECK_FAILED.at(what="It", why="of@fice is no password, of%40fice neither")

    [redacted] = DoctorReport.of([finding], seconds=0, secrets=secrets).findings
    assert redacted.found == "It could not be checked: *** is no password, *** neither."


def test_the_command_prints_serious_faults_first_and_exits_with_1(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.configure(maxmemory_policy="allkeys-lru", timeout=20)
    installation.environ.clear()
    for name in ("broker_url", "ledger_url"):
        monkeypatch.setenv(f"LABELYARD_{name.upper()}", installation.settings[name])

    with aws_variables(installation.environ):
        for_people = CliRunner().invoke(app, ["doctor"])
        for_programs = CliRunner().invoke(app, ["doctor", "--json"])
        installation.restore()
        installation.add_worker("first")
        sound = CliRunner().invoke(app, ["doctor"])

    assert (for_people.exit_code, for_programs.exit_code, sound.exit_code) == (1, 1, 0)
    first, second = (for_people.stdout.find(code) for code in ("redis_evicts", "redis_drops_idle"))
    assert 0 < first < second
    report = json.loads(for_programs.stdout)
    assert report["is_sound"] is False
    assert report["counts"]["serious"] == 1
    assert report["findings"][0]["code"] == "redis_evicts"
    assert "→" not in sound.stdout


def test_a_setting_that_is_refused_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELYARD_LEDGER_URL", "valkey://ledger")

    result = CliRunner().invoke(app, ["doctor", "--json"])

    [finding] = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert finding["code"] == "setting_refused"
    assert "LABELYARD_LEDGER_URL" in finding["found"]
    assert "LABELYARD_LEDGER_URL" in os.environ
