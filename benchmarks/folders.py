"""Folders of the benchmark: the repository, and the cache of pictures and checkpoints."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def cache_dir() -> Path:
    """Name the folder of pictures, checkpoints and virtual environments, outside of git."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "labelyard" / "benchmarks"
