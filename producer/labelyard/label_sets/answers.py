"""Registry of the workers' counts of answers of label sets: drift and canaries."""

from typing import Any

from labelyard.drift.baselines import KEPT_HOURS, baseline_json, checked_hours, read_baseline
from labelyard.drift.canary import CanaryReport, read_comparison
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import LEAST_PICTURES, WINDOW_S, DriftReport, judge_windows
from labelyard.errors import InvalidMessageError, UnknownLabelSetError
from labelyard.label_sets.aliases import AliasRegistry, as_text, as_texts
from labelyard.ledger.redis_errors import foreign_content, ledger_errors_as_ours


class AnswerRegistry(AliasRegistry):
    """Counts of the answers of registered label sets; part of ``client.label_sets``."""

    def canary(self, alias: str) -> CanaryReport:
        """Compare the version of *alias* with its canary, the present one or else the last one.

        Raises:
            UnknownLabelSetError: There is no such alias, or it never had a canary.
        """
        known = self.alias(alias)
        reference, canary, share = known.reference, known.canary, known.share
        if canary is None:
            tried = [move for move in self.moves(alias, limit=1000) if move.action == "canary"]
            if not tried:
                raise UnknownLabelSetError(f"{alias} has no canary")
            reference, canary = tried[0].before, tried[0].reference
        with ledger_errors_as_ours():
            stored: Any = self._redis.hgetall(self._keys.canary(alias, reference, canary))
        try:
            return read_comparison(
                as_texts(stored), alias=alias, reference=reference, canary=canary, share=share
            )
        except ValueError as error:
            raise foreign_content(f"the canary of {alias}") from error

    def drift(self, labels: str, *, hours: int = KEPT_HOURS) -> DriftReport:
        """Compare the answers of a version with its baseline, hour by hour.

        Args:
            labels: The version, as :meth:`resolve` takes it.
            hours: Hours before the present one to read; 840 at most, which are kept.

        Returns:
            Its windows, and whether the newest one has drifted; without a baseline no window.

        Raises:
            UnknownLabelSetError: The version is not registered.
        """
        reference, span = self.resolve(labels), checked_hours(hours)
        baseline, made_at, now = self._read_baseline(reference)
        this_hour, first_hour = int(now // WINDOW_S), int(made_at // WINDOW_S)
        counted = self._read_hours(reference, this_hour - span, this_hour)
        return judge_windows(
            reference, baseline, counted, first_hour=first_hour, this_hour=this_hour
        )

    def set_baseline(self, labels: str, counts: AnswerCounts | None = None) -> DriftReport:
        """Set the answers that a version's drift is measured from; ``calibrate`` does it, too.

        Args:
            labels: The version, as :meth:`resolve` takes it.
            counts: The answers; those that workers counted in the last days if not given.

        Raises:
            UnknownLabelSetError: The version is not registered.
            InvalidMessageError: Nothing was counted, or fewer than 100 pictures.
        """
        reference = self.resolve(labels)
        _, _, now = self._read_baseline(reference)
        if counts is None:
            this_hour = int(now // WINDOW_S)
            counted = self._read_hours(reference, this_hour - KEPT_HOURS, this_hour)
            counts = sum(counted.values(), AnswerCounts())
            if 0 < counts.n < LEAST_PICTURES:
                raise InvalidMessageError(
                    f"a baseline needs {LEAST_PICTURES} pictures: workers have counted {counts.n}"
                )
        self._write_baseline(reference, baseline_json(counts, at=now))
        return self.drift(reference)

    def _write_baseline(self, reference: str, baseline: str) -> None:
        with ledger_errors_as_ours():
            self._redis.hset(self._keys.label_set_version(reference), "baseline", baseline)

    def _read_baseline(self, reference: str) -> tuple[AnswerCounts | None, float, float]:
        """Read the baseline of a version, when it was set, and the ledger's time."""
        with ledger_errors_as_ours(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zscore(self._keys.label_set_names, reference)
            pipeline.hget(self._keys.label_set_version(reference), "baseline")
            pipeline.time()
            score, stored, (seconds, microseconds) = pipeline.execute()
        if score is None:
            raise UnknownLabelSetError(reference)
        now = seconds + microseconds / 1_000_000
        if stored is None:
            return None, 0.0, now
        return *read_baseline(reference, as_text(stored)), now

    def _read_hours(self, reference: str, first: int, last: int) -> dict[int, AnswerCounts]:
        """Read the answers of a version by the hour."""
        digest = reference.partition("@")[2]
        hours = range(first, last + 1)
        with ledger_errors_as_ours(), self._redis.pipeline(transaction=False) as pipeline:
            for hour in hours:
                pipeline.hgetall(self._keys.answers(digest, hour))
            found: list[Any] = pipeline.execute()
        try:
            return {
                hour: AnswerCounts.of_fields(as_texts(stored))
                for hour, stored in zip(hours, found, strict=True)
                if stored
            }
        except ValueError as error:
            raise foreign_content(f"the answers of {reference}") from error
