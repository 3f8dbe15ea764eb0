"""The steps of the check: what runs, for how long at most, and in which order."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu.form import CHECKPOINTS, VIT_B, VIT_L, Form

TESTS = "tests/cuda"
TEST_LIMIT_S = 45.0  # of a test without a limit of its own
COMPILING_S = 65.0  # 61 s on an H100 and 16 cores
BUSY_CPU = 2.0  # times as long: a CPU that computes may have other work, too


@dataclass(frozen=True, slots=True)
class Step:
    """A process of its own, which may fail, hang or die without harm to the others.

    Attributes:
        name: What the report calls it.
        command: Arguments of the Python interpreter.
        limit_s: Seconds after which it is ended.
        least_s: Seconds without which it is not begun.
        subject: Checkpoint and dtype that its figures belong to.
        is_test: Whether pytest runs it, and writes its results to a file.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    least_s: float = 5.0
    subject: tuple[str, str] = ("", "")
    is_test: bool = False


def steps_for(form: Form, *, is_quick: bool) -> list[Step]:
    """List the steps: quick and certain ones first, then in the order of interest."""
    first, second = form.dtypes
    if is_quick:
        return [
            module("environment", "environment", form, limit_s=30),
            module("make inputs", "make_inputs", form, "--checkpoints", VIT_B, limit_s=60),
            model_limit(VIT_B, form),
            module("intake limit", "intake_limit", form, limit_s=60),
            side_by_side(VIT_B, first, form),
        ]
    later = (VIT_B,) if form.is_tiny else CHECKPOINTS
    alone = ("--only-labelyard",)
    return [
        module("environment", "environment", form, limit_s=40),
        suite("tests of arithmetic", form, "test_device_arithmetic", "test_parity", limit_s=75),
        suite("tests of streams and memory", form, "test_streams", "test_memory", limit_s=60),
        suite("tests of a worker", form, "test_worker", limit_s=75),
        module("make inputs", "make_inputs", form, limit_s=75),
        *(model_limit(checkpoint, form) for checkpoint in CHECKPOINTS),
        module("intake limit", "intake_limit", form, limit_s=60, least_s=20),
        *(
            side_by_side(checkpoint, first, form, *(() if checkpoint in later else alone))
            for checkpoint in CHECKPOINTS
        ),
        suite(
            "tests of compilation",
            form,
            "test_compile",
            limit_s=90,
            least_s=10 if form.is_tiny else COMPILING_S,
        ),
        compiled_tower(VIT_B if form.is_tiny else VIT_L, form),
        *(side_by_side(checkpoint, second, form, *alone) for checkpoint in later),
    ]


def suite(name: str, form: Form, *files: str, limit_s: float, least_s: float = 5.0) -> Step:
    """Run files of tests, each test with the limit of the step."""
    paths = [f"{TESTS}/{file}.py" for file in files]
    options = ["-v", "--device", form.device, "-p", "no:cacheprovider", "-p", "pytest_timeout"]
    options += ["-W", "default"]  # other versions of libraries warn of other things
    options += ["-o", "junit_family=xunit1", "-o", f"timeout={TEST_LIMIT_S:g}"]
    command = ("-m", "pytest", *options, *paths)
    return Step(name, command, allowed_s(limit_s, form), least_s, is_test=True)


def module(
    name: str,
    module_name: str,
    form: Form,
    *options: str,
    limit_s: float,
    least_s: float = 5.0,
    subject: tuple[str, str] = ("", ""),
) -> Step:
    """Run a module of this package."""
    command = ("-m", f"benchmarks.gpu.{module_name}", "--device", form.device, *options)
    return Step(name, command, allowed_s(limit_s, form), least_s, subject)


def allowed_s(limit_s: float, form: Form) -> float:
    """Extend the time limit of a step in the tiny form."""
    return limit_s * BUSY_CPU if form.is_tiny else limit_s


def model_limit(checkpoint: str, form: Form) -> Step:
    """Return the step that measures the image tower alone."""
    return module(
        f"model limit of {checkpoint}",
        "model_limit",
        form,
        *("--checkpoint", checkpoint),
        limit_s=60,
        least_s=10,
        subject=(checkpoint, ""),
    )


def compiled_tower(checkpoint: str, form: Form) -> Step:
    """Return the step that measures the image tower under torch.compile."""
    return module(
        f"compiled {checkpoint}",
        "model_limit",
        form,
        *("--checkpoint", checkpoint, "--is-compiled"),
        limit_s=90,
        least_s=30 if form.device == "cuda" else 10,
        subject=(checkpoint, ""),
    )


def side_by_side(checkpoint: str, dtype: str, form: Form, *options: str) -> Step:
    """Measure labelyard, and the tutorial unless *options* leave it out."""
    return module(
        f"labelyard on {checkpoint} in {dtype}",
        "side_by_side",
        form,
        *("--checkpoint", checkpoint, "--dtype", dtype, *options),
        limit_s=110,
        least_s=15 if form.is_tiny else 60,
        subject=(checkpoint, dtype),
    )


def command_line(step: Step, *, report: str) -> Sequence[str]:
    """Write the command of a step; tests write their results to *report*."""
    more = [f"--junitxml={report}"] if step.is_test else []
    return [sys.executable, *step.command, *more]
