"""A worker whose model answers at once, misbehaves on demand, and leaves a line for all it does.

Everything else is the real worker, but for torch, which has nothing to do then. Configured by
``TEST_EFFECTS`` (file that gets the lines), ``TEST_SLOT`` (name of this worker in them), ``TEST_FLAGS`` (folder of orders to the process) and
``TEST_PRIVATE_HTTPS`` (https hosts may be on this machine),
``TEST_DECODER`` (what the intake's children decode with, in place of ``decode.decode``) and
``TEST_CLOCK`` (file that says how wrong its clock is). How it is told to misbehave is in ``orders``.
"""

import os
import sys
from pathlib import Path

from tests.support.apps import clock

if path := os.environ.get("TEST_CLOCK"):
    clock.follow(Path(path))

from tests.support.apps import instant_torch

sys.modules["torch"] = instant_torch.make()

from tests.support.apps import instant_model  # noqa: E402 - the stand-in comes first

sys.modules["labelyard_worker.vision.checkpoint"] = instant_model

from tests.support.apps.instant_worker import app  # noqa: E402 - the stand-in comes first

__all__ = ["app"]
