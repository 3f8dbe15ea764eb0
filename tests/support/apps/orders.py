"""Orders by which the worker of ``instant`` misbehaves: a job's tenant, or a file."""

import re
from typing import Final

KILLS_PROCESS: Final = "poison-kill"
RAISES_MEMORY_ERROR: Final = "poison-memory-error"
RAISES_SYSTEM_EXIT: Final = "poison-system-exit"
HANGS: Final = "poison-hang"
# Raises a MemoryError, unless the file CURED is among the orders.
CURABLE: Final = "poison-until-cured"
CURED: Final = "cured"
# A job that takes this many seconds, and stops when it is told to.
SLOW: Final = re.compile(r"slow-([0-9.]+)")

# Files in TEST_FLAGS: the first forward pass that sees one takes it away and obeys.
HANG_MODEL: Final = "hang-model"
RUN_OUT_OF_MEMORY: Final = "run-out-of-memory"
LEAVE_NO_MEMORY: Final = "leave-no-memory"  # not even for a single picture
LOSE_PRECISION: Final = "lose-precision"  # an embedding that is not a number
LOSE_DEVICE: Final = "lose-device"
