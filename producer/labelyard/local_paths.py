"""Local files and folders that anybody may have named or written: found, named and read."""

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


def read_text(path: str | PathLike[str]) -> str:
    """Read a text file as UTF-8, without the byte order mark that editors on Windows write.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return Path(path).read_text(encoding="utf-8-sig")
