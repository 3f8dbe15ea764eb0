"""Measurements of label quality on labelled photographs."""
