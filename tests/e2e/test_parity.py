"""The service scores as transformers' pipeline does, for every type of checkpoint.

Everything of a worker is real here but Celery: storage, children, batches, labels.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from labelyard.label_sets import as_label_set
from labelyard.messages import ImageRef, ImageResult, Job, new_job_id
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.services import Services, open_services
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import lite
from labelyard_worker.vision.checkpoint import load_checkpoint
from tests.support import odd_pictures, pictures
from tests.support.checkpoints import MODEL_TYPES, pipeline_for, tiny_checkpoint
from tests.support.service import Service

TOLERANCE = 1e-4
LABELS = [f"a thing number {number}" for number in range(18)] + ["a cat", "a dog"]
PICTURES = {
    "photo.jpg": pictures.jpeg((320, 240)),
    "alpha.png": pictures.transparent_png((200, 150)),
    "grey.jpg": pictures.greyscale_jpeg((120, 200)),
    "rotated.jpg": pictures.rotated_jpeg((210, 140)),
    "wide.jpg": pictures.jpeg((500, 7)),
    "tall.jpg": pictures.jpeg((5, 400)),
    "key.png": pictures.transparent_palette_png((200, 150)),
    "key.gif": odd_pictures.TRANSPARENT["key.gif"](),
}


@contextmanager
def services_of(folder: Path, service: Service) -> Iterator[Services]:
    """Build a worker's services with the pipeline's exact decoding."""
    settings = WorkerSettings(
        checkpoint=str(folder),
        device="cpu",
        dtype="float32",
        decode="exact",
        transparency="drop",
        image_cache_bytes=0,
        health_port=-1,
        namespace="parity",
        broker_url=service.variables["LABELYARD_BROKER_URL"],
        ledger_url=service.variables["LABELYARD_LEDGER_URL"],
        s3_endpoint_url=service.seaweed.endpoint_url,
        s3_region=service.seaweed.region,
    )
    services = open_services(settings, load=load_checkpoint)
    try:
        yield services
    finally:
        services.close()


def results_of(services: Services, uris: dict[str, str], labels: list[str]) -> list[ImageResult]:
    """Classify all pictures as one job: a mixed batch."""
    job = Job(
        job_id=new_job_id(),
        images=tuple(ImageRef(id=name, uri=uri) for name, uri in uris.items()),
        label_set=as_label_set(labels),
        top_k=len(labels),
    )
    token = Token(job.job_id, timeout_s=60, expires_in_s=None)
    return list(services.classifier.classify(job, priority="interactive", token=token).images)


def by_label(result: ImageResult) -> dict[str, float]:
    """Read scores by the label's name."""
    assert result.error is None, result.error
    return {label.name: label.score for label in result.labels}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_service_scores_as_the_pipeline_does(
    model_type: str,
    service: Service,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, service.variables[name])
    folder = tiny_checkpoint(model_type, tmp_path_factory.getbasetemp() / "parity")
    uris = {name: service.pictures.put(f"parity/{name}", raw) for name, raw in PICTURES.items()}
    lite.register()
    judge = pipeline_for(folder)

    with services_of(folder, service) as services:
        for labels in (LABELS[:1], LABELS[:2], LABELS):
            mixed = [by_label(result) for result in results_of(services, uris, labels)]
            alone = [
                by_label(results_of(services, {name: uri}, labels)[0]) for name, uri in uris.items()
            ]

            for raw, *ours in zip(PICTURES.values(), mixed, alone, strict=True):
                found = judge(Image.open(io.BytesIO(raw)), candidate_labels=labels)
                wanted = {each["label"]: each["score"] for each in found}
                for scores in ours:
                    assert scores == pytest.approx(wanted, abs=TOLERANCE)
