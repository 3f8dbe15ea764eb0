"""Python runs this at its start if the folder is in PYTHONPATH: a worker gets the instant model.

The command that starts the worker stays the one of its deployment; only the module that loads a
checkpoint is another, which saves most of the start.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

REPLACED = "labelyard_worker.vision.checkpoint"
REPLACEMENT = Path(__file__).parents[1] / "instant_model.py"


class InstantModelFinder:
    """Finds the instant model in place of the checkpoint's module."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find the module *name*, if it is the replaced one."""
        if name != REPLACED:
            return None
        return importlib.util.spec_from_file_location(name, REPLACEMENT)


sys.meta_path.insert(0, InstantModelFinder)
