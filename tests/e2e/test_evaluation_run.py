"""An evaluation by a bulk run: the same answers as by jobs, one run however often it is started."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labelyard import AsyncClient, Client
from labelyard.errors import RunStateError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.label_sets import as_label_set
from labelyard.messages import Learned, TitleWeights
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support.command_line import run
from tests.support.service import PICTURES, RESULTS
from tests.support.waiting import wait_until

pytestmark = pytest.mark.allow_persistent_keys("registered label sets stay")
LABELS = ("a cat", "a dog", "a fox")
TEXTS = ("a dog in the snow", None)
IMAGES = 9
GONE = 4
#: What differs between two evaluations of the same pictures.
OF_ITS_OWN = {"cost", "folder"}


@pytest.fixture
def client(instant: InstantService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Connect a producer to the worker without a real model; the command line, too."""
    for name, value in instant.service.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", RESULTS)
    with Client() as producer:
        yield producer


def rows_of(instant: InstantService, name: str) -> list[dict[str, Any]]:
    """Store pictures, and return the lines of their manifest; one picture is missing."""
    uris = [instant.picture(f"{name}/{number}.jpg") for number in range(IMAGES)]
    uris[GONE] = f"s3://{PICTURES}/{name}/gone.jpg"
    return [
        {"image": uri, "label": LABELS[number % len(LABELS)], "text": TEXTS[number % len(TEXTS)]}
        for number, uri in enumerate(uris)
    ]


def comparable(evaluation: Evaluation) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures and the predictions of an evaluation, without the cost."""
    report = {name: one for name, one in evaluation.report().items() if name not in OF_ITS_OWN}
    return report, list(evaluation.predictions())


@dataclass(frozen=True)
class Case:
    """A manifest, a set that reads texts, and their evaluation by jobs."""

    rows: list[dict[str, Any]]
    manifest: Path
    reference: str
    by_jobs: Evaluation
    out: str


@pytest.fixture
def case(
    instant: InstantService, client: Client, tmp_path: Path, request: pytest.FixtureRequest
) -> Case:
    name = f"run-{request.function.__name__[-20:].replace('_', '-')}"
    rows = rows_of(instant, name)
    model = client.classify([rows[0]["image"]], list(LABELS), timeout_s=60).model
    assert model is not None
    titles = TitleWeights(picture=0.5, title=1.0)
    learned = Learned(checkpoint=model.fingerprint, titles=titles)
    reads_texts = as_label_set(list(LABELS)).model_copy(update={"learned": learned})
    reference = client.label_sets.register(name, reads_texts)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    by_jobs = client.evaluate(reference, manifest, timeout_s=60)
    return Case(rows, manifest, reference, by_jobs, f"s3://{RESULTS}/{name}/")


def test_a_run_gives_the_figures_and_predictions_of_jobs_and_does_not_count_for_drift(
    client: Client, case: Case, tmp_path: Path
) -> None:
    by_run = client.evaluate(case.reference, case.manifest, out=case.out, timeout_s=60)

    assert comparable(by_run) == comparable(case.by_jobs)
    assert [place for place, one in enumerate(by_run.scored) if one.error] == [GONE]
    assert by_run.scored[GONE].error == case.by_jobs.scored[GONE].error
    assert by_run.report()["titles"]["n"] > 0
    plain = tmp_path / "plain.jsonl"
    uris = [one["image"] for one in case.rows[:2]]
    plain.write_text("\n".join(json.dumps({"custom_id": uri, "uri": uri}) for uri in uris))
    client.runs.start(plain, case.reference, out=f"s3://{RESULTS}/plain/").wait(timeout_s=60)
    counted = wait_until(lambda: client.label_sets.drift(case.reference).counts.n, within_s=30)
    assert counted == len(uris)


def test_an_evaluation_reads_the_results_of_an_equal_run_again(
    client: Client, case: Case, tmp_path: Path
) -> None:
    client.evaluate(case.reference, case.manifest, out=case.out, timeout_s=60)

    again = run(
        *("evaluate", case.reference, case.manifest, "--out", case.out),
        *("-o", tmp_path / "e", "--json"),
    )
    other = asyncio.run(evaluate_with_asyncio(case))

    [started] = [one for one in client.runs.list() if one.request.out.startswith(case.out)]
    assert (started.request.tag, started.images) == ("evaluation", IMAGES)
    assert again.exit_code == 1, again.output  # a picture is missing
    assert f"run {started.run_id} scored the same pictures before" in again.stderr
    lines = (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()
    report, predictions = json.loads(json.dumps(comparable(case.by_jobs)))
    assert [json.loads(line) for line in lines] == predictions
    printed = json.loads(again.stdout)
    assert {name: one for name, one in printed.items() if name not in OF_ITS_OWN} == report
    assert comparable(other) == comparable(case.by_jobs)


async def evaluate_with_asyncio(case: Case) -> Evaluation:
    """Evaluate by a run with the other client."""
    async with AsyncClient() as client:
        return await client.evaluate(case.reference, case.manifest, out=case.out, timeout_s=60)


def test_a_prefix_that_the_workers_refuse_is_the_error_of_the_run(
    instant: InstantService, client: Client
) -> None:
    rows = rows_of(instant, "refused")
    with pytest.raises(RunStateError, match=r"is failed: .*LABELYARD_RESULT_BUCKETS"):
        client.evaluate(list(LABELS), rows, out=f"s3://{PICTURES}/refused/", timeout_s=60)
