"""Measurements of runs: planning and scoring again."""
