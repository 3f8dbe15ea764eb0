"""Pixels to scores."""
