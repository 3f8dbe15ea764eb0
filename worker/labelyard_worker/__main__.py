"""Lets ``python -m labelyard_worker`` do what ``labelyard-worker`` does."""

from labelyard_worker.cli import app

app()
