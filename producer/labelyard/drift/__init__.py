"""Drift of label sets: what workers counted of their answers, and tests against a baseline."""
