"""Plans: the cases to measure, with their systems and durations."""

from dataclasses import dataclass, field

from benchmarks.checkpoints import CLIP, LITE
from benchmarks.measure import Effort

REFERENCE_MEGAPIXELS = 2.0  # megapixels, the size that every comparison is made at


@dataclass(frozen=True, slots=True)
class CasePlan:
    """One row of the table: a checkpoint, labels, pictures and systems.

    Attributes:
        job_sizes: Of labelyard's jobs.
        has_batches: Whether celery-batches is measured.
        has_limit: Whether the hand-written loop is.
    """

    labels: int
    megapixels: float
    job_sizes: tuple[int, ...] = (16,)
    has_batches: bool = True
    has_limit: bool = True


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Checkpoint that the systems are started for, and the cases that they then run."""

    checkpoint: str
    cases: tuple[CasePlan, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the benchmark.

    Attributes:
        limit_s: Seconds after which nothing new is begun.
        section_checkpoint: What known pictures and many labels are measured with.
        section_effort: How long the sections' systems run.
        many_labels: What ten labels are compared with.
        soak_images: 0 leaves the soak out.
        is_quick: Fewer candidates are tried for the limit and for the others.
    """

    name: str
    engines: tuple[EnginePlan, ...]
    effort: Effort
    limit_s: float
    section_effort: Effort
    sections: frozenset[str] = field(default_factory=frozenset)
    section_checkpoint: str = CLIP
    many_labels: int = 10_000
    reuse_images: int = 512
    soak_images: int = 0
    latency_s: float = 20.0
    is_quick: bool = False


SECTIONS = frozenset(
    {"latency", "overhead", "durability", "labels", "reuse", "soak", "workers", "answers"}
)
JOB_SIZES = (1, 16, 64)

QUICK = Plan(
    name="quick",
    engines=(
        EnginePlan(
            CLIP,
            (
                CasePlan(20, 2.0, (1, 16)),
                CasePlan(100, 2.0, has_batches=False, has_limit=False),
            ),
        ),
    ),
    effort=Effort(rounds=2, seconds=1.5),
    limit_s=170.0,
    section_effort=Effort(rounds=1, seconds=1.0),
    sections=frozenset({"latency", "overhead", "reuse", "labels", "soak"}),
    section_checkpoint=LITE,
    reuse_images=64,
    soak_images=640,
    latency_s=3.0,
    is_quick=True,
)
FULL = Plan(
    name="full",
    engines=(
        EnginePlan(
            CLIP,
            (
                CasePlan(20, 2.0, JOB_SIZES),
                CasePlan(5, 2.0),
                CasePlan(100, 2.0),
                CasePlan(1000, 2.0),
                CasePlan(20, 0.3),
                CasePlan(20, 12.0),
            ),
        ),
        EnginePlan(LITE, (CasePlan(20, 2.0, JOB_SIZES), CasePlan(100, 2.0), CasePlan(20, 0.3))),
    ),
    effort=Effort(rounds=3, seconds=8.0),
    section_effort=Effort(rounds=3, seconds=8.0),
    limit_s=2 * 3600.0,
    sections=SECTIONS,
    soak_images=50_000,
)
EVERY_CASE = Plan(
    name="every",
    engines=tuple(
        EnginePlan(
            checkpoint,
            tuple(
                CasePlan(count, size, JOB_SIZES if (count, size) == (20, 2.0) else (16,))
                for size in (2.0, 0.3, 12.0)
                for count in (20, 5, 100, 1000)
            ),
        )
        for checkpoint in (CLIP, LITE)
    ),
    effort=Effort(rounds=3, seconds=8.0),
    section_effort=Effort(rounds=3, seconds=8.0),
    limit_s=6 * 3600.0,
    sections=SECTIONS,
    soak_images=50_000,
)
SMOKE = Plan(
    name="smoke",
    engines=(EnginePlan(LITE, (CasePlan(20, 0.3, (1, 16)),)),),
    effort=Effort(rounds=1, seconds=1.0),
    section_effort=Effort(rounds=1, seconds=1.0),
    section_checkpoint=LITE,
    limit_s=900.0,
    sections=SECTIONS - {"workers"},
    many_labels=1_000,
    reuse_images=64,
    soak_images=1_280,
    latency_s=2.0,
    is_quick=True,
)
PLANS = {plan.name: plan for plan in (QUICK, FULL, EVERY_CASE, SMOKE)}
