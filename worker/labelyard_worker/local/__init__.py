"""The embedded stack: real servers out of wheels, for a first look and for tests."""
