"""Faster layers for image towers on a CPU, with the same answers."""
