"""Images a day become workers, with the assumptions in plain sight."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import capacity
from benchmarks.capacity import Capacity, Load, capacity_for, main, measured_rate

RESULTS: dict[str, Any] = {
    "cases": [
        {"checkpoint": "lite", "megapixels": 2.0, "systems": {}},
        {
            "checkpoint": "clip-vit-base-patch32",
            "megapixels": 2.0,
            "systems": {
                "labelyard_1": {"images_per_s": 60.0},
                "labelyard_16": {"images_per_s": 80.0},
                "tutorial_2": {"images_per_s": 9.0},
            },
        },
        {
            "checkpoint": "clip-vit-base-patch32",
            "megapixels": 12.0,
            "systems": {"labelyard_16": {"images_per_s": 50.0}},
        },
    ]
}


def test_workers_are_counted_for_the_peak_with_room_to_spare() -> None:
    load = Load(86_400 * 100, peak=2.0, utilisation=0.5, job_size=8, kib_per_image=512)

    needed = capacity_for(load, images_per_s=80.0)

    assert needed == Capacity(
        workers=5, busy=0.5, storage_mib_per_s=100.0, redis_commands_per_s=200.0
    )


def test_a_trickle_needs_one_worker() -> None:
    assert capacity_for(Load(1.0), images_per_s=80.0).workers == 1


@pytest.mark.parametrize(
    "load", [Load(0.0), Load(1.0, peak=0.0), Load(1.0, utilisation=1.1), Load(1.0, job_size=0)]
)
def test_figures_that_make_no_sense_are_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="positive"):
        capacity_for(load, images_per_s=80.0)


@pytest.mark.parametrize(
    ("megapixels", "job_size", "expected"), [(2.0, 16, 80.0), (1.0, 1, 60.0), (10.0, 64, 50.0)]
)
def test_the_nearest_measured_case_counts(
    megapixels: float, job_size: int, expected: float
) -> None:
    assert measured_rate(RESULTS, megapixels=megapixels, job_size=job_size) == expected


def test_the_command_reads_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = tmp_path / "latest.json"
    monkeypatch.setattr(capacity, "LATEST", latest)
    missing = main(["5e6"])
    latest.write_text(json.dumps(RESULTS))

    found = main(["5e6"])

    answer = capsys.readouterr()
    assert (missing, found) == (1, 0)
    assert "make bench first" in answer.err
    assert "workers (machines or GPUs): 4, 54% busy" in answer.out
