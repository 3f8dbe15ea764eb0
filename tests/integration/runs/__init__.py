"""Runs, on real servers."""
