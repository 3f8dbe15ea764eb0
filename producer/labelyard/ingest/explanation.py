"""Explanation of a notification: which rule takes each event, and the job that it becomes."""

from collections.abc import Iterator
from typing import Any

from labelyard.errors import InvalidMessageError
from labelyard.ingest.events import ObjectEvent
from labelyard.ingest.job_maker import JobMaker
from labelyard.ingest.notifications import read_notification
from labelyard.ingest.rules import IngestRule, IngestRules
from labelyard.settings import ClientSettings

#: Stands for the digest of a label set that a rule names without one.
NEWEST = "0" * 64


def explain(rules: IngestRules, body: bytes, settings: ClientSettings) -> Iterator[dict[str, Any]]:
    """Explain each part of a notification without sending anything.

    Returns:
        For each event its fields, the fields by which rules exclude it, and its jobs; for each
        ignored part the reason.

    Raises:
        InvalidMessageError: The body is not a notification.
    """
    notification = read_notification(body)
    topic = notification.topic_arn
    if topic and topic not in rules.sns_topics:
        yield {"refused": "403: sns_topics of the rule file lacks this topic", "topic_arn": topic}
        return
    if notification.subscription is not None:
        what = "confirmed" if notification.subscription.is_new else "ended"
        yield {"subscription": what, "topic_arn": topic}
    for reason in notification.ignored:
        yield {"ignored": reason}
    for event in notification.events:
        yield _explain_event(rules, event, settings)


def _explain_event(
    rules: IngestRules, event: ObjectEvent, settings: ClientSettings
) -> dict[str, Any]:
    taking = [] if event.is_removal else rules.matching(event)
    names = {rule.name for rule in taking}
    excluded = {
        rule.name: rule.mismatch(event) or "match" for rule in rules.rules if rule.name not in names
    }
    return {
        "event": {
            "source": event.source,
            "kind": event.kind,
            "bucket": event.bucket,
            "key": event.key,
            "version_id": event.version_id,
            "etag": event.etag,
            "order": event.order.kind,
        },
        "outcome": "removed" if event.is_removal else "job" if taking else "unmatched",
        "excluded_by": excluded,
        "jobs": [_explain_job(rule, event, settings) for rule in taking],
    }


def _explain_job(rule: IngestRule, event: ObjectEvent, settings: ClientSettings) -> dict[str, Any]:
    reference = rule.label_set or ""
    shown = [label.name for label in rule.labels.labels] if rule.labels else reference
    if "@sha256:" not in reference:
        reference = f"{reference.partition('@')[0]}@sha256:{NEWEST}"
    maker = JobMaker(rule, labels=rule.labels or reference, settings=settings)
    try:
        maker.check(event)
        job = maker.make([event])
    except InvalidMessageError as error:
        return {"rule": rule.name, "unusable": error.args[0]}
    [image] = job.images
    deliver = job.deliver.model_dump(exclude_none=True)
    if rule.deliver.object_uri is not None and "{job_id}" in rule.deliver.object_uri:
        deliver["object_uri"] = deliver["object_uri"].replace(job.job_id, "JOB_ID")
    return {
        "rule": rule.name,
        "queue": rule.queue,
        "tenant": job.tenant,
        "images": f"up to {rule.batch}" if rule.batch > 1 else "1",
        "image": image.model_dump(exclude_none=True, exclude={"id"}),
        "labels": shown,
        "top_k": rule.top_k,
        "deliver": deliver,
        "tags": dict(rule.tags),
    }
