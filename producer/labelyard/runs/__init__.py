"""Runs: bulk work over a manifest or a prefix, whose results are files in object storage."""
