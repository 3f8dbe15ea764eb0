"""Webhooks: their addresses, and the signatures that receivers verify."""

from labelyard.webhook_address import WebhookAddress, webhook_id
from labelyard.webhooks.signature import new_secret, sign
from labelyard.webhooks.verification import WebhookPayload, verify

__all__ = ["WebhookAddress", "WebhookPayload", "new_secret", "sign", "verify", "webhook_id"]
