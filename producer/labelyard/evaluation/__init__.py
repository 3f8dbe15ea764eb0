"""Measuring label sets on labelled pictures; the numbers need the extra ``evaluation``."""
