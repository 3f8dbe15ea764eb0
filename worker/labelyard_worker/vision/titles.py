"""Vectors of texts beside pictures, and of labels as such texts are compared with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import numpy as np

from labelyard.messages import LabelSet
from labelyard.queues import Priority
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.vision.ensembles import ensembles_of, group_ensembles, mean_direction
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.text_vectors import PROMPTS_IN_A_PASS, TextVectors
from labelyard_worker.vision.title_scores import TitleLabels

PROMPTS_AT_ONCE: Final = 1_024


class TitleEncoder(Protocol):
    """The part of a checkpoint that encodes titles."""

    def title_embeds(self, texts: Sequence[str]) -> Floats:
        """Encode *texts* for comparison with one another, shape (texts, dim), unit length."""


@dataclass(frozen=True)
class _Encoder:
    """A title encoder, as the queue of the text tower takes it."""

    encoder: TitleEncoder

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        return self.encoder.title_embeds(prompts)


class TitleIndex:
    """Vectors of titles, and of labels as titles are compared with them.

    Titles come from users, and hardly ever twice: they are kept in memory of their own, so that
    they displace no label, and in no cache that workers share.
    """

    def __init__(self, encoder: TitleEncoder, *, capacity_bytes: int) -> None:
        """Start the thread that encodes.

        Args:
            capacity_bytes: Most bytes of vectors kept.
        """
        self.vectors = TextVectors(_Encoder(encoder), capacity_bytes=capacity_bytes)

    def embed(
        self, texts: Sequence[str | None], *, token: Token, priority: Priority
    ) -> list[Floats | None]:
        """Encode texts, each once.

        Returns:
            One for each of *texts*, in order; ``None`` for none.

        Raises:
            LabelyardError: The token's job may not go on, or the model failed.
        """
        wanted = list(dict.fromkeys(text for text in texts if text))
        known = self.vectors.look_up(wanted)
        missing = [text for text in wanted if text not in known]
        for first in range(0, len(missing), PROMPTS_IN_A_PASS):
            part = self.vectors.request(
                missing[first : first + PROMPTS_IN_A_PASS], priority=priority
            )
            try:
                known |= {one.prompt: token.wait(one.answer) for one in part}
            finally:
                self.vectors.release(part)
        return [known[text] if text else None for text in texts]

    def labels_of(
        self, label_set: LabelSet, *, token: Token, priority: Priority
    ) -> TitleLabels | None:
        """Encode the labels of a set that learned to read titles; ``None`` for another."""
        weights = None if label_set.learned is None else label_set.learned.titles
        if weights is None:
            return None
        rows = []
        for group in group_ensembles(ensembles_of(label_set), most_prompts=PROMPTS_AT_ONCE):
            flat = [prompt for ensemble in group for prompt in ensemble]
            found = iter(self.embed(flat, token=token, priority=priority))
            for ensemble in group:
                vectors = [each for each in islice(found, len(ensemble)) if each is not None]
                rows.append(mean_direction(np.stack(vectors)))
        return TitleLabels(np.stack(rows), len(label_set.labels), weights.picture, weights.title)

    def close(self) -> None:
        """Stop encoding."""
        self.vectors.close()
