"""Deployment files of the ingest service: Compose, Kubernetes, systemd and their rule files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from labelyard.cli.ingest import PORT
from labelyard.ingest.rule_file import read_rule_file
from labelyard.settings import PREFIX, ClientSettings, unknown_variables
from tests.unit.test_deploy_files import SERVICES, example_variables, read_yaml, seconds
from tests.unit.test_kubernetes_files import VERSIONS, needs_kubectl
from tests.unit.test_systemd_unit import MAX_EXPOSURE, needs_systemd

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes/ingest"
SYSTEMD = ROOT / "deploy/systemd"
RULES = ("deploy/ingest/rules.toml", "deploy/kubernetes/ingest/rules.toml")
MANIFESTS: dict[str, Any] = {
    one["kind"]: one
    for one in (
        read_yaml(KUBERNETES / name)
        for name in read_yaml(KUBERNETES / "kustomization.yaml")["resources"]
    )
}
POD: dict[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
UNIT = (SYSTEMD / "labelyard-ingest.service").read_text(encoding="utf-8")


def variables(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z]\w*)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))


def drain_s() -> float:
    return read_rule_file(ROOT / RULES[0]).limits.drain_s


@pytest.mark.parametrize("path", RULES)
def test_a_rule_file_has_no_fault_and_writes_where_a_worker_may(path: str) -> None:
    rules = read_rule_file(ROOT / path)

    targets = [rule.deliver.object_uri or "" for rule in rules.rules]
    assert all(one.startswith("s3://labelyard-results/") for one in targets)
    assert {rule.bucket for rule in rules.rules} == {"labelyard-uploads"}


def test_compose_leads_seaweedfs_to_the_service_with_its_secret() -> None:
    ingest, storage = SERVICES["ingest"], SERVICES["seaweedfs"]["environment"]
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

    assert storage["WEED_NOTIFICATION_WEBHOOK_ENDPOINT"] == f"http://ingest:{PORT}/ingest"
    assert storage["WEED_NOTIFICATION_WEBHOOK_ENABLED"] == "false"
    assert "WEBHOOK_BEARER_TOKEN: ${INGEST_SECRET:-}" in text
    assert f"{PREFIX}INGEST_SECRET: ${{INGEST_SECRET:-}}" in text
    assert ingest["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert f":{PORT}/ready" in ingest["healthcheck"]["test"][-1]
    assert unknown_variables(ingest["environment"], [ClientSettings]) == set()
    assert example_variables()["INGEST_SECRET"] == ""


def test_compose_kills_the_service_later_than_it_has_drained() -> None:
    assert seconds(SERVICES["ingest"]["stop_grace_period"]) >= drain_s() + 10


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_follows_the_schema_of_kubernetes(kind: str, version: str) -> None:
    assert kubernetes_validate.validate(MANIFESTS[kind], version, strict=True) == version


@needs_kubectl
def test_the_folder_renders_with_its_rule_file() -> None:
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert 'name = "uploads"' in rendered.stdout
    assert "image: labelyard-ingest:0.1.0" in rendered.stdout


def test_selectors_match_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    selectors = [
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]

    assert all(one and one.items() <= labels.items() for one in selectors)


def test_a_pod_has_few_rights_is_probed_on_its_port_and_drains() -> None:
    security, pod = CONTAINER["securityContext"], POD["spec"]["securityContext"]
    probes = [CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]

    assert CONTAINER["ports"] == [{"name": "http", "containerPort": PORT}]
    assert [probe["path"] for probe in probes] == ["/live", "/live", "/ready"]
    assert {probe["port"] for probe in probes} == {"http"}
    assert POD["spec"]["terminationGracePeriodSeconds"] >= drain_s() + 10
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})


@pytest.mark.parametrize(
    "path", [KUBERNETES / "secret.env.example", SYSTEMD / "ingest.env.example"], ids=str
)
def test_an_example_names_settings_and_holds_no_secret(path: Path) -> None:
    given = variables(path)

    assert unknown_variables(given, [ClientSettings]) == set()
    assert given[f"{PREFIX}INGEST_SECRET"] == ""


@needs_systemd
def test_systemd_finds_no_fault_in_the_unit_and_rates_it_as_confined(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("labelyard"))
    unit = tmp_path / "labelyard-ingest.service"
    unit.write_text(UNIT.replace("/opt/labelyard/bin/labelyard", program))
    security = ["security", "--offline=yes", f"--threshold={MAX_EXPOSURE}"]

    for arguments in (["verify", "--man=no"], security):
        checked = subprocess.run(
            [shutil.which("systemd-analyze") or "", *arguments, unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def test_systemd_reloads_with_sighup_and_kills_later_than_the_drain() -> None:
    [stop_s] = re.findall(r"^TimeoutStopSec=(.*)$", UNIT, re.MULTILINE)

    assert "ExecReload=/bin/kill -HUP $MAINPID" in UNIT
    assert float(stop_s) >= drain_s() + 10
