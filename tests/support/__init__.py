"""Test support: real servers, sample pictures, network faults, leak checks."""
