"""Counts of the answers of registered label sets, added to the ledger every few seconds."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Histogram

from labelyard.drift.counts import Answer, answer_fields, answers_of
from labelyard.drift.report import WINDOW_S
from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger
from labelyard.ledger.answer_commands import add_counts
from labelyard.messages import Job, LabelSet, Result
from labelyard.tags import EVALUATION_TAG
from labelyard_worker import metrics
from labelyard_worker.canary import ComparedResult
from labelyard_worker.tenant_labels import TenantLabels

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
#: Hashes that one addition writes; what is counted beyond them is dropped, and counted as such.
MAX_KEYS: Final = 200
SHOWN_DIGITS: Final = 12
#: Values of the labels ``label_set`` and ``alias`` in this process.
LABEL_SETS: Final = TenantLabels(50, beyond=metrics.OTHER)
ALIASES: Final = TenantLabels(50, beyond=metrics.OTHER)


class AnswerCounter:
    """AnswerCounter is responsible for the answers that the ledger counts by version and hour.

    Args:
        worker: Name of this process in the ledger.
    """

    def __init__(self, ledger: Ledger, *, worker: str) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}
        self._sending: dict[str, Counter[str]] = {}
        self._number = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-answers", daemon=True)

    def start(self) -> None:
        """Start to add the counts every few seconds."""
        self._thread.start()

    def close(self) -> None:
        """Add the counts so far to the ledger, and end the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try_to_flush()

    def count(self, job: Job, result: Result) -> None:
        """Count the answers of a job that this worker made final."""
        if isinstance(job.label_set, LabelSet) or job.tag == EVALUATION_TAG:
            return
        if result.label_set is not None:
            self.count_answers(job.label_set, answers_of(result.images))
        if isinstance(result, ComparedResult) and job.alias and job.canary:
            key = self._ledger.keys.canary(job.alias, job.label_set, job.canary)
            self._add(key, result.comparison)
            observe_comparison(job.alias, result.comparison)

    def count_answers(self, reference: str, answers: Sequence[Answer]) -> None:
        """Count the answers of a registered label set to pictures that are final."""
        if answers:
            hour = int(self._ledger.clock.now() // WINDOW_S)
            key = self._ledger.keys.answers(reference.rpartition("@")[2], hour)
            self._add(key, answer_fields(answers))
            observe_answers(reference, answers)

    def flush(self) -> None:
        """Add the counts since the last call to the ledger.

        What an earlier call could not add comes first, under its old number: an addition whose
        reply was lost is not made twice.

        Raises:
            LedgerUnavailableError: Redis gave no answer; nothing is lost.
        """
        while True:
            with self._lock:
                if not self._sending:
                    self._sending, self._counts = self._counts, {}
                    self._number += 1
                if not self._sending:
                    return
            self._ledger.run_many(
                add_counts(key, counts, worker=self._worker, number=self._number)
                for key, counts in self._sending.items()
            )
            with self._lock:
                self._sending = {}

    def _add(self, key: str, fields: Mapping[str, int]) -> None:
        with self._lock:
            counts = self._counts.get(key)
            if counts is None:
                if len(self._counts) >= MAX_KEYS:
                    metrics.ANSWERS_DROPPED.inc()
                    return
                counts = self._counts[key] = Counter()
            for name, increment in fields.items():
                counts[name] += increment

    def _run(self) -> None:
        while not self._closed.wait(EVERY_S):
            self._try_to_flush()

    def _try_to_flush(self) -> None:
        try:
            self.flush()
        except LabelyardError as error:
            log.warning("answers_wait", extra={"fields": {"code": error.code}})
        except Exception:
            log.exception("answers_failed")


def observe_answers(reference: str, answers: Sequence[Answer]) -> None:
    """Observe scores and outcomes of pictures under a version of a bounded number."""
    scores, outcomes = _children(_label_set_label(reference))
    for _, score, is_matched, is_abstained in answers:
        scores.observe(score)
        outcomes["abstained" if is_abstained else "matched" if is_matched else "unmatched"].inc()


def observe_comparison(alias: str, comparison: Mapping[str, int]) -> None:
    """Observe the comparison of a job's answers with a canary's."""
    label = ALIASES.value(alias)
    images, same = comparison.get("images", 0), comparison.get("same", 0)
    metrics.CANARY_IMAGES.labels(label, "same").inc(same)
    metrics.CANARY_IMAGES.labels(label, "flipped").inc(images - same)
    metrics.CANARY_FAILURES.labels(label).inc(comparison.get("failed", 0))


def _label_set_label(reference: str) -> str:
    name, _, digest = reference.partition("@sha256:")
    return LABEL_SETS.value(f"{name}@sha256:{digest[:SHOWN_DIGITS]}")


@cache  # as bounded as the label is
def _children(label_set: str) -> tuple[Histogram, Mapping[str, PrometheusCounter]]:
    outcomes = ("matched", "unmatched", "abstained")
    return (
        metrics.BEST_SCORE.labels(label_set),
        {outcome: metrics.ANSWERS.labels(label_set, outcome) for outcome in outcomes},
    )
