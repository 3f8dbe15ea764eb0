"""The deployment files: docker-compose.yml, deploy/Dockerfile, .env.example and the CI workflow."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from ruamel.yaml import YAML

from labelyard.settings import PREFIX, ClientSettings, unknown_variables
from labelyard_worker import cli
from labelyard_worker.local.servers import ValkeyServer, weed_binary
from labelyard_worker.local.stack import BUCKETS
from labelyard_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
SECRETS = {
    "VALKEY_PASSWORD": "not-so-secret",
    "AWS_ACCESS_KEY_ID": "labelyard",
    "AWS_SECRET_ACCESS_KEY": "also-not",
}


def interpolated(text: str) -> str:
    """Put in what docker compose would: the secrets, and the defaults of all else."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if kind == ":?":
            return SECRETS[name]
        return str(rest)

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)


def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = YAML(typ="safe").load(interpolated(text))
    return loaded


SERVICES: dict[str, dict[str, Any]] = compose()["services"]
WORKERS = {
    name: service
    for name, service in SERVICES.items()
    if service["image"].startswith("labelyard-worker:")
}


def read_yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return loaded


def prometheus() -> dict[str, Any]:
    return read_yaml(ROOT / "deploy/prometheus/prometheus.yml")


def scrape_jobs() -> dict[str, dict[str, Any]]:
    return {job["job_name"]: job for job in prometheus()["scrape_configs"]}


def example_variables(*, active_only: bool = False) -> dict[str, str]:
    """Read .env.example, what is commented out included."""
    prefix = "" if active_only else "#?"
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(rf"^{prefix}([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


@pytest.mark.parametrize(
    ("schema", "file"),
    [("compose-spec", "docker-compose.yml"), ("github-workflows", ".github/workflows/ci.yml")],
)
def test_file_follows_its_published_schema(schema: str, file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]

    checked = subprocess.run(
        [*command, file], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def workflow() -> dict[str, Any]:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = YAML(typ="safe").load(text)
    return loaded


def test_workflow_runs_our_checks_on_every_python_that_is_classified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    job = workflow()["jobs"]["check"]

    assert job["strategy"]["matrix"]["python"] == classified
    assert project["requires-python"] == f">={classified[0]}"
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


def test_workflow_may_only_read_is_bounded_and_gives_way_to_a_newer_push() -> None:
    loaded = workflow()

    assert loaded["permissions"] == {"contents": "read"}
    assert loaded["concurrency"]["cancel-in-progress"] is True
    assert all(job["timeout-minutes"] <= 60 for job in loaded["jobs"].values())
    assert not any("permissions" in job for job in loaded["jobs"].values())


def test_workflow_pins_each_action_to_a_commit_and_names_its_version() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)", text)

    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used)


@pytest.mark.parametrize(
    "dockerfile", ["deploy/Dockerfile", "deploy/flower/Dockerfile", "deploy/ingest/Dockerfile"]
)
def test_hadolint_finds_nothing_in_the_dockerfile(dockerfile: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")

    checked = subprocess.run(
        [hadolint, dockerfile], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_published_beyond_this_machine(service: str) -> None:
    ports = SERVICES[service].get("ports", [])

    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert SERVICES[service].get("network_mode") != "host"


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_checked_bounded_restarted_and_drops_its_rights(service: str) -> None:
    settings = SERVICES[service]

    assert settings["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert settings["mem_limit"]
    assert settings["restart"] == "unless-stopped"
    assert settings["init"] is True
    assert settings["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in WORKERS])
def test_server_image_is_pinned_and_does_not_run_as_root(service: str) -> None:
    assert re.search(r":v?\d+\.\d+", SERVICES[service]["image"])
    assert SERVICES[service]["user"] not in {"root", "0"}


def test_optional_services_start_with_their_profile_alone() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}

    assert profiles == {
        "valkey": None,
        "seaweedfs": None,
        "worker": ["cpu"],
        "worker-gpu": ["gpu"],
        "prometheus": ["observability"],
        "grafana": ["observability"],
        "flower": ["flower"],
        "ingest": ["ingest"],
    }


def test_prometheus_scrapes_the_port_of_each_worker_service() -> None:
    job = scrape_jobs()["labelyard"]
    [targets] = job["dns_sd_configs"]

    assert set(targets["names"]) == set(WORKERS)
    assert targets["port"] == WorkerSettings.model_fields["health_port"].default
    hosts = {one["environment"]["LABELYARD_HEALTH_HOST"] for one in WORKERS.values()}
    assert hosts == {"0.0.0.0"}


def test_prometheus_scrapes_the_port_of_the_ingest_service() -> None:
    job = scrape_jobs()["labelyard-ingest"]
    [targets] = job["dns_sd_configs"]

    assert targets["names"] == ["ingest"]
    assert (
        f"http://127.0.0.1:{targets['port']}/ready" in SERVICES["ingest"]["healthcheck"]["test"][-1]
    )


def test_files_that_services_mount_exist_and_cannot_be_written() -> None:
    mounts = [mount for one in SERVICES.values() for mount in one.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith("./")]

    assert len(files) == 4
    assert all((ROOT / mount.split(":")[0]).exists() for mount in files)
    assert all(mount.endswith(":ro") for mount in files)


def test_nobody_can_log_in_to_grafana_and_no_password_is_left_at_its_default() -> None:
    settings = SERVICES["grafana"]["environment"]

    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_grafana_finds_the_dashboard_and_its_data_source() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [source] = read_yaml(provisioning / "datasources/prometheus.yml")["datasources"]
    [provider] = read_yaml(provisioning / "dashboards/labelyard.yml")["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == prometheus()["global"]["scrape_interval"]
    assert home.startswith(provider["options"]["path"] + "/")
    assert any(mount.split(":")[1] == home for mount in SERVICES["grafana"]["volumes"])


def test_a_worker_exists_for_a_cpu_and_for_a_gpu() -> None:
    assert {name: service["profiles"] for name, service in WORKERS.items()} == {
        "worker": ["cpu"],
        "worker-gpu": ["gpu"],
    }


@pytest.mark.parametrize("service", WORKERS)
def test_worker_is_probed_by_a_command_that_it_has(service: str) -> None:
    program, command = WORKERS[service]["healthcheck"]["test"][1:]

    assert program == "labelyard-worker"
    assert command in {info.callback.__name__ for info in cli.app.registered_commands}  # type: ignore[union-attr]


@pytest.mark.parametrize("service", WORKERS)
def test_worker_is_killed_later_than_it_has_drained(service: str) -> None:
    drain_s = float(WORKERS[service]["environment"]["LABELYARD_DRAIN_S"])

    assert seconds(WORKERS[service]["stop_grace_period"]) >= drain_s + 10


@pytest.mark.parametrize("service", WORKERS)
def test_worker_takes_the_settings_that_compose_and_the_example_give(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**example_variables(active_only=True), **WORKERS[service]["environment"]}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    settings = WorkerSettings.read()

    assert unknown_variables(given, [WorkerSettings, ClientSettings]) == set()
    assert settings.broker_url == "redis://:not-so-secret@valkey:6379/0"
    assert settings.broker_url != settings.ledger_url


def test_each_of_our_variables_in_the_example_is_a_setting() -> None:
    """Compose's own must not look like ours: a worker refuses what it does not know."""
    assert unknown_variables(example_variables(), [WorkerSettings, ClientSettings]) == set()


def test_each_variable_that_compose_reads_is_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    read = set(re.findall(r"\$\{(\w+)", text))

    assert read <= set(example_variables())
    assert not any(name.startswith(PREFIX) for name in read)


def test_the_example_holds_no_secret() -> None:
    given = example_variables()

    assert given["VALKEY_PASSWORD"] == given["AWS_SECRET_ACCESS_KEY"] == ""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey with the options of compose."""
    _, *flags = SERVICES["valkey"]["command"]
    options = {
        name.removeprefix("--"): value
        for name, value in zip(flags[::2], flags[1::2], strict=True)
        if name != "--requirepass"
    }
    server = ValkeyServer(tmp_path, options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_valkey_starts_with_the_options_of_compose_and_evicts_nothing(valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        options = client.config_get("append*", "maxmemory*", "save")

    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "everysec"
    assert options["maxmemory-policy"] == "noeviction"
    assert options["maxmemory"] == str(1024**3)


def test_seaweedfs_knows_the_options_of_compose_and_makes_our_buckets() -> None:
    described = subprocess.run(
        [weed_binary(), "mini", "-help"], capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"^ +-([\w.]+)", described.stdout + described.stderr, re.MULTILINE))
    _, mini, *flags = SERVICES["seaweedfs"]["command"]

    assert mini == "mini"
    assert {flag.removeprefix("-").partition("=")[0] for flag in flags} <= known
    assert set(SERVICES["seaweedfs"]["environment"]["S3_BUCKET"].split(",")) == set(BUCKETS)


def test_image_runs_one_worker_as_a_user_without_rights() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    final = dockerfile.rpartition("\nFROM ")[2]

    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["labelyard-worker"]\nCMD ["start"]' in final
    assert 'CMD ["labelyard-worker", "ready"]' in final


def test_build_context_holds_what_the_image_installs_and_no_more() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}

    assert "*" in rules
    assert kept == {
        "constraints.txt", "LICENSE", "producer", "pyproject.toml", "README.md", "worker"
    }  # fmt: skip
    assert all((ROOT / name).exists() for name in kept)
