"""A worker that cannot be built ends with the reason, whatever it is."""

from typing import Any

import pytest

from labelyard.errors import LedgerUnavailableError, ModelLoadError, ServiceConfigError
from labelyard_worker.runtime import Runtime
from labelyard_worker.settings import WorkerSettings


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


@pytest.mark.parametrize(
    "error",
    [
        ModelLoadError("mine", "is not there"),
        ServiceConfigError("the health port is taken"),
        LedgerUnavailableError("away"),
    ],
)
def test_an_error_of_ours_is_one_sentence_and_no_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Runtime, "set_up_logging", lambda _: None)

    def load(_: WorkerSettings) -> Any:
        raise error

    with pytest.raises(SystemExit) as ended:
        Runtime(WorkerSettings(health_port=-1), load).open()

    assert str(ended.value) == f"labelyard-worker cannot start: {error}"
    assert "worker_build_failed" not in caplog.text
