"""Rules that turn events of object storage into jobs, as the rule file has them."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from labelyard.errors import LabelyardError
from labelyard.fields import StreamName, Switch, Tenant, TopK, TraceKey, TraceValue
from labelyard.ingest.events import REMOVAL, ObjectEvent
from labelyard.ingest.templates import fill_in, placeholders_of
from labelyard.messages import MAX_IMAGES, Deliver, ImageRef, Job, LabelSet
from labelyard.queues import Queue, SubmitQueueName

DAY_S: Final = 86_400
MAX_RULES: Final = 500
SAMPLE: Final = "0"
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Kind = Annotated[str, Field(pattern=r"^(s3:)?\w+:[\w:*]+$", max_length=128)]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_labels(value: Any) -> Any:
    """Read a list of names as a label set."""
    if isinstance(value, list):
        return {"labels": [{"name": one} if isinstance(one, str) else one for one in value]}
    return value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(max_length=100)]


class RuleTable(BaseModel):
    """Base of the tables of a rule file: frozen, and strict about unknown fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class RuleDeliver(RuleTable):
    """Destinations of a rule's results.

    Attributes:
        object_uri: Address of an object, with placeholders.
        webhook: Address that gets the result by POST.
        stream: Name of an event stream.
    """

    object_uri: str | None = Field(default=None, max_length=2048)
    webhook: str | None = None
    stream: StreamName | None = None

    @field_validator("object_uri")
    @classmethod
    def _placeholders_are_known(cls, template: str | None) -> str | None:
        if template is not None:
            placeholders_of(template)
        return template

    @field_validator("webhook")
    @classmethod
    def _webhook_can_be_called(cls, webhook: str | None) -> str | None:
        try:
            Deliver(webhook=webhook)
        except LabelyardError as error:
            raise ValueError(str(error.args[0]).removeprefix("webhook: ")) from error
        return webhook


class IngestRule(RuleTable):
    """One rule: which events it takes, and which jobs they become.

    Attributes:
        name: Unique name; it is part of the ledger's marks, so that a renamed rule sees every
            event as new.
        bucket: Name of the bucket; ``*`` and ``?`` stand for any characters.
        prefix: Beginnings of keys, one of which must fit; empty takes all keys.
        suffix: Ends of keys, one of which must fit; empty takes all keys.
        events: Kinds of events as S3 names them; ``ObjectCreated:*`` takes all of that kind.
        labels: Label set, or a list of names.
        label_set: Name of a registered label set, for its newest version at the start,
            ``name@sha256:…``, or an alias, which is read for each group of jobs; in place of
            *labels*.
        queue: Queue of the jobs.
        tenant: Tenant of the jobs; the setting LABELYARD_TENANT if it is not given.
        top_k: Number of labels in a result.
        deliver: Destinations of the results.
        tags: Entries for the jobs' ``trace``, which logs show.
        expires_in_s: Seconds after which nobody wants a result any more.
        batch: Most images of a job. Above 1 an event waits for others, up to *batch_wait_s*.
        batch_wait_s: Seconds that the first event of a job waits for others.
        every_version: Whether each version of an object gets a job, also one that arrives late;
            else an older event is skipped, and the job of an older event is cancelled.
        pin: Whether the job reads exactly the event's version or ETag; else the object's content
            when the worker reads it. The default is *every_version*.
    """

    name: _Name
    bucket: str = Field(min_length=1, max_length=63)
    prefix: _Texts = ()
    suffix: _Texts = ()
    events: Annotated[tuple[_Kind, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (
        "ObjectCreated:*",
    )
    labels: Annotated[LabelSet | None, BeforeValidator(_as_labels)] = None
    label_set: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(@sha256:[0-9a-f]{64}|@[a-z0-9][a-z0-9._-]{0,63})?$",
    )
    queue: SubmitQueueName = Queue.INTERACTIVE.value
    tenant: Tenant | None = None
    top_k: TopK = 5
    deliver: RuleDeliver = RuleDeliver()
    tags: dict[TraceKey, TraceValue] = Field(default_factory=dict, max_length=20)
    expires_in_s: PositiveFloat | None = Field(default=None, le=365 * DAY_S)
    batch: int = Field(default=1, ge=1, le=MAX_IMAGES)
    batch_wait_s: NonNegativeFloat = Field(default=0.5, le=5)
    every_version: Switch = False
    pin: Switch | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether jobs read exactly the event's version or ETag."""
        return self.every_version if self.pin is None else self.pin

    @field_validator("events")
    @classmethod
    def _events_leave_an_object(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        for one in events:
            if one.removeprefix("s3:").startswith(REMOVAL):
                raise ValueError(f"{one} leaves no object: write kinds such as ObjectCreated:*")
        return events

    @model_validator(mode="after")
    def _has_labels_and_makes_jobs(self) -> Self:
        if (self.labels is None) == (self.label_set is None):
            raise ValueError("write either labels or label_set")
        self._check_object_uri()
        try:
            self._sample_job()
        except LabelyardError as error:
            raise ValueError(str(error.args[0])) from error
        return self

    def _check_object_uri(self) -> None:
        if (template := self.deliver.object_uri) is None:
            return
        names = placeholders_of(template)
        if self.batch > 1 and names & {"bucket", "key", "version_id"}:
            raise ValueError("deliver.object_uri: a job of several images has no key: use {job_id}")
        needed = {"version_id"} if self.every_version else {"key"}
        if "job_id" not in names and not needed <= names:
            wanted = "{version_id}" if self.every_version else "{key}"
            raise ValueError(
                f"deliver.object_uri: results would overwrite one another: use {wanted} or {{job_id}}"
            )
        for key in self._sample_keys():
            written = self._fill_in(template, bucket=self.bucket, key=key, job_id=SAMPLE)
            bucket, _, result_key = written.removeprefix("s3://").partition("/")
            if self.place_mismatch(bucket, result_key) is None:
                raise ValueError(
                    "deliver.object_uri: the rule would take its own results as pictures: write "
                    "them to another bucket, or add a suffix to the rule"
                )

    def _sample_keys(self) -> Iterator[str]:
        for prefix in self.prefix or ("",):
            for suffix in self.suffix or ("",):
                yield f"{prefix}{SAMPLE}{suffix}"

    def _sample_job(self) -> None:
        labels = self.labels or f"{(self.label_set or '').partition('@')[0]}@sha256:{SAMPLE * 64}"
        images = tuple(ImageRef(id=str(n), uri="s3://bucket/key") for n in range(self.batch))
        bucket = self.bucket.replace("*", SAMPLE).replace("?", SAMPLE)
        Job(
            job_id=SAMPLE,
            images=images,
            label_set=labels,
            top_k=self.top_k,
            deliver=self.delivery(bucket=bucket, key=next(self._sample_keys()), job_id=SAMPLE),
            trace=self.tags,
        )

    def delivery(
        self, *, bucket: str, key: str, job_id: str, version_id: str | None = None
    ) -> Deliver:
        """Return the destinations of one job's result."""
        template, uri = self.deliver.object_uri, None
        if template is not None:
            uri = self._fill_in(
                template, bucket=bucket, key=key, job_id=job_id, version_id=version_id
            )
        return Deliver(object_uri=uri, webhook=self.deliver.webhook, stream=self.deliver.stream)

    def _fill_in(
        self, template: str, *, bucket: str, key: str, job_id: str, version_id: str | None = None
    ) -> str:
        values = {"bucket": bucket, "key": key, "job_id": job_id, "rule": self.name}
        return fill_in(template, {**values, "version_id": version_id or "null"})

    def mismatch(self, event: ObjectEvent) -> str | None:
        """Return the field that keeps the rule from taking *event*; ``None`` if it takes it."""
        if (field := self.place_mismatch(event.bucket, event.key)) is not None:
            return field
        kinds = (one.removeprefix("s3:") for one in self.events)
        return None if any(fnmatchcase(event.kind, kind) for kind in kinds) else "events"

    def place_mismatch(self, bucket: str, key: str) -> str | None:
        """Return the field that excludes an object's address; ``None`` if there is none."""
        if bucket != self.bucket and not fnmatchcase(bucket, self.bucket):
            return "bucket"
        if self.prefix and not key.startswith(self.prefix):
            return "prefix"
        return "suffix" if self.suffix and not key.endswith(self.suffix) else None


class IngestLimits(RuleTable):
    """Limits of the service.

    Attributes:
        max_body_bytes: Largest body of a request; S3 sends up to 64 KiB, SNS up to 256 KiB.
        max_requests: Requests that are answered at once; one more gets 503.
        request_timeout_s: Seconds that a sender has for a request, from its first byte.
        hold_s: Seconds that a request is held while the queue is full, a quota is used up or the
            ledger is away, before the sender gets 429 or 503. Keep it below the timeout of the
            sender.
        window_s: Seconds for which duplicates and older events are recognised. Each object costs
            about 300 bytes of Redis for that long.
        drain_s: Seconds that running requests have after SIGTERM.
    """

    max_body_bytes: PositiveInt = Field(default=1024 * 1024, le=16 * 1024 * 1024)
    max_requests: PositiveInt = Field(default=256, le=10_000)
    request_timeout_s: PositiveFloat = Field(default=10.0, le=300)
    hold_s: NonNegativeFloat = Field(default=5.0, le=20)
    window_s: PositiveFloat = Field(default=DAY_S, le=30 * DAY_S)
    drain_s: NonNegativeFloat = Field(default=20.0, le=600)


class IngestRules(RuleTable):
    """Content of a rule file.

    Attributes:
        match: ``first``: an event belongs to the first rule that takes it; ``all``: to each.
        sns_topics: ARNs of topics whose subscriptions are confirmed, and whose messages are read.
        limits: Limits of the service.
        rules: The rules, in their order.
    """

    match: Literal["first", "all"] = "first"
    sns_topics: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    limits: IngestLimits = IngestLimits()
    rules: tuple[IngestRule, ...] = Field(min_length=1, max_length=MAX_RULES)

    @field_validator("sns_topics")
    @classmethod
    def _topics_are_arns(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for one in topics:
            if not one.startswith("arn:aws") or one.count(":") < 5:
                raise ValueError("write the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME")
        return topics

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [rule.name for rule in self.rules]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules have the name {repeated[0]}: name each rule once")
        return self

    def matching(self, event: ObjectEvent) -> list[IngestRule]:
        """Return the rules that take *event*: none, the first, or all."""
        taking = [rule for rule in self.rules if rule.mismatch(event) is None]
        return taking[:1] if self.match == "first" else taking
