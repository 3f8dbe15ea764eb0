"""Report of a run: a table, ``latest.json``, and bars as SVG and PNG."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks import bars
from benchmarks.folders import RESULTS

LATEST = RESULTS / "latest.json"
SECTIONS_SHOWN = (
    "latency",
    "scaling",
    "overhead",
    "durability",
    "labels",
    "reuse",
    "soak",
    "answers",
)


def write(results: dict[str, Any]) -> None:
    """Write all files; an older ``latest.json`` is replaced."""
    RESULTS.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(results, indent=1) + "\n")
    rows = bar_rows(results)
    (RESULTS / "throughput.svg").write_text(bars.as_svg(rows))
    bars.as_png(rows).save(RESULTS / "throughput.png", optimize=True)


def errors(results: dict[str, Any]) -> int:
    """Count images without a right result, over all systems."""
    return sum(
        system["errors"] + bool(system.get("problems"))
        for case in results["cases"]
        for system in case["systems"].values()
    )


def table(results: dict[str, Any]) -> str:
    """Lay the results out for a terminal."""
    machine = results["machine"]
    flags = ", ".join(machine["flags"])
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {flags}"]
    lines.append(f"load before the start: {results['load_before']}")
    for case in results["cases"]:
        lines += ["", *_case_lines(case)]
    for name in SECTIONS_SHOWN:
        if results.get(name):
            lines += ["", f"{name}:", *_section_lines(results[name])]
    if not results["is_whole"]:
        lines += ["", "ended early: this is not the whole plan"]
    if results["left_out"]:
        lines += ["", "left out for want of time: " + "; ".join(results["left_out"])]
    return "\n".join(lines)


def title_of(case: dict[str, Any]) -> str:
    """Name a case."""
    extra = "" if case["device"] == "cpu" else f", {case['device']} {case['dtype']}"
    compiled = ", compiled" if case["compile"] else ""
    return (
        f"{case['checkpoint']}{extra}{compiled}: {case['labels']} labels, "
        f"{case['megapixels']:g} megapixels"
    )


def bar_rows(results: dict[str, Any]) -> list[bars.Group]:
    """List the bars of the chart: each system's images per second, by case."""
    return [
        bars.Group(
            title_of(case),
            tuple((name, system["images_per_s"]) for name, system in case["systems"].items()),
        )
        for case in results["cases"]
    ]


def _case_lines(case: dict[str, Any]) -> Iterator[str]:
    yield title_of(case)
    yield f"  {'system':<24}{'images/s':>10}{'spread':>16}{'CPU ms':>9}{'peak MiB':>10}  by stage, ms"
    for name, system in case["systems"].items():
        rounds = system["images_per_s_rounds"] or [0.0]
        stages = " ".join(
            f"{stage} {1000 * seconds:.1f}"
            for stage, seconds in system["cpu_s_per_image_by_stage"].items()
        )
        wrong = f"  {system['errors']} ERRORS {system.get('problems')}" if _is_bad(system) else ""
        yield (
            f"  {name:<24}{system['images_per_s']:>10.1f}"
            f"{f'{min(rounds):.1f} to {max(rounds):.1f}':>16}"
            f"{1000 * system['cpu_s_per_image']:>9.1f}"
            f"{system['peak_rss_bytes'] >> 20:>10}  {stages}{wrong}"
        )
    yield f"  limit: {case['limit_way']}"
    yield "  ratios: " + ", ".join(f"{name} {ratio}" for name, ratio in case["ratios"].items())
    answers = {name: part and round(part, 3) for name, part in case["answers_like_float32"].items()}
    yield f"  best label as in float32: {answers}"


def _is_bad(system: dict[str, Any]) -> bool:
    return bool(system["errors"] or system.get("problems"))


def _section_lines(section: dict[str, Any]) -> Iterator[str]:
    for name, value in section.items():
        if name not in ("systems", "curve"):
            yield f"  {name}: {value}"
