"""Layout of an image's vector: the embedding that text is compared with, then the features."""

from dataclasses import dataclass
from typing import Literal

from labelyard_worker.vision.scoring import Floats

FeatureSpace = Literal["joint", "penultimate"]


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """Parts of the vectors that a checkpoint makes of images.

    One array for both parts goes through the batcher and the image cache: they come from one
    forward pass, and are kept and dropped together.

    Attributes:
        dim: Length of the embedding that is compared with texts.
        features_dim: Length of the features that are compared with examples; 0 if the embedding
            serves for both.
    """

    dim: int
    features_dim: int = 0

    @property
    def length(self) -> int:
        """Length of the whole vector."""
        return self.dim + self.features_dim

    @property
    def space(self) -> FeatureSpace:
        """Name of the vector that examples are compared by."""
        return "penultimate" if self.features_dim else "joint"

    def joint(self, vectors: Floats) -> Floats:
        """Return the embeddings, shape (…, dim)."""
        return vectors[..., : self.dim]

    def features(self, vectors: Floats) -> Floats:
        """Return the vectors that examples are compared by, shape (…, features_dim or dim)."""
        return vectors[..., self.dim :] if self.features_dim else vectors
