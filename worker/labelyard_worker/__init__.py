"""Worker for a GPU machine: jobs in, scores out."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Build the Celery application when ``celery -A labelyard_worker`` reads it."""
    if name == "app":
        from labelyard_worker.celery_app import make_app

        globals()["app"] = app = make_app()
        return app
    if name == "__version__":
        import labelyard

        return labelyard.__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
