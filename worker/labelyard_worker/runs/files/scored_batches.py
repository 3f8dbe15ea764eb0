"""Results of many images at once, of the arrays of their scores: for Parquet and for JSON lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring as to_json_text
from typing import Any, Final

import numpy as np
import pyarrow as pa

from labelyard.runs.summaries import SCORE_BINS
from labelyard_worker.runs.files.parquet_tables import FACTS, RESULTS, SCORED_LABEL, SCORED_NODE
from labelyard_worker.runs.files.shard_counts import ShardCounts, bins_of
from labelyard_worker.vision.ranking import REASONS, Ranking
from labelyard_worker.vision.scoring import Indices, LabelMatrix

_PLACES: Final = {name: number for number, name in enumerate(FACTS)}


@dataclass(frozen=True)
class ScoredBatch:
    """Images that were scored against one label set.

    Attributes:
        facts: What is known of the images besides their scores, the columns ``FACTS``.
        ranking: Ranked labels of the images.
        labels: The label set.
    """

    facts: pa.RecordBatch
    ranking: Ranking
    labels: LabelMatrix

    def to_table(self) -> pa.RecordBatch:
        """Return the columns of results."""
        ranking, count = self.ranking, self.facts.num_rows
        names = pa.array(self.labels.names, pa.string())
        scores = pa.array(ranking.scores, pa.float64())
        scored = pa.StructArray.from_arrays(
            [names.take(pa.array(ranking.labels)), scores], fields=list(SCORED_LABEL)
        )
        firsts = _starts(ranking.ends)
        made = {
            "status": pa.repeat("succeeded", count),
            "top_label": names.take(pa.array(ranking.labels[firsts])),
            "top_score": scores.take(pa.array(firsts)),
            "matched": pa.ListArray.from_arrays(
                _offsets(ranking.matched_ends), names.take(pa.array(ranking.matched))
            ),
            "abstained": pa.array(ranking.is_abstained),
            "labels": pa.ListArray.from_arrays(_offsets(ranking.ends), scored),
            "label_set": pa.repeat(self.labels.digest, count),
            "error": pa.nulls(count, RESULTS.field("error").type),
            "fit": pa.array(ranking.fits, pa.float64()),
            "abstained_because": pa.array([REASONS[each] for each in ranking.reasons], pa.string()),
            **self._node_columns(),
        }
        arrays = [
            self.facts.column(_PLACES[name]) if name in _PLACES else made[name]
            for name in RESULTS.names
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=RESULTS)

    def _node_columns(self) -> dict[str, pa.Array]:
        """Return the columns of the hierarchy, as result lines have them."""
        nodes, images = self.ranking.nodes, range(self.facts.num_rows)
        if nodes is None:
            none = pa.array([[]] * len(images), RESULTS.field("parents").type)
            return {"parents": none, "node": pa.nulls(len(images), SCORED_NODE)}
        parents = [[one.model_dump() for one in nodes.parents_of(image)] for image in images]
        found = [nodes.node_of(image) for image in images]
        return {
            "parents": pa.array(parents, RESULTS.field("parents").type),
            "node": pa.array([one and one.model_dump() for one in found], SCORED_NODE),
        }

    def _ends_of_lines(self) -> Iterator[str]:
        """Yield the fields behind ``columns`` of each line."""
        nodes = self.ranking.nodes
        each = zip(self.ranking.fits.tolist(), self.ranking.reasons.tolist(), strict=True)
        for image, (fit, reason) in enumerate(each):
            because = "null" if REASONS[reason] is None else f'"{REASONS[reason]}"'
            parents = [] if nodes is None else nodes.parents_of(image)
            node = None if nodes is None else nodes.node_of(image)
            yield (
                f'"fit":{fit!r},"abstained_because":{because},'
                f'"parents":[{",".join(one.model_dump_json() for one in parents)}],'
                f'"node":{"null" if node is None else node.model_dump_json()}'
            )

    def to_json_lines(self) -> str:
        """Return result lines, each with a line break; ``columns`` is JSON already."""
        ranking, label_set = self.ranking, to_json_text(self.labels.digest)
        names = [to_json_text(name) for name in self.labels.names]
        heads = [f'{{"name":{name},"score":' for name in names]
        scored = [
            f"{heads[label]}{score!r}}}"
            for label, score in zip(ranking.labels.tolist(), ranking.scores.tolist(), strict=True)
        ]
        matched = [names[label] for label in ranking.matched.tolist()]
        firsts = _starts(ranking.ends)
        tops = zip(
            [names[label] for label in ranking.labels[firsts].tolist()],
            ranking.scores[firsts].tolist(),
            strict=True,
        )
        abstained = ["true" if each else "false" for each in ranking.is_abstained.tolist()]
        lines = []
        for facts, (name, score), is_abstained, own_matched, own_labels, end in zip(
            zip(*self._texts(), strict=True),
            tops,
            abstained,
            _cut(matched, ranking.matched_ends),
            _cut(scored, ranking.ends),
            self._ends_of_lines(),
            strict=True,
        ):
            line, custom_id, uri, sha256, width, height, size_bytes, columns = facts
            lines.append(
                f'{{"line":{line},"custom_id":{custom_id},"uri":{uri},"status":"succeeded",'
                f'"top_label":{name},"top_score":{score!r},"matched":[{",".join(own_matched)}],'
                f'"abstained":{is_abstained},"labels":[{",".join(own_labels)}],'
                f'"label_set":{label_set},"sha256":{sha256},"width":{width},"height":{height},'
                f'"size_bytes":{size_bytes},"error":null,"columns":{columns},{end}}}\n'
            )
        return "".join(lines)

    def count(self, counts: ShardCounts) -> None:
        """Add the images to the counts of a shard."""
        ranking, labels = self.ranking, self.labels.n_labels
        tops = np.bincount(ranking.labels[_starts(ranking.ends)], minlength=labels)
        matched = np.bincount(ranking.matched, minlength=labels)
        bins = ranking.labels * SCORE_BINS + bins_of(ranking.scores)
        histograms = np.bincount(bins, minlength=labels * SCORE_BINS).reshape(labels, SCORE_BINS)
        counts.add_scored(
            images=self.facts.num_rows,
            abstained=int(np.count_nonzero(ranking.is_abstained)),
            labels=self._by_name(tops),
            matched=self._by_name(matched),
            histograms={
                self.labels.names[label]: histograms[label].tolist()
                for label in np.unique(ranking.labels).tolist()
            },
        )
        counts.add_contents(self.facts.column(_PLACES["sha256"]).to_pylist())

    def _by_name(self, counts: Indices) -> dict[str, int]:
        return {self.labels.names[label]: int(counts[label]) for label in counts.nonzero()[0]}

    def _texts(self) -> list[list[Any]]:
        """Return each column of the facts as JSON texts or numbers, in the order of ``FACTS``."""
        columns = []
        for name in FACTS:
            values = self.facts.column(_PLACES[name]).to_pylist()
            if name in {"custom_id", "uri", "sha256"}:
                values = ["null" if value is None else to_json_text(value) for value in values]
            elif name in {"width", "height", "size_bytes"}:
                values = ["null" if value is None else value for value in values]
            columns.append(values)
        return columns


def _starts(ends: Indices) -> Indices:
    """Return the index of each image's first entry."""
    return np.concatenate((np.zeros(1, dtype=ends.dtype), ends))[: len(ends)]


def _offsets(ends: Indices) -> pa.Array:
    """Return the bounds of all lists as Arrow has them."""
    return pa.array(np.concatenate(([0], ends)).astype(np.int32))


def _cut(items: list[str], ends: Indices) -> Iterator[list[str]]:
    """Cut the entries of all images into those of each."""
    start = 0
    for end in ends.tolist():
        yield items[start:end]
        start = end
