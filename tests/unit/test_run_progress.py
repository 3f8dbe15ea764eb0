"""Progress of a run, from its record, its running shards and its samples."""

from typing import Any

import pytest

from labelyard.runs.record import RunProgress, progress_of, read_run
from labelyard.testing import FakeClient
from tests.support.run_samples import sample_run


def progress(
    samples: list[str] | None = None, trails: dict[str, str] | None = None, **fields: Any
) -> RunProgress:
    request = sample_run()
    run = read_run(
        request.run_id,
        {
            "state": "running",
            "tenant": "default",
            "request": request.model_dump_json(),
            "submitted_at": "1000",
            "started_at": "1010",
            "is_planned": "1",
            **{name: str(value) for name, value in fields.items()},
        },
    )
    assert run is not None
    return progress_of(run, trails=trails or {}, samples=samples or [], now=1100.0)


def test_running_shards_count_as_far_as_they_have_come() -> None:
    found = progress(trails={"00001": '{"start": 1, "done": 30}'}, lines=500, done=200)

    assert (found.done, found.total) == (230, 500)


def test_the_speed_is_that_of_the_last_minute() -> None:
    samples = ["1095.0:800", "1050.0:400", "1030.0:390", "1020.0:300"]

    found = progress(samples, lines=2000, done=900)

    assert found.images_per_s == 10.0
    assert found.seconds_left == 110.0


def test_without_samples_the_speed_is_that_of_the_whole_run() -> None:
    assert progress(lines=2000, done=900).images_per_s == 10.0


def test_the_time_left_is_not_known_while_the_source_is_read() -> None:
    found = progress(lines=2000, done=900, is_planned="0")

    assert (found.is_total_known, found.seconds_left) == (False, None)


def test_a_pause_is_a_state_that_hides_the_step() -> None:
    assert progress(lines=1, is_paused="1").state == "paused"


def test_a_notebook_shows_a_bar_and_no_markup_of_strangers() -> None:
    found = progress(lines=10, done=5, **{"code:<b>": 3})

    assert '<progress value="5" max="10">' in found._repr_html_()
    assert "<b>" not in found._repr_html_()


@pytest.mark.parametrize(("state", "failed"), [("succeeded", 0), ("partial", 2)])
def test_the_fake_client_ends_a_run_as_the_test_orders(state: Any, failed: int) -> None:
    client = FakeClient()
    handle = client.runs.start("s3://photos/a/", ["a cat", "a dog"], out="s3://results/a/")

    client.runs.finish(handle.id, state, succeeded=8, failed=failed)

    run = handle.wait(timeout_s=0)
    assert (run.state, run.succeeded, run.failed) == (state, 8, failed)
    assert handle.progress().done == 8 + failed
    assert [one.run_id for one in client.runs.list()] == [handle.id]
