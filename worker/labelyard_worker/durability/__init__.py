"""Extensions that keep Celery on Redis from losing jobs, one concern a file."""
