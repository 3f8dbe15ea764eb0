"""Prove that a thousand bad lines of a manifest harm no good line of the run.

    python -m benchmarks.runs.bad_lines

Servers of its own on 127.0.0.1 and one worker whose model answers at once. A manifest of JSON
lines, plain and with gzip, and one in CSV have more than 1,000 bad lines each, of every kind that
the readers know, and lines whose picture is missing, broken or forbidden; behind a good line comes
a bad one. A run over the good lines alone says what their results must be. Exit status 1 if a claim
fails.
"""

import argparse
import faulthandler
import gzip
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support import broken_pictures
from tests.support.bad_lines import BAD_LINES, ManifestForm, MixedManifest, mixed_manifest
from tests.support.manifests import REFERENCE

from benchmarks.runs.recount import Recount, differences
from benchmarks.runs.rig import Rig, check, joined, running_rig, say, small_pictures, upload
from benchmarks.stack import isolate
from labelyard import Client
from labelyard.runs.record import RunRecord

GOOD_PICTURES: Final = 40
LEAST_BAD: Final = 1_000
LEAST_GOOD: Final = 500
#: Form of each manifest by its ending, and how often each kind of line is there.
MANIFESTS: Final[dict[str, tuple[ManifestForm, int]]] = {
    "jsonl": ("jsonl", 20),
    "jsonl.gz": ("jsonl", 20),
    "csv": ("csv", 75),
}
LABELS: Final = ("a cat", "a dog")
SCORE_TOLERANCE: Final = 1e-6  # a matrix product of one row rounds otherwise than one of many


def store_pictures(rig: Rig) -> list[str]:
    """Upload the good pictures and the broken ones; returns the addresses of the good ones."""
    bucket = rig.service.pictures
    good = {f"good/{n}.jpg": body for n, body in enumerate(small_pictures(GOOD_PICTURES))}
    bad = {
        "bad/text.jpg": b"no picture at all",
        "bad/cut.jpg": next(iter(good.values()))[:200],
        "bad/huge.png": broken_pictures.huge_png_header(),
    }
    upload(rig.service, (good | bad).items())
    rig.service.private.put("secret.jpg", b"nobody reads this")
    return [bucket.uri(key) for key in good]


def failing_lines(rig: Rig, form: ManifestForm, good: str) -> list[tuple[dict[str, str], str]]:
    """Return lines that name a picture without scores, and their codes."""
    at = rig.service.pictures.uri
    lines = [
        ({"uri": at("bad/missing.jpg")}, "image_not_found"),
        ({"uri": at("bad/text.jpg")}, "image_undecodable"),
        ({"uri": at("bad/cut.jpg")}, "image_undecodable"),
        ({"uri": at("bad/huge.png")}, "image_too_large"),
        ({"uri": rig.service.private.uri("secret.jpg")}, "image_access_denied"),
        ({"uri": "https://unlisted.example/x.jpg"}, "unsupported_uri"),
    ]
    if form == "jsonl":
        lines.append(({"uri": good, "label_set": REFERENCE}, "unknown_label_set"))
    return lines


def start_and_wait(client: Client, rig: Rig, source: str, out: str, minutes: float) -> RunRecord:
    """Run a manifest to its end."""
    handle = client.runs.start(source, LABELS, out=rig.service.results.uri(out), columns=["*"])
    return handle.wait(timeout_s=minutes * 60)


def results_of(folder: Path) -> list[dict[str, Any]]:
    """Read all result lines of a run that was downloaded."""
    files = sorted(folder.glob("results-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def are_same(good: Sequence[dict[str, Any]], clean: Sequence[dict[str, Any]]) -> bool:
    """Return whether two runs have equal results for the same pictures, in the same order."""
    facts = ("custom_id", "uri", "status", "top_label", "matched", "sha256", "width", "height")
    return len(good) == len(clean) and all(
        all(one[name] == other[name] for name in facts)
        and abs(one["top_score"] - other["top_score"]) < SCORE_TOLERANCE
        for one, other in zip(good, clean, strict=True)
    )


def prove(minutes: float) -> dict[str, Any]:
    """Run everything, and return the figures."""
    problems: list[str] = []
    found: dict[str, Any] = {}
    with running_rig(workers=1) as rig, rig.client() as client:
        uris = store_pictures(rig)
        process = rig.workers[0].pid
        for ending, (form, rounds) in MANIFESTS.items():
            failing = failing_lines(rig, form, uris[0])
            mixed = mixed_manifest(form, uris, rounds=rounds, failing=failing)
            body = gzip.compress(mixed.body, 1) if ending.endswith("gz") else mixed.body
            source = rig.service.pictures.put(f"mixed.{ending}", body)
            say(f"{ending}: {len(mixed.bad)} bad lines of {len(BAD_LINES[form])} kinds")
            run = start_and_wait(client, rig, source, f"{ending}/", minutes)
            clean = clean_results(client, rig, mixed, uris, f"{ending}-clean", minutes)
            files = RunFiles.read(client, rig, run)
            found[ending] = verify(run, files, mixed, clean, problems)
        dead, states = client.dead_letters.count(), Counter(run.state for run in client.runs.list())
        check(rig.workers[0].pid == process, "the worker is the one that was started", problems)
        check(not dead and not client.open_images(), "no job is left, and none is dead", problems)
        check(set(states) == {"partial", "succeeded"}, f"the runs ended: {dict(states)}", problems)
    return {"manifests": found, "problems": problems}


def clean_results(
    client: Client, rig: Rig, mixed: MixedManifest, uris: Sequence[str], name: str, minutes: float
) -> list[dict[str, Any]]:
    """Run the good lines alone; returns their results."""
    lines = [
        json.dumps({"custom_id": one, "uri": uris[number % len(uris)]})
        for number, one in enumerate(mixed.good)
    ]
    source = rig.service.pictures.put(f"{name}.jsonl", joined(lines))
    run = start_and_wait(client, rig, source, f"{name}/", minutes)
    with tempfile.TemporaryDirectory() as folder:
        client.runs.download(run.run_id, folder)
        return results_of(Path(folder))


@dataclass(frozen=True)
class RunFiles:
    """Summary, errors and results of a run.

    Attributes:
        errors: Number and code of each error line.
        results: All result lines, those of failed pictures included.
        differences: What ``summary.json`` says otherwise than DuckDB counts.
    """

    summary: dict[str, Any]
    errors: list[tuple[int, str]]
    results: list[dict[str, Any]]
    differences: list[str]

    @classmethod
    def read(cls, client: Client, rig: Rig, run: RunRecord) -> "RunFiles":
        """Download the files of a run."""
        out = run.request.out.removeprefix(rig.service.results.uri(""))
        summary = json.loads(rig.service.results.get(f"{out}summary.json"))
        errors = [(error.line, error.code) for error in client.runs.errors(run.run_id)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            client.runs.download(run.run_id, folder)
            counted = Recount(folder).summary()
            return cls(summary, errors, results_of(folder), differences(summary, counted))


def verify(
    run: RunRecord,
    files: RunFiles,
    mixed: MixedManifest,
    clean: Sequence[dict[str, Any]],
    problems: list[str],
) -> dict[str, Any]:
    """Compare errors, results and summary of a run with what its manifest makes of them."""
    good = [line for line in files.results if line["status"] == "succeeded"]
    failed = {line["line"]: line["error"]["code"] for line in files.results if line["error"]}
    unlike = sorted(set(files.errors) ^ set(mixed.errors.items()))
    summary, wrong = files.summary, "; ".join(files.differences)
    for is_true, claim in (
        (
            len(mixed.bad) >= LEAST_BAD and len(mixed.good) >= LEAST_GOOD,
            f"{len(mixed.bad)} bad lines, {len(mixed.failing)} bad pictures, {len(mixed.good)} good",
        ),
        (
            not unlike and len(files.errors) == len(mixed.errors),
            f"{len(files.errors)} errors: each bad line once, by number and code {unlike[:9] or ''}",
        ),
        (
            [(line["custom_id"], line["line"]) for line in good] == list(mixed.good.items()),
            f"{len(good)} results: each good line once, and no other",
        ),
        (failed == mixed.failing, "each bad picture has one failed result"),
        (are_same(good, clean), "the scores are those of a run without bad lines"),
        (not wrong, f"summary.json agrees with DuckDB {wrong}"),
        (
            (summary["state"], summary["bad_lines"]) == ("partial", len(mixed.bad))
            and summary["errors"] == Counter(mixed.errors.values()) == run.errors
            and (run.succeeded, run.failed) == (len(mixed.good), len(mixed.failing)),
            "the summary and the record of the run have the same numbers",
        ),
    ):
        check(is_true, claim, problems)
    return {
        "lines": len(mixed.lines),
        "bad_lines": len(mixed.bad),
        "bad_pictures": len(mixed.failing),
        "good_lines": len(mixed.good),
        "codes": dict(sorted(Counter(mixed.errors.values()).items())),
        "seconds": summary["seconds"],
    }


def main() -> int:
    """Read the command line, run, and print the figures as JSON; 1 if a claim fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.bad_lines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="longest time of each run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(6 * options.minutes * 60 + 600, exit=True)
    report = prove(options.minutes)
    print(json.dumps(report, indent=1))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
