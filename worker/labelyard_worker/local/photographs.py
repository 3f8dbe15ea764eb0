"""The demo's six photographs, which come in the wheels of scikit-image and scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from labelyard.errors import ServiceConfigError


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph under a free licence, and the wheel that carries it.

    Attributes:
        name: Name in the demo, and key of its object.
        wheel: The distribution that carries it.
        path: Path in that distribution.
        credit: Author and licence.
    """

    name: str
    wheel: str
    path: str
    credit: str

    def read(self) -> bytes:
        """Read the file.

        Raises:
            ServiceConfigError: The wheel is not installed.
        """
        try:
            folder = Path(str(distribution(self.wheel).locate_file("")))
            return (folder / self.path).read_bytes()
        except (PackageNotFoundError, OSError) as error:
            raise ServiceConfigError(
                f"{self.path} is missing: run pip install 'labelyard[demo]'"
            ) from error


PHOTOGRAPHS = (
    Photograph(
        "chelsea.png", "scikit-image", "skimage/data/chelsea.png", "Stéfan van der Walt, CC0"
    ),
    Photograph("coffee.png", "scikit-image", "skimage/data/coffee.png", "Rachel Michetti, CC0"),
    Photograph("rocket.jpg", "scikit-image", "skimage/data/rocket.jpg", "SpaceX, CC0"),
    Photograph(
        "astronaut.png", "scikit-image", "skimage/data/astronaut.png", "NASA, public domain"
    ),
    Photograph(
        "china.jpg",
        "scikit-learn",
        "sklearn/datasets/images/china.jpg",
        "danielbuechele, CC BY 2.0",
    ),
    Photograph(
        "flower.jpg", "scikit-learn", "sklearn/datasets/images/flower.jpg", "vultilion, CC BY 2.0"
    ),
)

# Everyday words in phrases, none of them a bare class name; see docs/label-sets.md.
EVERYDAY_LABELS = (
    "a cat",
    "a dog",
    "a bird",
    "a horse",
    "a flower",
    "a cup of coffee",
    "a pizza",
    "a car",
    "a bicycle",
    "an airplane",
    "a rocket",
    "an astronaut",
    "a temple",
    "a beach",
    "a city street",
)


def credits_line() -> str:
    """Return one line with the credits of all photographs."""
    return "Photographs: " + "; ".join(f"{each.name} {each.credit}" for each in PHOTOGRAPHS)


def read_all() -> Mapping[str, bytes]:
    """Read every photograph, by name."""
    return {photograph.name: photograph.read() for photograph in PHOTOGRAPHS}
