"""Run ``python -m labelyard.cli`` as the command ``labelyard``."""

from labelyard.cli.app import app

app()
