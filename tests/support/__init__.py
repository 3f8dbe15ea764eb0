"""What the tests stand on: real servers, sample pictures, network faults, leak checks."""
