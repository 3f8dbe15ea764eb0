"""Commands that submit jobs, and wait for their results."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer

from labelyard.cli.inputs import (
    AsJson,
    Images,
    LabelsFile,
    LabelText,
    Templates,
    TimeoutS,
    Uris,
    UrisFile,
    batched,
    image_refs,
    read_labels,
    read_uris,
)
from labelyard.cli.output import print_json, print_outcome
from labelyard.client import Client, JobHandle
from labelyard.messages import MAX_IMAGES, Job
from labelyard.queues import Queue, SubmitQueueName
from labelyard.submission import Labels

# Enough to keep several workers busy, few enough to hold in memory.
JOBS_AT_ONCE = 64

JobIds = Annotated[list[str], typer.Argument(metavar="JOB_ID...")]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="Labels shown for an image")]
QueueName = Annotated[SubmitQueueName, typer.Option("--queue", help="Interactive work goes first")]
ExpiresInS = Annotated[
    float | None, typer.Option("--expires-in-s", help="After this nobody wants the result")
]


def classify(
    images: Images,
    labels: LabelText = "",
    labels_file: LabelsFile = None,
    template: Templates = None,
    top_k: TopK = 5,
    timeout_s: TimeoutS = 60.0,
    queue: QueueName = Queue.INTERACTIVE.value,
    as_json: AsJson = False,
) -> None:
    """Classify pictures and print their labels. Local files are uploaded first."""
    label_set = read_labels(labels, labels_file, template)
    with Client() as client:
        jobs = _jobs(client, images, label_set, top_k=top_k, expires_in_s=None)
        _print_outcomes(client, _submit(client, jobs, queue), timeout_s, as_json=as_json)


def submit(
    images: Images,
    labels: LabelText = "",
    labels_file: LabelsFile = None,
    template: Templates = None,
    top_k: TopK = 5,
    expires_in_s: ExpiresInS = None,
    queue: QueueName = Queue.INTERACTIVE.value,
    as_json: AsJson = False,
) -> None:
    """Submit pictures and print the ids of their jobs: 64 pictures go into a job."""
    label_set = read_labels(labels, labels_file, template)
    with Client() as client:
        jobs = _jobs(client, images, label_set, top_k=top_k, expires_in_s=expires_in_s)
        for job, handle in zip(jobs, _submit(client, jobs, queue), strict=True):
            if as_json:
                images_of = [{"id": image.id, "uri": image.uri} for image in job.images]
                print_json({"job_id": handle.id, "images": images_of})
            else:
                typer.echo(handle.id)


def rescore(
    uris: Uris = None,
    uris_file: UrisFile = None,
    labels: LabelText = "",
    labels_file: LabelsFile = None,
    template: Templates = None,
    top_k: TopK = 5,
    timeout_s: TimeoutS = 600.0,
    queue: QueueName = Queue.BULK.value,
    as_json: AsJson = False,
) -> None:
    """Score pictures that were classified before against other labels, without reading them."""
    label_set = read_labels(labels, labels_file, template)
    images = read_uris(uris or [], uris_file)
    has_failed = False
    with Client() as client:
        while some := list(islice(images, MAX_IMAGES * JOBS_AT_ONCE)):
            jobs = [
                client.prepare(part, label_set, top_k=top_k, rescore=True)
                for part in batched(some, MAX_IMAGES)
            ]
            handles = _submit(client, jobs, queue)
            has_failed |= not _have_outcomes(client, handles, timeout_s, as_json=as_json)
    if has_failed:
        raise typer.Exit(1)


def result(job_id: JobIds, as_json: AsJson = False) -> None:
    """Print the results of jobs that are final."""
    with Client() as client:
        _print_outcomes(client, job_id, 0.0, as_json=as_json)


def wait(job_id: JobIds, timeout_s: TimeoutS = 60.0, as_json: AsJson = False) -> None:
    """Wait for jobs, and print their results."""
    with Client() as client:
        _print_outcomes(client, job_id, timeout_s, as_json=as_json)


def _jobs(
    client: Client,
    images: Sequence[str],
    labels: Labels,
    *,
    top_k: int,
    expires_in_s: float | None,
) -> list[Job]:
    """Make as many jobs as *images* need."""
    refs = iter(image_refs(images, client.settings))
    jobs = []
    while some := list(islice(refs, MAX_IMAGES)):
        if expires_in_s is None:
            jobs.append(client.prepare(some, labels, top_k=top_k))
        else:
            jobs.append(client.prepare(some, labels, top_k=top_k, expires_in_s=expires_in_s))
    return jobs


def _submit(client: Client, jobs: list[Job], queue: SubmitQueueName) -> list[JobHandle]:
    handles = client.submit_many(jobs, queue=queue)
    if not all(handle.is_published for handle in handles):
        typer.echo(
            "broker_unavailable: the jobs are accepted, and sent when the broker is back", err=True
        )
    return handles


def _print_outcomes(
    client: Client, jobs: Sequence[str | JobHandle], timeout_s: float, *, as_json: bool
) -> None:
    """Print results as they come; exit with 1 unless every image has its labels."""
    if not _have_outcomes(client, jobs, timeout_s, as_json=as_json):
        raise typer.Exit(1)


def _have_outcomes(
    client: Client, jobs: Sequence[str | JobHandle], timeout_s: float, *, as_json: bool
) -> bool:
    """Print results as they come; return whether every image has its labels."""
    outcomes = [
        print_outcome(record, as_json=as_json)
        for record in client.as_completed(jobs, timeout_s=timeout_s)
    ]
    return all(outcomes)
