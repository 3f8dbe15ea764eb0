"""Pictures of a manifest that were checked, and the label set that is to score them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelyard.evaluation.manifest import LabelledImage
from labelyard.evaluation.scored_images import Scoring
from labelyard.messages import LabelSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPictures:
    """Pictures that can be uploaded and scored; each kind of measurement or fit extends it.

    Attributes:
        label_set: The set that scores them.
        images: The pictures.
        reference: Reference of the set, if it is registered.
    """

    label_set: LabelSet
    images: Sequence[LabelledImage]
    reference: str | None = None

    @property
    def files(self) -> list[Path]:
        """Local files to upload, each once."""
        return list(dict.fromkeys(one.file for one in self.images if one.file is not None))

    def uris(self, addresses: Mapping[Path, str]) -> list[str]:
        """Return the address of each picture.

        Args:
            addresses: Address of each uploaded file.
        """
        return [one.image if one.file is None else addresses[one.file] for one in self.images]

    def scoring(self, addresses: Mapping[Path, str]) -> Scoring:
        """Return the scoring of the pictures.

        Args:
            addresses: Address of each uploaded file.
        """
        uris = self.uris(addresses)
        return Scoring(self.images, uris, self.reference or self.label_set, self.label_set)
