"""Settings that an examination of the servers needs, and the variables that match no setting."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Final

from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.settings import PREFIX, ClientSettings, Names

VARIABLE_UNKNOWN: Final = FindingKind(
    "variable_unknown",
    "settings",
    Severity.WARNING,
    "{variable} is set, and no such setting exists.",
    "{remedy} A worker does not start with it.",
    in_worker=Severity.SERIOUS,
)
SETTING_REFUSED: Final = FindingKind(
    "setting_refused",
    "settings",
    Severity.SERIOUS,
    "A setting is refused: {why}.",
    "Correct the variable; docs/settings.md has the values that each allows.",
)
KINDS: Final = (VARIABLE_UNKNOWN, SETTING_REFUSED)
#: Names of all settings of producers and workers, written by ``make docs``.
NAMES_FILE: Final = "setting_names.txt"


class DoctorSettings(ClientSettings):
    """Settings of a producer, and those of the workers that concern the servers.

    Attributes:
        embeddings_url: As the workers have it.
        atomic_claim: As the workers have it.
        result_buckets: As the workers have it.
        allowed_buckets: As the workers have it.
    """

    embeddings_url: str | None = None
    atomic_claim: bool = True
    result_buckets: Names = ()
    allowed_buckets: Names = ()


def known_variables() -> set[str]:
    """Read the variables of all settings, those of the workers included."""
    names = files(__package__ or "").joinpath(NAMES_FILE).read_text(encoding="utf-8").split()
    return {PREFIX + name.upper() for name in names}


def check_variables(environ: Mapping[str, str], *, is_worker: bool) -> Iterator[Finding]:
    """Find variables that match no setting, with the setting that each was meant to be."""
    known = known_variables()
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable not in known:
            close = get_close_matches(variable, sorted(known), n=1, cutoff=0.8)
            remedy = f"Write {close[0]}." if close else f"Remove it: unset {variable}."
            yield VARIABLE_UNKNOWN.at(is_worker=is_worker, variable=variable, remedy=remedy)
