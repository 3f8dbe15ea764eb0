"""Step: pictures and checkpoints, made on the spot."""

import argparse
import sys
import time

from benchmarks.gpu.checkpoints import ensure_checkpoint
from benchmarks.gpu.form import CHECKPOINTS, MEGAPIXELS, form_of
from benchmarks.gpu.step_result import StepResult
from benchmarks.pictures import describe, ensure_pictures


def main() -> int:
    """Make the pictures and the named checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--checkpoints", nargs="*", choices=CHECKPOINTS, default=CHECKPOINTS)
    options = parser.parse_args()
    form, result = form_of(options.device), StepResult()
    for megapixels in MEGAPIXELS:
        result.add(**{f"{megapixels:g}mp": describe(ensure_pictures(megapixels, shipped=True))})
    for name in options.checkpoints:
        started_at = time.monotonic()
        ensure_checkpoint(name, form)
        result.add(**{name: f"{time.monotonic() - started_at:.1f} s"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
