"""Fixtures of the models' tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder for a module's tiny checkpoints."""
    return tmp_path_factory.mktemp("checkpoints")
