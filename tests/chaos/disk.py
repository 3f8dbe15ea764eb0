"""A small disk that only this process and its children see, to be filled up."""

import ctypes
import os
from pathlib import Path
from typing import Final

# <linux/sched.h>, <linux/mount.h>
CLONE_NEWNS: Final = 0x0002_0000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
SIZE: Final = "192m"


def small_disk(folder: Path) -> Path | None:
    """Mount a small disk in memory on *folder*, in a mount namespace of our own.

    It is gone when the last of our processes is. Call it before there are threads.

    Returns:
        *folder*, or None where this process has no right to mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return None
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={SIZE}".encode()):
        return None
    return folder
