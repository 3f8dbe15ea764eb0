"""Commands that submit jobs, and wait for their results."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer

from labelyard.cli.inputs import (
    AsJson,
    Images,
    TimeoutS,
    Uris,
    UrisFile,
    batched,
    image_refs,
    is_local,
    read_uris,
)
from labelyard.cli.job_wait import JobWait, Quiet, WaitingOptions, submit_jobs
from labelyard.cli.label_options import LabelChoice
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultOptions, open_writer
from labelyard.client import Client
from labelyard.command_group import EXIT_FAILED
from labelyard.messages import MAX_IMAGES, Deliver, Job, LabelSet
from labelyard.queues import Queue, SubmitQueueName
from labelyard.submission import JobOptions, Labels

# Enough to keep several workers busy, few enough to hold in memory.
JOBS_AT_ONCE = 64

JobIds = Annotated[list[str], typer.Argument(metavar="JOB_ID...")]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="Labels shown for an image")]
QueueName = Annotated[SubmitQueueName, typer.Option("--queue", help="Interactive work goes first")]
ExpiresInS = Annotated[
    float | None, typer.Option("--expires-in-s", help="After this nobody wants the result")
]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", help="Receiver that gets each job's result by POST"),
]

JobTag = Annotated[
    str | None, typer.Option("--tag", help="Name by which consumers of events choose jobs")
]


@with_options
def classify(
    images: Images,
    labels: LabelChoice,
    *,
    top_k: TopK = 5,
    tag: JobTag = None,
    timeout_s: TimeoutS = 60.0,
    queue: QueueName = Queue.INTERACTIVE.value,
    results: ResultOptions,
    waiting: WaitingOptions,
) -> None:
    """Classify pictures and print their labels. Local files are uploaded first."""
    label_set = labels.read()
    options = waiting.within(timeout_s)
    progress = ProgressLine(is_shown=not waiting.quiet)
    columns = count_columns(label_set, top_k=top_k)
    with (
        Client() as client,
        open_writer(results, labels=columns) as writer,
        JobWait(client, writer, progress, options) as wait_for,
    ):
        jobs = make_jobs(client, images, label_set, progress, top_k=top_k, tag=tag)
        wait_for.wait(wait_for.submit(jobs, queue))


@with_options
def submit(
    images: Images,
    labels: LabelChoice,
    *,
    top_k: TopK = 5,
    expires_in_s: ExpiresInS = None,
    webhook: Webhook = None,
    tag: JobTag = None,
    queue: QueueName = Queue.INTERACTIVE.value,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Submit pictures and print the ids of their jobs: 64 pictures go into a job."""
    label_set = labels.read()
    progress = ProgressLine(is_shown=not quiet)
    with Client() as client:
        jobs = make_jobs(
            client,
            images,
            label_set,
            progress,
            top_k=top_k,
            expires_in_s=expires_in_s,
            webhook=webhook,
            tag=tag,
        )
        for job, handle in zip(jobs, submit_jobs(client, jobs, queue), strict=True):
            if as_json:
                images_of = [{"id": image.id, "uri": image.uri} for image in job.images]
                print_json({"job_id": handle.id, "images": images_of})
            else:
                typer.echo(handle.id)


@with_options
def rescore(
    uris: Uris = None,
    uris_file: UrisFile = None,
    *,
    labels: LabelChoice,
    top_k: TopK = 5,
    timeout_s: TimeoutS = 600.0,
    queue: QueueName = Queue.BULK.value,
    results: ResultOptions,
    waiting: WaitingOptions,
) -> None:
    """Score pictures that were classified before against other labels, without reading them."""
    label_set = labels.read()
    images = read_uris(uris or [], uris_file)
    options = waiting.within(timeout_s)
    columns = count_columns(label_set, top_k=top_k)
    with (
        Client() as client,
        open_writer(results, labels=columns) as writer,
        JobWait(client, writer, ProgressLine(is_shown=not waiting.quiet), options) as wait_for,
    ):
        while some := list(islice(images, MAX_IMAGES * JOBS_AT_ONCE)):
            jobs = [
                client.prepare(part, label_set, top_k=top_k, rescore=True)
                for part in batched(some, MAX_IMAGES)
            ]
            wait_for.has_more = len(jobs) == JOBS_AT_ONCE
            wait_for.wait(wait_for.submit(jobs, queue))


@with_options
def result(
    job_id: JobIds,
    results: ResultOptions,
    quiet: Quiet = False,
) -> None:
    """Print the results of jobs that are final."""
    _ = quiet  # there is no summary; the group reads it for its own line
    with (
        Client() as client,
        open_writer(results, labels=None) as writer,
    ):
        outcomes = [writer.write(one) for one in client.as_completed(job_id, timeout_s=0.0)]
    if not all(outcomes):
        raise typer.Exit(EXIT_FAILED)


@with_options
def wait(
    job_id: JobIds,
    *,
    timeout_s: TimeoutS = 60.0,
    results: ResultOptions,
    waiting: WaitingOptions,
) -> None:
    """Wait for jobs, and print their results."""
    options = waiting.within(timeout_s)
    with (
        Client() as client,
        open_writer(results, labels=None) as writer,
        JobWait(client, writer, ProgressLine(is_shown=not waiting.quiet), options) as wait_for,
    ):
        wait_for.wait(job_id)


def make_jobs(
    client: Client,
    images: Sequence[str],
    labels: Labels,
    progress: ProgressLine,
    *,
    top_k: int,
    expires_in_s: float | None = None,
    webhook: str | None = None,
    tag: str | None = None,
) -> list[Job]:
    """Make as many jobs as *images* need; local files are uploaded."""
    if any(map(is_local, images)):
        client.open_images()  # before a thousand files are uploaded for nothing
    refs = iter(image_refs(images, client.settings, progress=progress))
    options: JobOptions = {"top_k": top_k}
    if expires_in_s is not None:
        options["expires_in_s"] = expires_in_s
    if webhook is not None:
        options["deliver"] = Deliver(webhook=webhook)
    if tag is not None:
        options["tag"] = tag
    jobs = []
    while some := list(islice(refs, MAX_IMAGES)):
        jobs.append(client.prepare(some, labels, **options))
    return jobs


def count_columns(labels: Labels, *, top_k: int) -> int:
    """Count the labels that a result names for an image, at most."""
    return min(top_k, len(labels.labels)) if isinstance(labels, LabelSet) else top_k
