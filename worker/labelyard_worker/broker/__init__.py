"""Messages between the broker and Celery: claimed, checked, renewed and acknowledged without loss."""
