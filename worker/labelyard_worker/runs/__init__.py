"""Runs: planning, scoring of shards, and the files that they write."""
