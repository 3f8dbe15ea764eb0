"""Errors of a receiver that verifies webhooks."""

from labelyard.errors.root import LabelyardError


class WebhookError(LabelyardError):
    """A webhook did not pass ``labelyard.webhooks.verify``: answer 400, and do not use it."""

    code = "webhook_error"


class WebhookHeadersError(WebhookError):
    """A header of the webhook's signature is missing or malformed."""

    code = "webhook_headers"


class WebhookSignatureError(WebhookError):
    """No signature of the webhook was made with a secret that the receiver knows."""

    code = "webhook_signature"


class WebhookTimestampError(WebhookError):
    """The webhook was signed too long ago, or in the future: a repetition, or a wrong clock."""

    code = "webhook_timestamp"


class WebhookBodyError(WebhookError):
    """The webhook is signed, and its body is not what a worker sends."""

    code = "webhook_body"
