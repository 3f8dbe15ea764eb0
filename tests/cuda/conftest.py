"""Fixtures of the device's tests: the device itself, tiny checkpoints on it, a service."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from labelyard_worker.intake.decode import ImageLimits, Pixels, decode
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from tests.conftest import SESSION_SERVERS
from tests.support import pictures
from tests.support.checkpoints import tiny_checkpoint
from tests.support.service import Service, running_service

Load = Callable[..., Checkpoint]
EXACT = ImageLimits(decode="exact", transparency="drop")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Choose the device under test: ``--device``, else CUDA if there is one, else the CPU."""
    wanted = str(request.config.getoption("--device"))
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make each tiny checkpoint once a session."""
    cache_folder = tmp_path_factory.mktemp("checkpoints")
    return lambda model_type: tiny_checkpoint(model_type, cache_folder)


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path]) -> Load:
    """Load a checkpoint by type, device type and dtype, once a session."""

    @cache
    def load(model_type: str, device: str, dtype: str = "float32") -> Checkpoint:
        return load_checkpoint(
            WorkerSettings(checkpoint=str(folder_of(model_type)), device=device, dtype=dtype)  # type: ignore[arg-type]
        )

    return load


@pytest.fixture(scope="session")
def batch_for() -> Callable[[Checkpoint, int], list[Pixels]]:
    """Decode different pictures, as many as are wanted, for a checkpoint."""

    def batch_for(checkpoint: Checkpoint, count: int) -> list[Pixels]:
        return [
            decode(
                pictures.jpeg((60 + 7 * seed % 40, 50 + 11 * seed % 60), seed=seed),
                uri="s3://b/k",
                spec=checkpoint.pixel_spec,
                limits=EXACT,
            )
            for seed in range(count)
        ]

    return batch_for


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run the embedded servers that the workers of these tests share."""
    with running_service(tmp_path_factory.mktemp("service")) as running:
        SESSION_SERVERS.extend((running.valkey, running.seaweed))
        yield running
        SESSION_SERVERS.remove(running.valkey)
        SESSION_SERVERS.remove(running.seaweed)
