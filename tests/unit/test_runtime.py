"""A worker that cannot be built ends with the reason, whatever it is."""

from typing import Any

import pytest

from labelyard.errors import ModelLoadError
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.tasks import Runtime


@pytest.mark.parametrize(
    "error", [ModelLoadError("mine", "is not there"), AttributeError("no such field")]
)
def test_a_worker_that_cannot_be_built_ends_instead_of_running_without_services(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "set_up_logging", lambda _: None)  # the log is pytest's here

    def load(_: WorkerSettings) -> Any:
        raise error

    runtime = Runtime(WorkerSettings(health_port=-1), load)

    with pytest.raises(SystemExit, match="cannot start") as ended:
        runtime.open()

    assert str(error.args[0]) in str(ended.value)
