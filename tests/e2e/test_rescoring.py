"""Old embeddings through the whole path: other labels, without a picture, as a fresh run scores."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from labelyard import Client
from labelyard.errors import RunStateError
from labelyard.label_sets import as_label_set
from labelyard.messages import Learned, TitleWeights
from labelyard.runs.record import RunRecord
from tests.conftest import SESSION_SERVERS
from tests.e2e.instant import COMMAND, ROOT
from tests.support import command_line, pictures
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

NAMESPACE = "rescoring"
ENDS_WITHIN_S = 60.0
OLD_LABELS = ["a cat", "a dog"]
NEW_LABELS = ["a red thing", "a green thing", "a blue thing"]
IMAGES = 300


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    flags = service.folder / "rescoring-flags"
    flags.mkdir()
    worker = service.worker(
        name="rescoring",
        command=COMMAND,
        variables={
            "PYTHONPATH": path,
            "TEST_EFFECTS": str(service.folder / "rescoring.log"),
            "TEST_FLAGS": str(flags),
        },
        namespace=NAMESPACE,
        intake_children="1",
        shard_lines="100",
        reconcile_after_s="1",
        reconcile_every_s="1",
    )
    with worker.start(within_s=READY_WITHIN_S):
        SESSION_SERVERS.append(worker)
        with service.client(namespace=NAMESPACE) as producer:
            yield producer
        SESSION_SERVERS.remove(worker)


def lines_below(service: Service, prefix: str, kind: str = "results") -> list[dict[str, Any]]:
    """Read the results directly below a prefix, or its errors, by line."""
    keys = [key for key in service.results.keys(prefix) if key.startswith(f"{prefix}{kind}-")]
    lines = [json.loads(line) for key in keys for line in service.results.get(key).splitlines()]
    return sorted(lines, key=lambda line: line["line"])


@pytest.fixture(scope="module")
def old_run(service: Service, client: Client) -> RunRecord:
    """A run with embeddings, whose pictures are gone, and a fresh one with the new labels."""
    uris = [service.pictures.put(f"old/{n}.png", pictures.png(seed=n)) for n in range(7)]
    lines: list[dict[str, Any]] = [
        {"custom_id": f"image-{n}", "uri": uris[n % 7], "sku": n} for n in range(IMAGES)
    ]
    lines[17]["uri"] = service.pictures.uri("old/missing.png")
    manifest = service.pictures.put("old.jsonl", "\n".join(map(json.dumps, lines)).encode())
    options: Any = {"columns": ["sku"]}
    out = service.results.uri
    old = client.runs.start(manifest, OLD_LABELS, out=out("old/"), embeddings=True, **options)
    fresh = client.runs.start(manifest, NEW_LABELS, out=out("fresh/"), **options)
    fresh.wait(timeout_s=ENDS_WITHIN_S)
    ended = old.wait(timeout_s=ENDS_WITHIN_S)
    for uri in uris:
        service.pictures.s3.delete_object(
            Bucket=service.pictures.name, Key=uri.removeprefix(f"s3://{service.pictures.name}/")
        )
    return ended


def test_other_labels_are_scored_as_a_fresh_run_scores_them_without_a_picture(
    service: Service, client: Client, old_run: RunRecord
) -> None:
    handle = client.runs.rescore(old_run.run_id, NEW_LABELS)
    run = handle.wait(timeout_s=ENDS_WITHIN_S)

    fresh = [line for line in lines_below(service, "fresh/") if line["status"] == "succeeded"]
    found = lines_below(service, f"old/rescore-{handle.id}/")
    assert (run.state, run.succeeded, run.images) == ("succeeded", IMAGES - 1, IMAGES - 1)
    assert len(found) == len(fresh) == IMAGES - 1
    for one, other in zip(found, fresh, strict=True):
        scores = [{each["name"]: each["score"] for each in line["labels"]} for line in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
        assert one["fit"] == pytest.approx(other["fit"], abs=1e-3)
        for line in (one, other):
            for name in ("labels", "top_score", "fit"):
                del line[name]
        assert one == other
    summaries = [
        json.loads(service.results.get(f"{prefix}summary.json"))
        for prefix in ("fresh/", f"old/rescore-{handle.id}/")
    ]
    for name in ("labels", "matched", "abstained", "duplicates"):
        assert summaries[0][name] == summaries[1][name]


def test_the_command_takes_the_prefix_of_an_old_run_whose_record_is_gone(
    service: Service, client: Client, old_run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in service.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    prefix, out = old_run.request.out.rstrip("/"), service.results.uri("by-prefix/")

    result = command_line.run(
        *("run", "rescore", prefix, "--labels", ",".join(NEW_LABELS)),
        *("--out", out, "--format", "parquet", "--json"),
    )
    [started] = command_line.lines(result)
    run = client.runs.wait(started["run_id"], timeout_s=ENDS_WITHIN_S)

    assert (run.state, run.succeeded) == ("succeeded", IMAGES - 1)
    names = [key.removeprefix("by-prefix/") for key in service.results.keys("by-prefix/results")]
    assert names[0] == "results-00000.parquet"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"model": {"checkpoint": "x", "fingerprint": "y", "dtype": "", "device": ""}}, "of x"),
        ({}, "manifest.json"),
    ],
)
def test_embeddings_of_another_checkpoint_are_refused(
    service: Service, client: Client, manifest: Any, reason: str
) -> None:
    service.results.put("foreign/manifest.json", json.dumps(manifest).encode())

    handle = client.runs.rescore(service.results.uri("foreign/"), NEW_LABELS)
    run = handle.wait(timeout_s=ENDS_WITHIN_S)

    assert run.state == "failed"
    assert run.failure is not None
    assert run.failure.code == "run_source_unreadable"
    assert reason in run.failure.message


def test_a_damaged_file_costs_its_shard_and_is_named(
    service: Service, client: Client, old_run: RunRecord
) -> None:
    for key in service.results.keys("old/"):
        if key.startswith(("old/embeddings-", "old/manifest.json")):
            service.results.put(f"damaged/{key[4:]}", service.results.get(key))
    victim = "damaged/embeddings-00001.parquet"
    body = service.results.get(victim)
    service.results.put(victim, body[:4] + bytes(len(body) // 2) + body[4 + len(body) // 2 :])

    handle = client.runs.rescore(service.results.uri("damaged/"), NEW_LABELS)
    run = handle.wait(timeout_s=ENDS_WITHIN_S)

    errors = lines_below(service, f"damaged/rescore-{handle.id}/", "errors")
    assert run.state == "partial"
    assert 0 < run.failed < IMAGES - 1
    assert run.succeeded + run.failed == IMAGES - 1
    assert {error["uri"] for error in errors} == {service.results.uri(victim)}


@pytest.mark.allow_persistent_keys("a registered label set stays")
def test_a_set_that_reads_texts_is_refused_for_old_embeddings_unless_texts_count_nothing(
    service: Service, client: Client, old_run: RunRecord
) -> None:
    model = json.loads(service.results.get("old/manifest.json"))["model"]
    states = []
    for weight in (1.0, 0.0):
        titles = TitleWeights(picture=1.0, title=weight)
        learned = Learned(checkpoint=model["fingerprint"], titles=titles)
        label_set = as_label_set(NEW_LABELS).model_copy(update={"learned": learned})
        reference = client.label_sets.register(f"titles-{weight:.0f}", label_set)
        handle = client.runs.rescore(old_run.run_id, reference, output_format="parquet")
        states.append(handle.wait(timeout_s=ENDS_WITHIN_S))

    assert [run.state for run in states] == ["failed", "succeeded"]
    assert states[0].failure is not None
    assert "old embeddings have no texts" in states[0].failure.message


@pytest.mark.allow_persistent_keys("a registered label set stays")
def test_old_pictures_are_not_counted_for_the_drift_of_a_label_set(
    service: Service, client: Client, old_run: RunRecord
) -> None:
    reference = client.label_sets.register("rescored", as_label_set(NEW_LABELS))
    client.runs.rescore(old_run.run_id, reference).wait(timeout_s=ENDS_WITHIN_S)

    uri = service.pictures.put("old/later.png", pictures.png(seed=9))
    with service.client(namespace=NAMESPACE) as own:
        own.classify([uri], reference, timeout_s=ENDS_WITHIN_S)

    def counted() -> int:
        return client.label_sets.drift(reference).counts.n

    wait_until(counted, within_s=ENDS_WITHIN_S)
    assert counted() == 1  # the job's picture, counted after the run


def test_a_run_without_embeddings_cannot_be_scored_again(
    service: Service, client: Client, old_run: RunRecord
) -> None:
    fresh = next(run for run in client.runs.list() if not run.request.embeddings)

    with pytest.raises(RunStateError, match="no embeddings"):
        client.runs.rescore(fresh.run_id, NEW_LABELS)
