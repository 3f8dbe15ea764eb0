"""Output of a run that no worker made: result and error lines, generated or given."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from labelyard.messages import ScoredLabel
from labelyard.runs.lines import ErrorLine, LineError, ResultLine
from labelyard.runs.summaries import DuplicateCounts, ImageCounts, RunSummary

LABELS = ("a cat", "a dog", "a bowl of soup", "a rocket", "a temple")
RUN_ID = "run-2031-03-14"
MANIFEST: Mapping[str, Any] = {
    "run_id": RUN_ID,
    "started_at": "2031-03-14T09:26:53+00:00",
    "request": {
        "source": "s3://shop/catalogue/**/*.jpg",
        "label_set": {"labels": [{"name": name} for name in LABELS], "scoring": "softmax"},
    },
    "label_set": "sha256:5e0c3f8a",
    "model": {"checkpoint": "openai/clip-vit-base-patch32", "dtype": "float32"},
    "labelyard": "0.1.0",
}


def scored(line: int, *scores: tuple[str, float], **fields: Any) -> ResultLine:
    """Make the result line of a picture with labels."""
    labels = tuple(ScoredLabel(name=name, score=score) for name, score in scores)
    best = labels[0] if labels else None
    known = {
        "custom_id": f"item-{line:06d}.jpg",
        "uri": f"s3://shop/catalogue/item-{line:06d}.jpg",
        "matched": () if best is None else (best.name,),
        "sha256": sha256(str(line).encode()).hexdigest(),
        "width": 640,
        "height": 480,
    }
    return ResultLine(
        **{**known, **fields},
        line=line,
        status="succeeded",
        top_label=best and best.name,
        top_score=best and best.score,
        labels=labels,
    )


def failed(line: int, *, code: str = "image_not_found", **fields: Any) -> ResultLine:
    """Make the result line of a picture that could not be scored."""
    known = {
        "custom_id": f"item-{line:06d}.jpg",
        "uri": f"s3://shop/catalogue/item-{line:06d}.jpg",
        "error": LineError(code=code, message=f"{code}: the picture of line {line}"),
    }
    return ResultLine(**{**known, **fields}, line=line, status="failed")


def generated(
    number: int, *, labels: Sequence[str] = LABELS, seed: int = 1
) -> Iterator[ResultLine]:
    """Make lines as a run would: skewed labels, some close calls, abstentions and failures."""
    dice = random.Random(seed)
    weights = [1 / (place + 1) for place in range(len(labels))]
    for line in range(1, number + 1):
        if dice.random() < 0.01:
            yield failed(line, code=dice.choice(["image_not_found", "image_undecodable"]))
            continue
        best = dice.choices(labels, weights)[0]
        score = 0.25 + 0.75 * dice.betavariate(5, 2)
        others = dice.sample([one for one in labels if one != best], min(2, len(labels) - 1))
        second = min(score, 1 - score) * (0.98 if dice.random() < 0.1 else dice.random())
        rest = (1 - score - second) * dice.random()
        pairs = zip(others, sorted((second, rest), reverse=True), strict=False)
        picture = dice.randrange(number) if dice.random() < 0.05 else line
        is_abstained = dice.random() < 0.04
        yield scored(
            line,
            (best, round(score, 6)),
            *((name, round(value, 6)) for name, value in pairs),
            sha256=sha256(str(picture).encode()).hexdigest(),
            abstained=is_abstained,
            matched=() if is_abstained else (best,),
        )


def write_run(
    folder: Path,
    lines: Iterable[ResultLine],
    *,
    errors: Iterable[ErrorLine] = (),
    manifest: Mapping[str, Any] = MANIFEST,
    shard_size: int = 1000,
    is_ended: bool = True,
) -> Path:
    """Write the files of a run; only one shard is in memory at once.

    Args:
        errors: Lines that name no picture.
        is_ended: Whether there is a summary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    total = failures = 0
    shard: list[ResultLine] = []
    number = 0
    for line in lines:
        shard.append(line)
        total += 1
        failures += line.status == "failed"
        if len(shard) == shard_size:
            _write_shard(folder, number, shard)
            number, shard = number + 1, []
    _write_shard(folder, number, shard, errors)
    if is_ended:
        images = ImageCounts(total=total, succeeded=total - failures, failed=failures)
        state = "partial" if failures else "succeeded"
        summary = RunSummary(
            run_id=RUN_ID, state=state, images=images, duplicates=DuplicateCounts()
        )
        (folder / "summary.json").write_text(summary.model_dump_json())
    return folder


def _write_shard(
    folder: Path, number: int, shard: Sequence[ResultLine], errors: Iterable[ErrorLine] = ()
) -> None:
    rows = "".join(f"{line.model_dump_json()}\n" for line in shard)
    (folder / f"results-{number:05d}.jsonl").write_text(rows)
    own = [error for line in shard if (error := line.to_error_line())]
    text = "".join(f"{line.model_dump_json()}\n" for line in (*own, *errors))
    (folder / f"errors-{number:05d}.jsonl").write_text(text)


def write_many(folder: Path, number: int, *, labels: int = 8, shard_size: int = 5000) -> Path:
    """Write a run of many lines quickly; every label, picture and line differs as in a real one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    dice = random.Random(7)
    row = (
        '{{"line":{line},"custom_id":"item-{line}","uri":"s3://shop/{line}.jpg",'
        '"status":"succeeded","top_label":"label {best}","top_score":{score},'
        '"matched":["label {best}"],"labels":[{{"name":"label {best}","score":{score}}},'
        '{{"name":"label {second}","score":{rest}}}],"sha256":"{digest:064x}",'
        '"width":640,"height":480}}\n'
    )
    for start in range(0, number, shard_size):
        with (folder / f"results-{start // shard_size:05d}.jsonl").open("w") as file:
            for line in range(start + 1, min(number, start + shard_size) + 1):
                score = round(0.5 + dice.random() / 2, 4)
                best = dice.randrange(labels)
                file.write(
                    row.format(
                        line=line,
                        best=best,
                        second=(best + 1) % labels,
                        score=score,
                        rest=round(1 - score, 4),
                        digest=dice.getrandbits(256),
                    )
                )
    return folder
