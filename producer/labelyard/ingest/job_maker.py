"""Jobs made of the events that one rule takes."""

from collections.abc import Sequence
from typing import Final

from labelyard.ingest.events import ObjectEvent
from labelyard.ingest.rules import IngestRule
from labelyard.messages import Deliver, ImageRef, Job
from labelyard.settings import ClientSettings
from labelyard.submission import JobOptions, Labels, make_job, name_images

#: Stands for a job's id until it is known; as long as one.
LONG_ID: Final = "0" * 36


class JobMaker:
    """Makes the jobs of one rule."""

    def __init__(self, rule: IngestRule, *, labels: Labels, settings: ClientSettings) -> None:
        """Make jobs for *rule*.

        Args:
            labels: The rule's label set, the reference of a registered one, or an alias.
            settings: Settings of the client that submits the jobs.
        """
        self._rule = rule
        self._labels = labels
        self._settings = settings

    def check(self, event: ObjectEvent) -> None:
        """Check that a job can be made of *event*.

        Raises:
            InvalidMessageError: An address that is made of its key is not allowed.
        """
        self._images([event])
        self._deliver(event, job_id=LONG_ID)

    def make(self, events: Sequence[ObjectEvent], labels: Labels | None = None) -> Job:
        """Make the job of *events*, which has a new id.

        Args:
            labels: What the rule's alias names now, if it has one.
        """
        rule = self._rule
        options: JobOptions = {
            "top_k": rule.top_k,
            "trace": dict(rule.tags),
            "deliver": self._deliver(events[0], job_id=LONG_ID),
        }
        if rule.tenant is not None:
            options["tenant"] = rule.tenant
        if rule.expires_in_s is not None:
            options["expires_in_s"] = rule.expires_in_s
        job = make_job(self._settings, self._images(events), labels or self._labels, **options)
        return job.model_copy(update={"deliver": self._deliver(events[0], job_id=job.job_id)})

    def with_images(self, job: Job, events: Sequence[ObjectEvent]) -> Job:
        """Return *job* with the images of *events* alone."""
        return job.model_copy(update={"images": self._images(events)})

    def _deliver(self, event: ObjectEvent, *, job_id: str) -> Deliver:
        return self._rule.delivery(
            bucket=event.bucket, key=event.key, job_id=job_id, version_id=event.version_id
        )

    def _images(self, events: Sequence[ObjectEvent]) -> tuple[ImageRef, ...]:
        is_pinned = self._rule.is_pinned
        return tuple(
            ImageRef(
                id=named["id"] if isinstance(named, dict) else named.id,
                uri=event.uri,
                version_id=event.version_id if is_pinned else None,
                etag=event.etag if is_pinned and event.version_id is None else None,
            )
            for named, event in zip(name_images(one.uri for one in events), events, strict=True)
        )
