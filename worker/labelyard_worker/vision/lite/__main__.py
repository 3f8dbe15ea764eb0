"""Build the lite checkpoint, unless it is there, and print its folder."""

import sys

from labelyard.errors import ModelLoadError
from labelyard_worker.vision.lite import ensure_lite

try:
    sys.stdout.write(f"{ensure_lite()}\n")
except ModelLoadError as error:
    sys.exit(str(error))
