"""Builds the lite checkpoint, unless it is there, and says where: ``python -m`` this package."""

import sys

from labelyard.errors import ModelLoadError
from labelyard_worker.vision.lite import ensure_lite

try:
    sys.stdout.write(f"{ensure_lite()}\n")
except ModelLoadError as error:
    sys.exit(str(error))
