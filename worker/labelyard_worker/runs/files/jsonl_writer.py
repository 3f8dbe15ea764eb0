"""Write results and errors as JSON lines."""

import tempfile
from typing import IO, Final

from pydantic import BaseModel

#: Bytes of a file that stay in memory; the rest goes to the disk.
IN_MEMORY_BYTES: Final = 8 * 1024 * 1024


def open_file() -> "IO[bytes]":
    """Open a file of its own, in memory until it is large; closing it frees it."""
    return tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)


class JsonlWriter:
    """Writes lines to a file, each a model or JSON already."""

    def __init__(self) -> None:
        """Begin an empty file."""
        self.file = open_file()

    def add(self, line: BaseModel) -> None:
        """Write one line."""
        self.file.write(line.model_dump_json().encode() + b"\n")

    def add_text(self, lines: str) -> None:
        """Write lines that are JSON, each with a line break."""
        self.file.write(lines.encode())

    def finish(self) -> "IO[bytes]":
        """Return the whole file, at its first byte."""
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        """Free the file."""
        self.file.close()
