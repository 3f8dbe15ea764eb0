"""Benchmarks of one tenant's slowness: its cost to the others."""
