"""Build the senders of deliveries, and the times of their attempts, from the worker's settings."""

from labelyard.ledger.commands import RetrySchedule
from labelyard_worker.intake.sources.s3_clients import open_store
from labelyard_worker.intake.sources.s3_settings import resolve_s3
from labelyard_worker.jobs.delivery.objects import ObjectSender
from labelyard_worker.jobs.delivery.permissions import ResultPlaces, WebhookHosts
from labelyard_worker.jobs.delivery.plan import Sender
from labelyard_worker.jobs.delivery.signature import webhook_keys
from labelyard_worker.jobs.delivery.webhook import WebhookSender
from labelyard_worker.settings import WorkerSettings


def senders_of(settings: WorkerSettings) -> dict[str, Sender]:
    """Build the senders, by the name that records give to their deliveries.

    Raises:
        ServiceConfigError: A host, a place for results or the webhook secret is malformed.
    """
    return {
        "object": object_sender_of(settings),
        "webhook": WebhookSender(
            hosts=WebhookHosts.parse(settings.webhook_hosts),
            keys=webhook_keys(settings.webhook_secret),
            timeout_s=settings.webhook_timeout_s,
        ),
    }


def schedule_of(settings: WorkerSettings) -> RetrySchedule:
    """Read the times of the attempts at a delivery that fails."""
    return RetrySchedule(
        first_pause_s=settings.delivery_first_pause_s,
        longest_pause_s=settings.delivery_longest_pause_s,
        deliver_for_s=settings.deliver_for_s,
    )


def object_sender_of(settings: WorkerSettings) -> ObjectSender:
    """Build a sender that writes objects; it belongs to one thread.

    Raises:
        ServiceConfigError: LABELYARD_RESULT_BUCKETS has another form.
    """
    s3 = resolve_s3(settings, timeout_s=settings.object_timeout_s)
    return ObjectSender(
        places=ResultPlaces.parse(settings.result_buckets, readable=settings.allowed_buckets),
        open_store=lambda bucket: open_store(s3, bucket),
        timeout_s=settings.object_timeout_s,
    )
