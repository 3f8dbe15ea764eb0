"""Runs through the whole path: a manifest becomes files, whatever happens on the way."""

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from labelyard import Client
from labelyard.errors import IdempotencyConflictError, RunStateError
from labelyard.label_sets import as_label_set
from labelyard.messages import ImageRef, Learned, TitleWeights
from labelyard.runs.record import RunRecord
from labelyard.runs.report import write_report
from labelyard.webhooks import verify
from labelyard_worker.local.worker_process import WorkerProcess
from tests.conftest import SESSION_SERVERS
from tests.e2e.instant import COMMAND, ROOT, WEBHOOK_SECRET
from tests.support import pictures
from tests.support.apps.instant_model import LETHAL
from tests.support.bad_lines import mixed_manifest
from tests.support.buckets import Bucket
from tests.support.command_line import lines, run
from tests.support.manifests import REFERENCE
from tests.support.rabbitmq import NOT_INSTALLED, RabbitServer, is_installed
from tests.support.receiver import running_receiver
from tests.support.scraping import scrape
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

NAMESPACE = "runs"
LABELS = ["a cat", "a dog"]
ENDS_WITHIN_S = 90.0
# Small shards, and short times until a dead worker's work comes again.
SETTINGS = {
    "namespace": NAMESPACE,
    "intake_children": "1",
    "quarantine_after": "1",
    "dead_after": "1",
    "visibility_timeout_s": "4",
    "reconcile_after_s": "1",
    "reconcile_every_s": "1",
    "shard_lines": "100",
    "shard_window": "32",
    "webhook_hosts": "127.0.0.1",
    "webhook_secret": WEBHOOK_SECRET,
    "delivery_first_pause_s": "0.1",
}


@dataclass(frozen=True)
class RunService:
    """A worker that tests may kill, and the storage of its runs."""

    service: Service
    worker: WorkerProcess
    variables: Mapping[str, str]

    @property
    def pictures(self) -> Bucket:
        return self.service.pictures

    @property
    def results(self) -> Bucket:
        return self.service.results

    def revive(self) -> None:
        """Start the worker again if it has died, as a supervisor does."""
        if not self.worker.is_running():
            self.worker.start(within_s=READY_WITHIN_S)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for a condition while a supervisor is at work."""

        def is_met() -> Any:
            self.revive()
            return condition()

        return wait_until(is_met, within_s=ENDS_WITHIN_S)

    def manifest(self, *, images: int, name: str, extra: tuple[str, ...] = ()) -> str:
        """Store a few pictures, and a manifest that names them again and again."""
        uris = [self.pictures.put(f"{name}/{n}.png", pictures.png(seed=n)) for n in range(5)]
        lines = [
            json.dumps({"custom_id": f"image-{n}", "uri": uris[n % len(uris)]})
            for n in range(images)
        ]
        return self.pictures.put(f"{name}.jsonl", "\n".join([*lines, *extra]).encode())

    def lines(self, prefix: str, kind: str = "results") -> list[dict[str, Any]]:
        """Read all lines of one kind of file below a prefix."""
        keys = [key for key in self.results.keys(prefix) if key.startswith(f"{prefix}{kind}-")]
        return [json.loads(line) for key in keys for line in self.results.get(key).splitlines()]

    def count_model_images(self) -> float:
        """Count the images that the worker's model had to embed since its start."""
        name = "labelyard_image_cache_lookups_total"
        return scrape(self.worker.health_url).value(name, result="miss")

    def summary(self, prefix: str) -> Any:
        return json.loads(self.results.get(f"{prefix}summary.json"))


@pytest.fixture(scope="module")
def runs(service: Service) -> Iterator[RunService]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    flags = service.folder / "run-flags"
    flags.mkdir()
    variables = {
        "PYTHONPATH": path,
        "TEST_EFFECTS": str(service.folder / "runs.log"),
        "TEST_FLAGS": str(flags),
    }
    worker = service.worker(name="runs", command=COMMAND, variables=variables, **SETTINGS)
    with worker.start(within_s=READY_WITHIN_S):
        SESSION_SERVERS.append(worker)
        yield RunService(service, worker, variables)
        SESSION_SERVERS.remove(worker)


@pytest.fixture
def client(runs: RunService) -> Iterator[Client]:
    runs.revive()
    with runs.service.client(namespace=NAMESPACE) as producer:
        yield producer


def ended(runs: RunService, client: Client, run_id: str) -> RunRecord:
    """Wait for the end of a run."""
    runs.until(lambda: client.runs.get(run_id).is_final)
    return client.runs.get(run_id)


def assert_each_line_once(found: list[dict[str, Any]], *, images: int) -> None:
    assert Counter(line["line"] for line in found) == Counter(range(1, images + 1))


def test_a_run_writes_one_result_for_each_line_of_its_manifest(
    runs: RunService, client: Client
) -> None:
    source = runs.manifest(images=700, name="each-line", extra=("{nonsense",))

    handle = client.runs.start(source, LABELS, out=runs.results.uri("each-line/"))
    run = ended(runs, client, handle.id)

    found, [bad] = runs.lines("each-line/"), runs.lines("each-line/", "errors")
    assert (run.state, run.succeeded, run.errors) == ("partial", 700, {"bad_json": 1})
    assert_each_line_once(found, images=700)
    assert {line["status"] for line in found} == {"succeeded"}
    assert (bad["line"], bad["code"]) == (701, "bad_json")
    summary = runs.summary("each-line/")
    assert summary["images"] == {"total": 700, "succeeded": 700, "failed": 0}
    manifest = json.loads(runs.results.get("each-line/manifest.json"))
    assert manifest["request"]["source"] == source
    progress = handle.progress()
    assert (progress.done, progress.total, progress.is_total_known) == (701, 701, True)


def test_a_thousand_bad_lines_are_named_by_their_lines_and_harm_no_good_one(
    runs: RunService, client: Client
) -> None:
    uris = [runs.pictures.put(f"bad-lines/{n}.png", pictures.png(seed=n)) for n in range(5)]
    failing = [
        ({"uri": runs.pictures.uri("bad-lines/missing.png")}, "image_not_found"),
        ({"uri": uris[0], "label_set": REFERENCE}, "unknown_label_set"),
    ]
    mixed = mixed_manifest("jsonl", uris, rounds=20, failing=failing)
    source = runs.pictures.put("bad-lines.jsonl.gz", gzip.compress(mixed.body, 1))

    handle = client.runs.start(source, LABELS, out=runs.results.uri("bad-lines/"), columns=["*"])
    run = ended(runs, client, handle.id)

    results, errors = runs.lines("bad-lines/"), runs.lines("bad-lines/", "errors")
    good = {line["custom_id"]: line["line"] for line in results if line["status"] == "succeeded"}
    assert (run.state, len(mixed.bad) > 1_000) == ("partial", True)
    assert sorted((line["line"], line["code"]) for line in errors) == sorted(mixed.errors.items())
    assert good == mixed.good
    assert len(results) == len(mixed.good) + len(mixed.failing)
    summary = runs.summary("bad-lines/")
    assert summary["bad_lines"] == len(mixed.bad)
    assert summary["errors"] == run.errors == Counter(mixed.errors.values())
    assert summary["images"] == {
        "total": len(results),
        "succeeded": len(mixed.good),
        "failed": len(mixed.failing),
    }


def test_each_end_of_a_run_reaches_its_webhook_though_the_receiver_failed_at_first(
    runs: RunService, client: Client
) -> None:
    source, slow = runs.manifest(images=20, name="hook"), runs.manifest(images=99, name="slow")
    missing = runs.pictures.uri("hook/nothing/*.jpg")
    with running_receiver() as receiver:
        receiver.statuses = [503, 503]

        def start(address: str, name: str, **options: Any) -> str:
            out = runs.results.uri(f"hook/{name}/")
            return client.runs.start(address, LABELS, out=out, webhook=receiver.url, **options).id

        run_ids = {
            "run.succeeded": start(source, "done"),
            "run.failed": start(missing, "failed"),
            "run.cancelled": start(slow, "cancelled", images_per_s=0.5),
        }
        client.runs.cancel(run_ids["run.cancelled"])
        runs.until(lambda: len(receiver.hooks) == 5)

    received = [verify(hook.headers, hook.body, WEBHOOK_SECRET) for hook in receiver.hooks]
    ends = {payload["type"]: payload.run_end() for payload in received}
    assert {kind: end.run_id for kind, end in ends.items()} == run_ids
    assert len({payload.id for payload in received}) == 3
    done, failed = ends["run.succeeded"], ends["run.failed"]
    assert (done.images.succeeded, done.out) == (20, runs.results.uri("hook/done/"))
    assert failed.error is not None
    assert failed.error.code == "run_source_unreadable"
    assert "webhook" not in runs.results.get("hook/done/manifest.json").decode()


def test_the_report_of_a_run_has_its_numbers_and_its_pictures(
    runs: RunService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = runs.manifest(images=300, name="report", extra=("{nonsense",))
    out = runs.results.uri("report/")
    handle = client.runs.start(source, LABELS, out=out, output_format="parquet")
    ended(runs, client, handle.id)
    for name, value in runs.service.variables.items():
        monkeypatch.setenv(name, value)
    settings = runs.service.client_settings(namespace=NAMESPACE)

    written = write_report(handle.id, tmp_path / "report.html", settings=settings)

    page = written.path.read_text()
    assert (written.lines, written.missing) == (300, 0)
    assert written.pictures > 0
    assert "<dt>Lines</dt><dd>301</dd>" in page
    assert "bad_json" in page
    assert all(title not in page for title in ("Counts differ", "Unreadable", "Not finished"))


def test_a_prefix_is_a_source_and_the_same_key_starts_no_second_run(
    runs: RunService, client: Client
) -> None:
    for number in range(3):
        runs.pictures.put(f"prefix/a/{number}.png", pictures.png(seed=number))
    runs.pictures.put("prefix/notes.txt", b"no picture")
    options: Any = {"out": runs.results.uri("prefix/"), "idempotency_key": "prefix"}

    first = client.runs.start(runs.pictures.uri("prefix/**/*.png"), LABELS, **options)
    second = client.runs.start(runs.pictures.uri("prefix/**/*.png"), LABELS, **options)
    run = ended(runs, client, first.id)

    assert (first.is_new, second.is_new, first.id == second.id) == (True, False, True)
    assert (run.state, run.succeeded) == ("succeeded", 3)
    with pytest.raises(IdempotencyConflictError):
        client.runs.start(runs.pictures.uri("prefix/**/*.jpg"), LABELS, **options)
    with pytest.raises(RunStateError, match="run_state"):
        client.runs.pause(first.id)


def test_a_picture_that_kills_its_worker_is_one_error_and_all_others_have_results(
    runs: RunService, client: Client
) -> None:
    lethal = pictures.encode(Image.new("RGB", (32, 32), tuple(LETHAL)), "PNG")
    uri = runs.pictures.put("poison/lethal.png", lethal)
    extra = (json.dumps({"custom_id": "lethal", "uri": uri}),)
    source = runs.manifest(images=50, name="poison", extra=extra)
    # As if a worker had died after it wrote the files of the shard, before it was split.
    runs.results.put("poison/results-00000.jsonl", b'{"line": 1}\n')

    handle = client.runs.start(source, LABELS, out=runs.results.uri("poison/"))
    run = ended(runs, client, handle.id)

    assert (run.state, run.succeeded, run.failed) == ("partial", 50, 1)
    assert_each_line_once(runs.lines("poison/"), images=51)
    [error] = runs.lines("poison/", "errors")
    assert (error["line"], error["custom_id"]) == (51, "lethal")
    assert error["code"] == "image_killed_worker"


def test_finished_shards_are_not_computed_again_when_workers_are_killed(
    runs: RunService, client: Client
) -> None:
    source = runs.manifest(images=800, name="killed")
    handle = client.runs.start(source, LABELS, out=runs.results.uri("killed/"))

    for done in (64, 500):
        wait_until(lambda least=done: client.runs.progress(handle.id).done >= least)
        runs.worker.kill()
        runs.revive()
    run = ended(runs, client, handle.id)

    assert (run.state, run.succeeded) == ("succeeded", 800)
    assert_each_line_once(runs.lines("killed/"), images=800)
    assert run.computed_again < 600


def test_equal_pictures_under_many_addresses_are_given_to_the_model_once(
    runs: RunService, client: Client
) -> None:
    files = [pictures.png(seed=n) + os.urandom(8) for n in range(3)]
    uris = [runs.pictures.put(f"equal/{n}.png", files[n % 3]) for n in range(90)]
    manifest = [json.dumps({"custom_id": f"image-{n}", "uri": uri}) for n, uri in enumerate(uris)]
    source = runs.pictures.put("equal.jsonl", "\n".join(manifest).encode())
    misses = runs.count_model_images()

    handle = client.runs.start(source, LABELS, out=runs.results.uri("equal/"))
    run = ended(runs, client, handle.id)

    assert (run.state, run.succeeded) == ("succeeded", 90)
    assert runs.count_model_images() - misses == 3
    assert runs.summary("equal/")["duplicates"]["repeated"] == 87
    scores = {(line["sha256"], json.dumps(line["labels"])) for line in runs.lines("equal/")}
    assert len(scores) == 3


def test_a_paused_run_goes_on_where_it_stopped_and_so_does_a_cancelled_one(
    runs: RunService, client: Client
) -> None:
    source = runs.manifest(images=1500, name="steered")
    out = runs.results.uri("steered/")
    handle = client.runs.start(source, LABELS, out=out, images_per_s=300.0)
    wait_until(lambda: client.runs.get(handle.id).done)  # of finished shards

    client.runs.pause(handle.id)
    paused = client.runs.get(handle.id).state
    client.runs.resume(handle.id)
    client.runs.cancel(handle.id)
    cancelled = ended(runs, client, handle.id)
    written = runs.summary("steered/")
    client.runs.resume(handle.id)
    run = ended(runs, client, handle.id)

    assert (paused, cancelled.state, written["state"]) == ("paused", "cancelled", "cancelled")
    assert 0 < cancelled.done < 1500
    assert (run.state, run.succeeded) == ("succeeded", 1500)
    assert_each_line_once(runs.lines("steered/"), images=1500)
    assert runs.summary("steered/")["images"]["succeeded"] == 1500


def test_the_failed_lines_of_a_run_are_done_again_below_its_own_prefix(
    runs: RunService, client: Client
) -> None:
    missing = runs.pictures.uri("retried/late.png")
    extra = (json.dumps({"custom_id": "late", "uri": missing}),)
    source = runs.manifest(images=70, name="retried", extra=extra)
    handle = client.runs.start(source, LABELS, out=runs.results.uri("retried/"))
    first = ended(runs, client, handle.id)
    runs.pictures.put("retried/late.png", pictures.png(seed=9))

    retry = client.runs.retry_errors(handle.id, codes=["image_not_found"])
    second = ended(runs, client, retry.id)

    assert (first.state, dict(first.errors)) == ("partial", {"image_not_found": 1})
    assert (second.state, second.succeeded) == ("succeeded", 1)
    [line] = runs.lines("retried/retry-1/")
    assert (line["line"], line["custom_id"], line["status"]) == (71, "late", "succeeded")


def test_a_run_whose_planner_is_killed_is_planned_on_from_its_checkpoint(
    runs: RunService, client: Client
) -> None:
    source = runs.manifest(images=30_000, name="planner")
    out = runs.results.uri("planner/")
    # So slow that hardly a shard begins: this is about the plan.
    handle = client.runs.start(source, LABELS, out=out, images_per_s=1.0)
    wait_until(lambda: client.runs.get(handle.id).shards_planned >= 5)

    runs.worker.kill()
    before = client.runs.get(handle.id)
    runs.until(lambda: client.runs.get(handle.id).is_planned)

    after = client.runs.get(handle.id)
    client.runs.cancel(handle.id)
    assert not before.is_planned
    assert (after.lines, after.images) == (30_000, 30_000)
    planned = [key for key in runs.results.keys("planner/_plan/") if "/shard-" in key]
    first = [key for key in planned if not re.search(r"\.0\.\d+\.jsonl\.gz$", key)]
    assert before.shards_planned <= len(first) <= before.shards_planned + 1
    assert ended(runs, client, handle.id).state == "cancelled"


def test_the_command_starts_follows_and_downloads_a_run(
    runs: RunService,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in {**runs.service.variables, "LABELYARD_NAMESPACE": NAMESPACE}.items():
        monkeypatch.setenv(name, value)
    missing = json.dumps({"custom_id": "gone", "uri": runs.pictures.uri("command/gone.png")})
    source = runs.manifest(images=20, name="command", extra=(missing,))
    out = runs.results.uri("command/")

    [started, *progress] = lines(
        run(*("run", "start", source, "--labels", "a cat,a dog"), "--out", out, "--watch", "--json")
    )
    run_id = started["run_id"]
    [shown] = lines(run("run", "show", run_id, "--json"))
    [count] = lines(run("run", "errors", run_id, "--json"))
    [error] = lines(run("run", "errors", run_id, "--lines", "--json"))
    listed = [one["run_id"] for one in lines(run("run", "list", "--json"))]
    paths = lines(run("run", "download", run_id, tmp_path, "--json"))
    refused = run("run", "pause", run_id)
    unknown = run("run", "show", "nobody")
    table = run("run", "list")

    assert (progress[-1]["state"], progress[-1]["done"]) == ("partial", 21)
    assert (shown["succeeded"], shown["failed"]) == (20, 1)
    assert count == {"code": "image_not_found", "count": 1}
    assert (error["line"], error["custom_id"]) == (21, "gone")
    assert listed[0] == run_id
    names = {Path(one["path"]).name for one in paths}
    assert {"manifest.json", "summary.json", "results-00000.jsonl"} <= names
    assert (refused.exit_code, unknown.exit_code) == (1, 1)
    assert run_id in table.stdout


@pytest.mark.rabbitmq
@pytest.mark.skipif(not is_installed(), reason=NOT_INSTALLED)
def test_rabbitmq_carries_runs_as_well(runs: RunService, tmp_path: Path) -> None:
    source = runs.manifest(images=300, name="rabbit")
    with RabbitServer(tmp_path / "rabbitmq").start(within_s=READY_WITHIN_S) as server:
        variables = {**runs.variables, "LABELYARD_BROKER_URL": server.url}
        worker = runs.service.worker(
            name="rabbit",
            command=COMMAND,
            variables=variables,
            **SETTINGS | {"namespace": "rabbit"},
        )
        settings = runs.service.client_settings(namespace="rabbit")
        with (
            worker.start(within_s=READY_WITHIN_S),
            Client(settings.model_copy(update={"broker_url": server.url})) as client,
        ):
            handle = client.runs.start(source, LABELS, out=runs.results.uri("rabbit/"))

            run = handle.wait(timeout_s=ENDS_WITHIN_S)

    assert (run.state, run.succeeded) == ("succeeded", 300)
    assert_each_line_once(runs.lines("rabbit/"), images=300)


@pytest.mark.allow_persistent_keys("registered label sets stay")
def test_a_run_and_its_retry_keep_the_version_that_the_alias_named_at_the_start(
    runs: RunService, client: Client
) -> None:
    sets, late = client.label_sets, "pinned-late.png"
    old = sets.register("pinned", as_label_set(LABELS))
    new = sets.register("pinned", as_label_set(["a cat", "a cow"]), parent=old)
    sets.promote(old, "pinned@prod")
    sets.promote(new, "pinned@prod", share=0.5)
    missing = json.dumps({"custom_id": "late", "uri": runs.pictures.uri(late)})
    source = runs.manifest(images=130, name="pinned", extra=(missing,))

    handle = client.runs.start(source, "pinned@prod", out=runs.results.uri("pinned/"))
    sets.promote(new, "pinned@prod")
    states = [ended(runs, client, handle.id).state]
    runs.pictures.put(late, pictures.png(seed=1))
    retry = client.runs.retry_errors(handle.id, codes=["image_not_found"])
    states.append(ended(runs, client, retry.id).state)

    found = [*runs.lines("pinned/"), *runs.lines("pinned/retry-1/")]
    assert states == ["partial", "succeeded"]
    assert len(found) == 132
    assert {line["label_set"] for line in found} == {old.partition("@")[2]}


@pytest.mark.allow_persistent_keys("registered label sets stay")
def test_answers_of_registered_sets_in_a_run_are_counted_for_their_drift(
    runs: RunService, client: Client
) -> None:
    of_run = client.label_sets.register("drifting", as_label_set([*LABELS, "a drifting boat"]))
    of_lines = client.label_sets.register(
        "drifting-lines", as_label_set(["a drifting hen", "a drifting cow"])
    )
    extra = (
        json.dumps({"custom_id": "gone", "uri": runs.pictures.uri("gone.png")}),
        *(
            json.dumps({"custom_id": f"{n}", "uri": runs.pictures.uri("drift/1.png")} | labels)
            for n, labels in enumerate(
                [{"label_set": of_lines}, {"label_set": of_lines}, {"labels": ["a bee", "a fly"]}]
            )
        ),
    )
    source = runs.manifest(images=150, name="drift", extra=extra)

    handle = client.runs.start(source, of_run, out=runs.results.uri("drift/"))
    run = ended(runs, client, handle.id)

    sets = client.label_sets
    runs.until(lambda: sets.drift(of_run).counts.n >= 150 and sets.drift(of_lines).counts.n)
    counts, found = sets.drift(of_run).counts, runs.lines("drift/")
    name, _, digest = of_run.partition("@sha256:")
    matched = scrape(runs.worker.health_url).value(
        "labelyard_answers_total", label_set=f"{name}@sha256:{digest[:12]}", answer="matched"
    )
    assert (run.succeeded, run.failed) == (153, 1)
    assert (counts.n, sum(counts.scores), sets.drift(of_lines).counts.n) == (150, 150, 2)
    assert counts.answers == Counter(
        line["top_label"]
        for line in found
        if line["label_set"] == f"sha256:{digest}" and line["status"] == "succeeded"
    )
    assert matched == 150


@pytest.mark.allow_persistent_keys("a registered label set stays")
def test_a_run_reads_texts_as_a_job_does_in_both_forms_of_its_results(
    runs: RunService, client: Client, tmp_path: Path
) -> None:
    uri = runs.pictures.put("titled.png", pictures.png(seed=3))
    texts = ["cat cat cat", None, "dog dog dog", "cat cat cat"]
    plain = client.classify([uri], LABELS, timeout_s=60)
    assert plain.model is not None
    weights = TitleWeights(picture=0.5, title=1.0)
    learned = Learned(checkpoint=plain.model.fingerprint, titles=weights)
    reads = as_label_set(LABELS).model_copy(update={"learned": learned})
    reference = client.label_sets.register("reads-titles", reads)
    manifest = [
        json.dumps({"custom_id": f"{n}", "uri": uri} | ({"text": text} if text else {}))
        for n, text in enumerate(texts)
    ]
    source = runs.pictures.put("titled.jsonl", "\n".join(manifest).encode())

    images = [ImageRef(id=str(n), uri=uri, text=text) for n, text in enumerate(texts)]
    job = client.classify(images, reference, timeout_s=60)
    ids = [
        client.runs.start(source, labels, out=runs.results.uri(out), output_format=form).id
        for labels, out, form in (
            (reference, "titled/", "jsonl"),
            (reference, "titled-table/", "parquet"),
            (LABELS, "titled-plain/", "jsonl"),
        )
    ]
    states = {ended(runs, client, run_id).state for run_id in ids}

    lines_, plain_lines = runs.lines("titled/"), runs.lines("titled-plain/")
    (table,) = [
        parquet.read_table(pa.BufferReader(runs.results.get(key))).to_pylist()
        for key in runs.results.keys("titled-table/results-")
    ]
    assert states == {"succeeded"}
    for image, line, row in zip(job.images, lines_, table, strict=True):
        title = None if image.title is None else image.title.model_dump()
        assert line["labels"] == row["labels"] == [one.model_dump() for one in image.labels]
        assert line.get("title") == row["title"] == title
    assert [line["title"]["label"] for line in lines_ if "title" in line] == [
        *("a cat", "a dog", "a cat")
    ]
    assert not any("title" in line for line in plain_lines)


@pytest.mark.parametrize(
    ("source", "out", "code"),
    [
        ("missing.jsonl", "results", "run_source_unreadable"),
        ("nothing/here/*.png", "results", "run_source_unreadable"),
        ("each-line.jsonl", "private", "run_files"),
    ],
)
def test_a_run_that_cannot_be_planned_fails_with_the_reason(
    runs: RunService, client: Client, source: str, out: str, code: str
) -> None:
    handle = client.runs.start(runs.pictures.uri(source), LABELS, out=f"s3://{out}/refused/")

    run = ended(runs, client, handle.id)

    assert run.state == "failed"
    assert run.failure is not None
    assert run.failure.code == code
    assert re.search(r"s3://", run.failure.message)
