"""The command ``labelyard``: submit pictures and read what they show."""

from labelyard.cli.app import app

__all__ = ["app"]
