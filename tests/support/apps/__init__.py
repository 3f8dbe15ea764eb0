"""Celery applications that tests start as processes."""
