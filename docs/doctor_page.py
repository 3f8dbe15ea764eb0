"""Tables of ``docs/doctor.md``, from the kinds of findings that the two doctors declare."""

import re
from pathlib import Path
from typing import Final

from labelyard.doctor import KINDS, FindingKind
from labelyard_worker.operations import doctor as worker_doctor

PAGE: Final = Path(__file__).with_name("doctor.md")
BEGIN: Final = "<!-- Generated from the kinds of findings in the code: run make docs. -->\n"
TITLES: Final = {
    "redis": "Redis",
    "permissions": "Rights on Redis",
    "rabbitmq": "RabbitMQ",
    "storage": "Object storage",
    "clocks": "Clocks",
    "fleet": "The fleet",
    "settings": "Settings",
    "model": "The model (worker)",
    "machine": "The machine (worker)",
    "doctor": "The doctor itself",
}


def doctor_page() -> str:
    """Write docs/doctor.md again: the text above the mark as it is, the tables anew."""
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
    return text + BEGIN + "\n" + "\n".join(map(table_of, TITLES))


def table_of(group: str) -> str:
    """Write the table of one group, the most severe findings first."""
    lines = [f"### {TITLES[group]}\n", "| finding | severity | found | what to do |"]
    lines.append("|---|---|---|---|")
    kinds = [kind for kind in all_kinds() if kind.group == group]
    for kind in sorted(kinds, key=lambda one: one.severity.rank):
        cells = (f"`{kind.code}`", severity_of(kind), quoted(kind.found), quoted(kind.advice))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def all_kinds() -> tuple[FindingKind, ...]:
    """List the kinds of findings of both doctors."""
    return (*KINDS, *worker_doctor.KINDS)


def severity_of(kind: FindingKind) -> str:
    """Name the severity, and that on a worker's machine if it differs."""
    in_worker = f"; {kind.in_worker} on a worker's machine" if kind.in_worker else ""
    return f"{kind.severity}{in_worker}"


def quoted(sentence: str) -> str:
    """Write values as code, without their formats, and variables as code."""
    plain = re.sub(r"\{(\w+)(?:![a-z])?(?::[^}]*)?\}", r"{\1}", sentence)
    plain = re.sub(r"(\w*=?\{\w+\}(?:@\{\w+\})?|\bLABELYARD_\w+(?:=\S*\w)?)", r"`\1`", plain)
    return plain.replace("|", "\\|")
