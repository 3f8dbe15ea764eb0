"""Build a job from a producer's arguments; the same for both clients."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from labelyard.arguments import lifetime_s, listed, text
from labelyard.errors import InvalidMessageError, LabelyardError
from labelyard.fields import CONTROL_CHARACTERS
from labelyard.label_sets import as_label_set
from labelyard.label_sets.versions import Alias, is_alias
from labelyard.ledger import Opened
from labelyard.lifetimes import LIFETIMES
from labelyard.messages import (
    Deliver,
    ImageRef,
    Job,
    Label,
    LabelSet,
    job_id_for,
    new_job_id,
    parse_job,
)
from labelyard.publisher import Outgoing
from labelyard.queues import Queue
from labelyard.settings import ClientSettings

Image: TypeAlias = str | tuple[str, str] | ImageRef
Labels: TypeAlias = LabelSet | Sequence[str | Label] | str | Alias
LONGEST_MADE_ID: Final = 240
#: Options that the contract takes as they are.
PLAIN_OPTIONS: Final = (
    "top_k",
    "rescore",
    "vectors",
    "explain_grid",
    "tag",
    "deliver",
    "trace",
)


class JobOptions(TypedDict, total=False):
    """Options of a job besides its images and labels.

    Attributes:
        top_k: How many labels, best first, the result names for each image.
        rescore: Score from known embeddings, without reading the pictures.
        vectors: Name the vectors of pictures in the result, to make examples of.
        explain: Labels to explain for each picture: where it was seen, and which label competed.
        explain_grid: Windows along each side of a picture, 2 to 8; 4 if not given.
        tenant: On whose behalf; the settings' tenant if not given.
        expires_at: After this instant nobody wants the result any more.
        expires_in_s: The same, in seconds from now.
        idempotency_key: The tenant's own name for the job: a second submit under the
            same key returns the first job, whatever its other fields are.
        tag: Name by which consumers of events choose jobs, for example a campaign.
        deliver: Where the result goes besides the ledger.
        trace: Carried into the worker's logs, for example a W3C ``traceparent``.
    """

    top_k: int
    rescore: bool
    vectors: bool
    explain: Sequence[str]
    explain_grid: int
    tenant: str
    expires_at: datetime
    expires_in_s: float
    idempotency_key: str
    tag: str
    deliver: Deliver
    trace: dict[str, str]


def make_job(
    settings: ClientSettings,
    images: Iterable[Image],
    labels: Labels,
    **options: Unpack[JobOptions],
) -> Job:
    """Make a job, checked against the contract.

    Raises:
        InvalidMessageError: A field does not follow the contract; the text names it.
    """
    if unknown := sorted(options.keys() - JobOptions.__annotations__.keys()):
        raise InvalidMessageError(f"{unknown[0]}: there is no such option of a job")
    tenant = text(options.get("tenant", settings.tenant), name="tenant")
    key = options.get("idempotency_key")
    if key is not None:
        key = text(key, name="idempotency_key")
    plain: dict[str, Any] = {name: options[name] for name in PLAIN_OPTIONS if name in options}
    if "explain" in options:
        plain["explain"] = tuple(listed(options["explain"], name="explain"))
    job_id = new_job_id() if key is None else job_id_for(tenant, key)
    job = parse_job(
        {
            **plain,
            "job_id": job_id,
            "tenant": tenant,
            "images": name_images(images),
            **_label_set(labels, job_id=job_id),
            "expires_at": _expiry(options),
        }
    )
    if "expires_in_s" in options:
        LIFETIMES.remember(job.job_id, lifetime_s(options["expires_in_s"]))
    else:
        LIFETIMES.forget(job.job_id)
    return job


def name_images(images: Iterable[Image]) -> tuple[ImageRef | dict[str, str], ...]:
    """Assign an id to each image: the one it came with, else its address, made unique.

    Raises:
        InvalidMessageError: A lone address was given in place of a list.
    """
    if isinstance(images, str):
        shown = images[:200].encode("ascii", "backslashreplace").decode()
        raise InvalidMessageError(f'images must be a list: ["{shown}"]')
    taken: set[str] = set()
    named: list[ImageRef | dict[str, str]] = []
    for image in listed(images, name="images"):
        if isinstance(image, str):
            image_id = _unique_id(image, taken)
            taken.add(image_id)
            named.append({"id": image_id, "uri": image})
        elif isinstance(image, tuple) and len(image) == 2:
            named.append({"id": image[0], "uri": image[1]})
        else:
            named.append(image)  # the contract refuses what it is not
    return tuple(named)


def _unique_id(uri: str, taken: set[str]) -> str:
    uri = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", uri)  # an id may hold none
    if len(uri) > LONGEST_MADE_ID:
        digest = hashlib.sha256(uri.encode(errors="replace")).hexdigest()[:16]
        uri = f"{uri[: LONGEST_MADE_ID - 17]}~{digest}"
    image_id, count = uri, 1
    while image_id in taken:
        count += 1
        image_id = f"{uri}#{count}"
    return image_id


def _label_set(labels: Labels, *, job_id: str) -> dict[str, LabelSet | str]:
    """Return the fields that name the labels of a job."""
    if isinstance(labels, Alias):
        fields: dict[str, LabelSet | str] = {"label_set": labels.reference, "alias": labels.name}
        if (canary := labels.canary_of(job_id)) is not None:
            fields["canary"] = canary
        return fields
    return {"label_set": reference_or_set(labels)}


def reference_or_set(labels: Labels) -> LabelSet | str:
    """Return the reference that *labels* is, else a label set of it.

    Raises:
        InvalidMessageError: They make no label set, or are an alias that was not read.
    """
    if isinstance(labels, Alias):
        return labels.reference
    if isinstance(labels, str) and "@sha256:" in labels:
        return labels
    if is_alias(labels):
        raise InvalidMessageError(
            f"{labels} is an alias: read it with `await client.label_sets.alias(…)`, and pass "
            "what that returns"
        )
    return as_label_set(labels, within="label_set")


def _expiry(options: JobOptions) -> datetime | None:
    if "expires_in_s" not in options:
        return options.get("expires_at")
    if "expires_at" in options:
        raise InvalidMessageError("give expires_at or expires_in_s, not both")
    return datetime.now(UTC) + timedelta(seconds=lifetime_s(options["expires_in_s"]))


@dataclass
class BulkSubmission:
    """The ledger's answers to jobs that were submitted together.

    Attributes:
        accepted: Jobs that the ledger has, and whether each is new.
        outgoing: Messages of those that are new.
        refusal: Why the ledger did not take one of them.
    """

    accepted: list[tuple[Job, Opened]] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    refusal: LabelyardError | None = None

    def add(
        self, jobs: Sequence[Job], answers: Sequence[Opened | LabelyardError], *, queue: Queue
    ) -> list[Outgoing]:
        """Add the ledger's answers for *jobs*; returns the messages to publish now."""
        outgoing = []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, LabelyardError):
                self.refusal = answer
                continue
            self.accepted.append((job, answer))
            if answer.is_new:
                outgoing.append(Outgoing.of(job, queue=queue, published_at=answer.at))
        return outgoing

    def raise_refusal(self) -> None:
        """Raise the refusal, with the number of accepted jobs and whether the caller can retry.

        Raises:
            LabelyardError: The refusal, if there is one.
        """
        if self.refusal is not None:
            text, *rest = self.refusal.args
            advice = f"{text}; {len(self.accepted)} jobs were accepted"
            if self.refusal.is_retryable:
                advice += " before: submit the same jobs again, those are not run twice"
            raise type(self.refusal)(advice, *rest)
