"""Proves and measures the CUDA path on a machine that is lent for minutes, without a network."""
