"""Output of ``labelyard webhooks listen``: the settings to give a worker, then a line a webhook."""

from typing import Any

import typer

from labelyard.cli.output import print_json
from labelyard.diagnosis.phrases import count_of
from labelyard.webhooks.listener import ListenerOptions, ReceivedWebhook, WebhookListener
from labelyard.webhooks.signature import new_secret


def listen_for_webhooks(options: ListenerOptions, *, secret: str | None, as_json: bool) -> None:
    """Receive webhooks and print a line for each, until the process is interrupted.

    Args:
        secret: Secret of the workers, perhaps several with commas; without one a new one is drawn
            and printed on standard error.

    Raises:
        ServiceConfigError: The secret or an option is malformed, or the port is used.
    """
    known = [one for one in (secret or "").split(",") if one.strip()] or [new_secret()]
    listener = WebhookListener(known, print_fields_of if as_json else print_webhook, options)
    typer.echo(
        f"listening on {listener.url}, the address for deliver.webhook; Ctrl-C ends it", err=True
    )
    if secret is None:
        typer.echo(
            "no secret is set: give the workers these settings, and start them again\n"
            f"LABELYARD_WEBHOOK_SECRET={known[0]}\n"
            f"LABELYARD_WEBHOOK_HOSTS={options.host}",
            err=True,
        )
    listener.serve()


def print_webhook(received: ReceivedWebhook) -> None:
    """Print a line about a webhook."""
    fault = f" ({received.fault})" if received.fault else ""
    typer.echo(f"{_described(received)} -> {received.status}{fault}")


def _described(received: ReceivedWebhook) -> str:
    payload = received.payload
    if payload is None:
        return "not verified"
    at = payload.sent_at.isoformat(timespec="seconds")
    data: Any = payload.get("data")
    images = data.get("images") if isinstance(data, dict) else None
    if isinstance(images, dict):  # of a run
        total = images.get("total")
    else:
        total = len(images) if isinstance(images, list) else None
    number = f", {count_of(total, 'image')}" if isinstance(total, int) else ""
    kind = str(payload.get("type", "webhook"))
    return ascii(f"{at} {kind} {payload.id}{number}")[1:-1]


def print_fields_of(received: ReceivedWebhook) -> None:
    """Print a webhook as one JSON object."""
    payload = received.payload
    print_json(
        {
            "status": received.status,
            "fault": received.fault,
            "webhook_id": None if payload is None else payload.id,
            "sent_at": None if payload is None else payload.sent_at.isoformat(),
            "payload": None if payload is None else dict(payload),
        }
    )
