"""deploy/kubernetes: manifests that a cluster accepts, and that agree with the worker's settings."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from labelyard.settings import ClientSettings, unknown_variables
from labelyard_worker import metrics
from labelyard_worker.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
VERSIONS = ("1.30", "1.37")
OVERLAYS = ("cpu", "gpu")
# Kinds that an operator brings; no schema of Kubernetes knows them.
CUSTOM = {"ServiceMonitor": "monitoring.coreos.com/v1", "ScaledObject": "keda.sh/v1alpha1"}
NO_KUBECTL = "kubectl is not installed: overlays are not rendered"

Manifest = dict[str, Any]


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def base() -> dict[str, Manifest]:
    """Read the resources of the base, by kind."""
    folder = FOLDER / "base"
    loaded = [
        read_yaml(folder / name) for name in read_yaml(folder / "kustomization.yaml")["resources"]
    ]
    return {one["kind"]: one for one in loaded}


@cache
def rendered(overlay: str) -> dict[str, Manifest]:
    """Render an overlay as ``kubectl apply -k`` does, by kind."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {one["kind"]: one for one in YAML(typ="safe").load_all(done.stdout)}


def variables(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "=" in line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


BASE = base()
POD: Manifest = BASE["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
SETTINGS = variables(FOLDER / "base/worker.env")
SECRETS = variables(FOLDER / "secret.env.example")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason=NO_KUBECTL)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [kind for kind in BASE if kind not in CUSTOM])
def test_manifest_follows_the_schema_of_kubernetes(kind: str, version: str) -> None:
    assert kubernetes_validate.validate(BASE[kind], version, strict=True) == version


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_renders_to_valid_manifests(overlay: str) -> None:
    manifests = rendered(overlay)

    assert set(manifests) == {*BASE, "ConfigMap"}
    for kind, manifest in manifests.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@needs_kubectl
@pytest.mark.parametrize(("overlay", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_overlay_chooses_the_device_and_rolls_the_pods_if_a_setting_changes(
    overlay: str, device: str
) -> None:
    config = rendered(overlay)["ConfigMap"]
    [container] = rendered(overlay)["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert config["data"] == {**SETTINGS, "LABELYARD_DEVICE": device}
    assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
    assert container["image"] == f"labelyard-worker:{overlay}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("selector", "matchLabels")),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
        ("Service", ("selector",)),
    ],
)
def test_selector_matches_our_pods_and_not_all_pods(kind: str, path: tuple[str, ...]) -> None:
    """An empty selector is every pod of the namespace, and kustomize fills none in."""
    selector = BASE[kind]["spec"]
    for name in path:
        selector = selector[name]

    assert selector
    assert selector.items() <= POD["metadata"]["labels"].items()


def test_service_monitor_selects_the_service_of_the_workers() -> None:
    selector = BASE["ServiceMonitor"]["spec"]["selector"]["matchLabels"]

    assert selector
    assert selector.items() <= BASE["Service"]["metadata"]["labels"].items()


def test_pod_is_killed_later_than_its_worker_has_drained() -> None:
    drain_s = float(SETTINGS["LABELYARD_DRAIN_S"])

    assert POD["spec"]["terminationGracePeriodSeconds"] >= drain_s + 10


def test_settings_are_those_of_a_worker() -> None:
    given = {**SETTINGS, **SECRETS, "LABELYARD_DEVICE": "cuda"}

    assert unknown_variables(given, [WorkerSettings, ClientSettings]) == set()
    assert not any(SECRETS.values())
    assert SETTINGS.keys().isdisjoint(SECRETS)


def test_probes_and_prometheus_use_the_port_that_the_worker_opens() -> None:
    [port] = CONTAINER["ports"]
    [endpoint] = BASE["ServiceMonitor"]["spec"]["endpoints"]
    [service_port] = BASE["Service"]["spec"]["ports"]
    probes = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}

    assert str(port["containerPort"]) == SETTINGS["LABELYARD_HEALTH_PORT"]
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {port["name"]}
    assert probes["liveness"]["httpGet"]["path"] == "/live"
    assert probes["readiness"]["httpGet"]["path"] == "/ready"
    assert (endpoint["port"], endpoint["path"]) == (service_port["name"], "/metrics")
    assert (service_port["targetPort"], service_port["port"]) == (
        port["name"],
        port["containerPort"],
    )
    assert [one["port"] for one in BASE["NetworkPolicy"]["spec"]["ingress"][0]["ports"]] == [
        port["name"]
    ]


def test_a_model_has_ten_minutes_to_load_before_a_pod_is_restarted() -> None:
    startup = CONTAINER["startupProbe"]

    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_pod_has_no_rights_that_a_worker_does_not_need() -> None:
    pod, container = POD["spec"]["securityContext"], CONTAINER["securityContext"]

    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_resource_has_the_version_of_its_operator(kind: str) -> None:
    assert BASE[kind]["apiVersion"] == CUSTOM[kind]


def test_keda_scales_the_deployment_on_the_backlog_and_never_to_zero() -> None:
    spec = BASE["ScaledObject"]["spec"]
    [trigger] = spec["triggers"]

    assert spec["scaleTargetRef"]["name"] == BASE["Deployment"]["metadata"]["name"]
    assert spec["minReplicaCount"] >= 1  # a worker exports the figure
    assert spec["fallback"]["replicas"] >= 1
    assert trigger["type"] == "prometheus"
    assert trigger["metadata"].keys() >= {"serverAddress", "query", "threshold"}
    assert metrics.FLEET_BACKLOG.name in trigger["metadata"]["query"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert "replicas" not in BASE["Deployment"]["spec"]
