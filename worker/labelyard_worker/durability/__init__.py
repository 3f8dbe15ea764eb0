"""What Celery on Redis lacks to lose nothing, one concern a file."""
