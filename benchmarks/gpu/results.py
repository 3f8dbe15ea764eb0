"""Results of all steps, put together: cases with ratios, and a Markdown report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.gpu.form import MEGAPIXELS, SO400M

Status = Literal["ok", "failed", "skipped"]
INTAKE_EDGE_PX = {SO400M: 384}
USUAL_EDGE_PX = 224


@dataclass
class Ran:
    """Result of one step.

    Attributes:
        why: Why it is not ok; empty if it is.
        found: Its figures; those that it had when it was ended.
    """

    name: str
    subject: tuple[str, str]
    status: Status
    seconds: float
    why: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the step's entry in ``gpu-check.json``."""
        return {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "why": self.why,
        }


def as_json(ran: Sequence[Ran], *, device: str, is_tiny: bool) -> dict[str, Any]:
    """Return the content of ``gpu-check.json``."""
    return {
        "device": device,
        "is_tiny": is_tiny,
        "steps": [one.as_json() for one in ran],
        "cases": cases_of(ran),
    }


def cases_of(ran: Sequence[Ran]) -> list[dict[str, Any]]:
    """Join labelyard's figures with the limits, by checkpoint, dtype and size of pictures."""
    limits: dict[str, list[dict[str, Any]]] = {}
    for one in ran:
        limits.setdefault(one.subject[0], []).extend(one.found.get("ways", []))
    intake = [limit for one in ran for limit in one.found.get("limits", [])]
    raced = {one.subject: one.found for one in ran if one.subject[1]}
    subjects = list(raced)
    for checkpoint, ways in limits.items():
        subjects += [(checkpoint, dtype) for dtype in dict.fromkeys(way["dtype"] for way in ways)]
    cases = []
    for checkpoint, dtype in dict.fromkeys(subjects):
        for megapixels in MEGAPIXELS:
            systems = {
                **systems_of(raced.get((checkpoint, dtype), {}), megapixels),
                **model_limits(limits.get(checkpoint, []), dtype),
                **intake_limit(intake, checkpoint, megapixels),
            }
            cases.append(
                {
                    "checkpoint": checkpoint,
                    "megapixels": megapixels,
                    "dtype": dtype,
                    "systems": systems,
                    "ratios": ratios_of(systems),
                }
            )
    return cases


def systems_of(found: Mapping[str, Any], megapixels: float) -> dict[str, Any]:
    """Return a step's measurements with pictures of one size."""
    systems: dict[str, Any] = {}
    for case in found.get("cases", []):
        if case["megapixels"] == megapixels:
            systems |= case["systems"]
    ready_s, lone = found.get("start_to_ready_s"), found.get("lone")
    if systems and ready_s is not None:
        systems["labelyard_start"] = {"start_to_ready_s": ready_s}
    if lone is not None and lone["megapixels"] == megapixels:
        systems["labelyard_lone"] = {key: lone[key] for key in lone if key != "megapixels"}
    return systems


def model_limits(ways: Iterable[Mapping[str, Any]], dtype: str) -> dict[str, Any]:
    """Pick the best of each way to run the tower, and the best of all as ``model_limit``."""
    found: dict[str, Any] = {}
    for way in ways:
        if way["dtype"] != dtype:
            continue
        entry = {key: way[key] for key in ("batch_size", "images_per_s", "seconds")}
        if way["batch_size"] == 1:
            found[f"model_{way['way']}_alone"] = entry
        name = f"model_{way['way']}"
        for key in (name, "model_limit"):
            if key not in found or found[key]["images_per_s"] < way["images_per_s"]:
                found[key] = {**entry, "way": way["way"]}
    return found


def intake_limit(
    limits: Iterable[Mapping[str, Any]], checkpoint: str, megapixels: float
) -> dict[str, Any]:
    """Return the images per second that the cores can fetch and decode for a checkpoint."""
    edge = INTAKE_EDGE_PX.get(checkpoint, USUAL_EDGE_PX)
    for limit in limits:
        if (limit["edge_px"], limit["megapixels"]) == (edge, megapixels):
            return {"intake_limit": {"images_per_s": limit["images_per_s"]}}
    return {}


def ratios_of(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Compare labelyard with min(model limit, intake limit), and with the best tutorial."""

    def rate(prefix: str) -> float:
        rates = [
            float(one.get("images_per_s") or 0.0)
            for name, one in systems.items()
            if name.startswith(prefix)
        ]
        return max(rates, default=0.0)

    def over(rate_a: float, rate_b: float) -> float | None:
        return round(rate_a / rate_b, 3) if rate_a and rate_b else None

    model, intake = rate("model_limit"), rate("intake_limit")
    limit = min(model, intake) if model and intake else 0.0
    ours, single, tutorial = rate("labelyard_64"), rate("labelyard_1"), rate("tutorial_")
    return {
        "vs_limit": over(ours, limit),
        "vs_limit_jobs_of_1": over(single, limit),
        "vs_tutorial": over(ours, tutorial),
        "vs_tutorial_jobs_of_1": over(single, tutorial),
    }


def markdown(ran: Sequence[Ran], *, device: str, is_tiny: bool) -> str:
    """Write the report for people."""
    lines = [f"# GPU check: {device}", ""]
    if is_tiny:
        lines += ["Tiny checkpoints on a CPU: the steps work, the figures mean nothing.", ""]
    lines += ["| step | status | seconds | why |", "|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.status} | {one.seconds:.1f} | {_cell(one.why)} |" for one in ran
    ]
    lines += ["", *case_table(cases_of(ran)), "", "## What the steps found", ""]
    for one in ran:
        facts = {key: value for key, value in one.found.items() if not isinstance(value, list)}
        if facts:
            lines += [f"- **{one.name}**: {', '.join(f'{k} {v}' for k, v in facts.items())}"]
    return "\n".join(lines) + "\n"


def case_table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay the cases out, images per second."""
    header = (
        "checkpoint, dtype, megapixels | labelyard, jobs of 1 | of 64 | tutorial | model limit | "
        "intake limit | of the lower limit | vs tutorial | GPU busy, W | lone image, over bare, ms"
    )
    lines = [f"| {header} |", "|---" * (header.count("|") + 1) + "|"]
    for case in cases:
        systems, ratios = case["systems"], case["ratios"]
        tutorials = [one for name, one in systems.items() if name.startswith("tutorial_")]
        best: dict[str, Any] = max(
            tutorials, key=lambda one: float(one["images_per_s"]), default={}
        )
        limit, ours = systems.get("model_limit", {}), systems.get("labelyard_64", {})
        lone = systems.get("labelyard_lone", {})
        cells = [
            f"{case['checkpoint']}, {case['dtype']}, {case['megapixels']:g}",
            _shown(systems.get("labelyard_1", {}).get("images_per_s")),
            _shown(ours.get("images_per_s")),
            _shown(best.get("images_per_s")),
            f"{_shown(limit.get('images_per_s'))} ({limit['way']}, {limit['batch_size']})"
            if limit
            else "",
            _shown(systems.get("intake_limit", {}).get("images_per_s")),
            _shown(ratios["vs_limit"]),
            _shown(ratios["vs_tutorial"]),
            f"{ours['gpu_utilisation']:.0%}, {ours['gpu_power_w']:.0f}"
            if "gpu_utilisation" in ours
            else "",
            f"{1000 * lone['median_s']:.1f}, {1000 * lone['overhead_s']:.1f}" if lone else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(number: float | None) -> str:
    return "" if not number else f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
