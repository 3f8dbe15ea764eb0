"""Delivery of finished results to objects and webhooks, apart from the slots that run jobs."""
