"""Bytes to pixels, in child processes that never import torch."""
