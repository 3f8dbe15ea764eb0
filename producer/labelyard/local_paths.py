"""Names of local files and folders that anybody may have written: looked for, and written out."""

from os import PathLike
from pathlib import Path


def is_file(path: str | PathLike[str]) -> bool:
    """Return whether there is such a file; ``False`` for a name that no file system takes."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, or a zero byte
        return False


def is_folder(path: str | PathLike[str]) -> bool:
    """Return whether there is such a folder; ``False`` for a name that no file system takes."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def printable(path: str | PathLike[str]) -> str:
    """Write a path for a message: a file name may hold bytes that are not text."""
    return str(path).encode(errors="backslashreplace").decode()
