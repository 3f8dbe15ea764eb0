"""What one tenant's slowness costs the others."""
