"""Result file of a step for the driver, written again with each new figure."""

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "GPU_CHECK_RESULT"


class StepResult:
    """Figures of one step; what was written stays when the step is ended early.

    Attributes:
        found: Figures by name.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        path = os.environ.get(VARIABLE)
        self._path = Path(path) if path else None

    def add(self, **figures: Any) -> None:
        """Note figures, print those that fit into a line, and write the file."""
        self.found |= figures
        for name, value in figures.items():
            if not isinstance(value, list):
                print(f"  {name}: {value}", flush=True)
        if self._path is None:
            return
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(json.dumps(self.found))
        unfinished.replace(self._path)
