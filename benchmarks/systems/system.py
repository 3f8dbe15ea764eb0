"""Interface of a measured system: pictures come from the bucket, results are stored."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar

from benchmarks.checkpoints import Checkpoint
from benchmarks.pictures import Picture
from benchmarks.processes import Stages
from benchmarks.stack import Stack
from labelyard_worker.local.embedded import EmbeddedServer

PROBLEMS_KEPT = 3


@dataclass(frozen=True)
class Engine:
    """Checkpoint, device and precision that a system is started for.

    Attributes:
        device: ``cpu`` or ``cuda``.
        dtype: Of labelyard's image tower: ``auto`` or a name. The pipelines compute in
            float32 on a CPU, and in this on a GPU.
    """

    checkpoint: Checkpoint
    device: str = "cpu"
    dtype: str = "auto"
    is_compiled: bool = False

    @property
    def title(self) -> str:
        """Name it in logs and folders."""
        compiled = "-compiled" if self.is_compiled else ""
        return f"{self.checkpoint.name}-{self.device}-{self.dtype}{compiled}"


@dataclass(frozen=True)
class Case:
    """Pictures and labels of one case, the same for every system."""

    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def megapixels(self) -> float:
        """Size of the pictures."""
        return self.pictures[0].megapixels

    def take(self, count: int) -> list[Picture]:
        """Return *count* pictures, beginning again if there are fewer."""
        return list(islice(cycle(self.pictures), count))


@dataclass
class Outcome:
    """Results of one run's pictures.

    Attributes:
        seconds: From the first submit until the last result was read.
        errors: Pictures without a right number of scores.
        problems: The first few errors in words.
        top: Best label by picture key.
    """

    images: int = 0
    seconds: float = 0.0
    errors: int = 0
    problems: list[str] = field(default_factory=list)
    top: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, best: str) -> None:
        """Note a picture's best label."""
        self.images += 1
        self.top[key] = best

    def fail(self, problem: str) -> None:
        """Note a picture that got no scores."""
        self.errors += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)


class System(ABC):
    """Something that classifies pictures; started, measured in rounds, stopped.

    Attributes:
        name: What the results call it.
        unit: Images that go together, so that a run has a whole number of them.
    """

    name: str
    unit: int = 1

    @abstractmethod
    def start(self) -> None:
        """Start it, unless it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop all that was started."""

    @abstractmethod
    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        """Classify *images* pictures of *case*, all submitted at once.

        Raises:
            TimeoutError: They were not done in time.
        """

    @abstractmethod
    def stages(self) -> Stages:
        """Return the process ids of each stage; ``worker`` and ``children`` are its own."""


class BenchProcess(EmbeddedServer):
    """A process of the benchmark that reports through Valkey when it is ready.

    It gets the stack's variables, and the name of the key to set in ``BENCH_READY``.
    """

    name: ClassVar[str] = "process"
    stop_grace_s: ClassVar[float] = 10.0

    def __init__(
        self,
        stack: Stack,
        *,
        title: str,
        command: Sequence[str],
        variables: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        super().__init__(stack.folder / title)
        self._stack = stack
        self._full_command = [str(python), "-m", *command]
        self._ready_key = f"ready:{title}"
        self._variables = {
            **stack.variables,
            "BENCH_READY": self._ready_key,
            **(variables or {}),
        }

    def is_ready(self) -> bool:
        return bool(self._stack.control.getdel(self._ready_key))

    def _command(self) -> list[str]:
        return self._full_command

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._variables
