"""Kinds of values that several groups of settings share."""

from labelyard.settings import Names

__all__ = ["MIB", "Names"]

MIB = 1024 * 1024
