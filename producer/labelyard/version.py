"""Version of labelyard: of the installed package, or of the checkout."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2] / "pyproject.toml"
UNKNOWN: Final = "0+unknown"


def read_version(checkout: Path = CHECKOUT) -> str:
    """Return the version; ``0+unknown`` if neither an installation nor a checkout names it.

    Args:
        checkout: The pyproject.toml of a checkout, which need not be installed.
    """
    try:
        return version("labelyard")
    except PackageNotFoundError:
        pass
    try:
        project = tomllib.loads(checkout.read_text("utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return UNKNOWN
    return str(project["version"]) if project.get("name") == "labelyard" else UNKNOWN


__version__: Final[str] = read_version()
