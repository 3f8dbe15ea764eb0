"""The GPU check: nothing that a step does ends it, and what was found is put together rightly."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu.__main__ import Check, judge_tests
from benchmarks.gpu.form import FULL, SO400M, TINY, VIT_L
from benchmarks.gpu.results import Ran, as_json
from benchmarks.gpu.steps import Step, steps_for

LIMIT_S = 20.0
ENDLESS = "import time; print('about to hang', flush=True); time.sleep(600)"
WRITES = "from benchmarks.gpu.step_result import StepResult; StepResult().add(device='GPU 9'); {}"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    return Check(TINY, ends_at=time.time() + 120)


def step(code: str, *, name: str = "a step", limit_s: float = LIMIT_S, least_s: float = 5) -> Step:
    """Describe a step that runs a line of Python."""
    return Step(name, ("-c", code), limit_s, least_s)


def written(check: Check) -> dict[str, Any]:
    """Read the report as it lies on disk."""
    found: dict[str, Any] = json.loads((check.folder / "gpu-check.json").read_text())
    return found


def test_steps_go_on_after_one_that_fails_hangs_or_dies(check: Check) -> None:
    for code, limit_s in (
        ("raise SystemExit(3)", LIMIT_S),
        (ENDLESS, 1.0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", LIMIT_S),
        ("pass", LIMIT_S),
    ):
        check.run(step(code, limit_s=limit_s))

    steps = written(check)["steps"]
    assert [one["status"] for one in steps] == ["failed", "failed", "failed", "ok"]
    assert [one["why"] for one in steps] == [
        "exit code 3",
        "not done after 1 s",
        "exit code -11",
        "",
    ]
    assert "about to hang" in (check.folder / "gpu-check.log").read_text()


def test_figures_of_a_step_that_is_ended_are_kept(check: Check) -> None:
    check.run(step(WRITES.format("import time; time.sleep(600)"), limit_s=3.0))

    assert check.ran[0].status == "failed"
    assert written(check)["device"] == "GPU 9"
    assert "GPU 9" in (check.folder / "gpu-check.md").read_text()


def test_a_step_that_there_is_no_time_for_is_skipped(check: Check) -> None:
    check.run(step("pass", least_s=1000))

    assert written(check)["steps"] == [
        {"name": "a step", "status": "skipped", "seconds": 0.0, "why": "no time was left"}
    ]


def test_the_report_has_the_agreed_keys(check: Check) -> None:
    check.run(step("pass"))

    assert list(written(check)) == ["device", "is_tiny", "steps", "cases"]


@pytest.mark.parametrize(
    ("cases", "code", "status"),
    [
        ("<testcase name='a'/><testcase name='b'><skipped/></testcase>", 0, "ok"),
        ("<testcase name='a'/><testcase name='b'><failure/></testcase>", 1, "failed"),
        ("<testcase name='a'><error/></testcase>", 1, "failed"),
        ("<testcase name='a'/>", -9, "failed"),
        ("<testcase name='a'><skipped/></testcase>", 0, "failed"),
        ("", 5, "failed"),
    ],
)
def test_tests_are_judged_by_what_ran(cases: str, code: int, status: str, tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")

    assert judge_tests(report, code)[0] == status


def test_tests_without_a_report_have_failed(tmp_path: Path) -> None:
    assert judge_tests(tmp_path / "none.xml", 0)[0] == "failed"


def rate(images_per_s: float, **more: Any) -> dict[str, Any]:
    """Describe a system's measurement."""
    return {"images_per_s": images_per_s, "errors": 0, **more}


def way(name: str, batch_size: int, images_per_s: float, dtype: str = "bfloat16") -> dict[str, Any]:
    """Describe a way to run the tower."""
    return {
        "way": name,
        "dtype": dtype,
        "batch_size": batch_size,
        "seconds": batch_size / images_per_s,
        "images_per_s": images_per_s,
    }


def test_ratios_are_over_the_lower_limit_and_the_best_tutorial() -> None:
    systems = {
        "labelyard_1": rate(300),
        "labelyard_64": rate(800),
        "tutorial_1": rate(20),
        "tutorial_4": rate(50),
    }
    ran = [
        Ran("", (VIT_L, ""), "ok", 1, found={"ways": [way("eager", 64, 900), way("graph", 64, 1000)]}),
        Ran("", ("", ""), "ok", 1, found={"limits": [
            {"edge_px": 224, "megapixels": 0.3, "images_per_s": 4000},
            {"edge_px": 384, "megapixels": 0.3, "images_per_s": 1},
            {"edge_px": 224, "megapixels": 2.0, "images_per_s": 850},
        ]}),
        Ran("", (VIT_L, "bfloat16"), "ok", 1, found={"start_to_ready_s": 9, "cases": [
            {"megapixels": 0.3, "systems": systems}, {"megapixels": 2.0, "systems": systems},
        ]}),
    ]  # fmt: skip

    small, large = as_json(ran, device="GPU", is_tiny=False)["cases"]

    assert small["systems"]["model_limit"]["way"] == "graph"
    assert small["systems"]["labelyard_start"] == {"start_to_ready_s": 9}
    assert small["ratios"] == {
        "vs_limit": 0.8,
        "vs_limit_jobs_of_1": 0.3,
        "vs_tutorial": 16.0,
        "vs_tutorial_jobs_of_1": 6.0,
    }
    assert large["ratios"]["vs_limit"] == pytest.approx(800 / 850, abs=1e-3)


def test_a_limit_without_labelyard_is_a_case_without_ratios() -> None:
    ran = [Ran("", (SO400M, ""), "failed", 1, found={"ways": [way("eager", 64, 500, "float16")]})]

    cases = as_json(ran, device="GPU", is_tiny=False)["cases"]

    assert {(case["checkpoint"], case["dtype"]) for case in cases} == {(SO400M, "float16")}
    assert set(cases[0]["ratios"].values()) == {None}


@pytest.mark.parametrize("form", [FULL, TINY])
@pytest.mark.parametrize("is_quick", [False, True])
def test_every_step_names_a_file_that_is_there(form: Any, is_quick: bool) -> None:
    root = Path(__file__).parents[2]

    for one in steps_for(form, is_quick=is_quick):
        files = [part for part in one.command if part.endswith(".py")]
        files += [
            f"{part.replace('.', '/')}.py" for part in one.command if part.startswith("bench")
        ]
        assert files
        assert [file for file in files if not (root / file).is_file()] == []


def test_the_steps_of_first_interest_fit_into_the_time() -> None:
    """Limits are what is left for a step that hangs: one that does must not cost the others."""
    assert max(one.limit_s for one in steps_for(FULL, is_quick=False)) <= 110
