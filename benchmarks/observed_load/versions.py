"""Two versions of a label set in use: an alias that moves between them, a canary, and drift."""

import time
from typing import Final

import redis

from labelyard import Client
from labelyard.drift.baselines import baseline_json
from labelyard.drift.counts import AnswerCounts, answer_counts
from labelyard.drift.report import WINDOW_S
from labelyard.label_sets import as_label_set
from labelyard.ledger import Ledger, connect
from labelyard.ledger.answer_commands import add_counts

NAME: Final = "load"
ALIAS: Final = f"{NAME}@prod"
PICTURES: Final = 500
#: Best scores of the baseline, and of the hour before the load with each version: the second has
#: drifted.
BASELINE_SCORE: Final = 0.9
SCORES_BEFORE: Final = (0.9, 0.6)


class Versions:
    """The versions, registered with a baseline and with the answers of the hour before.

    A window of drift is an hour, longer than the load: those answers are written as workers would
    have written them.
    """

    def __init__(self, client: Client, labels: tuple[str, ...]) -> None:
        self._moves = 0
        sets = [as_label_set(labels, templates=(text,)) for text in ("a photo of {}.", "{}.")]
        self._references = [client.label_sets.register(NAME, one) for one in sets]
        connection = connect(client.settings)
        try:
            ledger = Ledger(connection, client.settings)
            for reference, score in zip(self._references, SCORES_BEFORE, strict=True):
                self._write_an_hour(ledger, connection, reference, labels, score)
        finally:
            connection.close()

    def move(self, client: Client) -> None:
        """Have the alias name the other version, and try the one before as its canary."""
        now, before = (self._references[(self._moves + one) % 2] for one in (0, 1))
        client.label_sets.promote(now, ALIAS)
        client.label_sets.promote(before, ALIAS, share=1.0)
        self._moves += 1

    def _write_an_hour(
        self,
        ledger: Ledger,
        connection: redis.Redis,
        reference: str,
        labels: tuple[str, ...],
        score: float,
    ) -> None:
        hour = int(time.time() // WINDOW_S) - 1
        baseline = baseline_json(self._answers(labels, BASELINE_SCORE), at=float(hour * WINDOW_S))
        connection.hset(ledger.keys.label_set_version(reference), "baseline", baseline)
        key = ledger.keys.answers(reference.partition("@")[2], hour)
        counts = self._answers(labels, score).fields()
        ledger.run(add_counts(key, counts, worker=NAME, number=1))

    def _answers(self, labels: tuple[str, ...], score: float) -> AnswerCounts:
        return answer_counts(
            (labels[number % len(labels)], score, True, False) for number in range(PICTURES)
        )
