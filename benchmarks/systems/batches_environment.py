"""A virtual environment with celery-batches and the Celery that it wants."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.folders import cache_dir

REQUIREMENTS = ("celery-batches==0.11", "redis")
WITHIN_S = 180


def ensure_environment() -> Path:
    """Make the environment, unless it is there, and return its interpreter.

    torch, transformers and what else it needs are borrowed from ours: its own packages
    come first, so that its Celery is the one that it wants.

    Raises:
        RuntimeError: It could not be installed; the text has pip's last words.
    """
    tag = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_dir() / f"celery-batches-{tag}"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-input", *REQUIREMENTS])
        (folder / "done").touch()
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    ours = sysconfig.get_paths()["purelib"]
    (packages / "borrowed.pth").write_text(f"{ours}{os.linesep}")
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=WITHIN_S)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} failed: {error.stderr[-1000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(command)} took more than {WITHIN_S} s") from error
