"""Lets ``python -m labelyard.cli`` do what ``labelyard`` does."""

from labelyard.cli.app import app

app()
