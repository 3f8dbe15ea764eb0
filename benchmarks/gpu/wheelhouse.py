"""Collects the wheels that a GPU machine without a network lacks, in parts that can be carried."""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from benchmarks.folders import REPOSITORY

EXTRA = "gpu-check"
MIB = 1024 * 1024
PART_BYTES = 60 * MIB
# pip takes each tag as it stands: none implies another. Newest first.
GLIBC_MINORS = (39, 38, 36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
LEGACY_TAGS = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")


@dataclass(frozen=True)
class Target:
    """The machine that the wheels are for.

    Attributes:
        python_version: Such as ``3.12``.
        have: What it has, by canonical name; ``None`` if its version does not matter.
    """

    python_version: str
    have: dict[str, Version | None] = field(default_factory=dict)

    def has(self, requirement: Requirement) -> bool:
        """Return whether the machine's packages satisfy *requirement*."""
        name = canonicalize_name(requirement.name)
        if name not in self.have:
            return False
        version = self.have[name]
        return version is None or requirement.specifier.contains(version, prereleases=True)

    def applies(self, requirement: Requirement, extras: Iterable[str]) -> bool:
        """Return whether *requirement* applies to this machine, for a package with *extras*."""
        marker = requirement.marker
        environment = {
            "python_version": self.python_version,
            "python_full_version": f"{self.python_version}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        return marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in (*extras, "")
        )

    @property
    def pip_options(self) -> list[str]:
        """Have pip look for this machine's wheels."""
        tags = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS] + [*LEGACY_TAGS, "any"]
        return [
            *("--python-version", self.python_version, "--implementation", "cp"),
            *(option for tag in tags for option in ("--platform", tag)),
        ]


def main() -> int:
    """Read the command line, collect, split, and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dest", type=Path, default=Path(".wheels"))
    parser.add_argument("--python-version", default="3.12")
    parser.add_argument("--have", default="", help="torch==2.11,numpy,…: what is there already")
    parser.add_argument("--extra", default=EXTRA, help="of pyproject.toml: what is needed")
    options = parser.parse_args()
    target = Target(options.python_version, read_have(options.have))
    with tempfile.TemporaryDirectory(prefix="labelyard-wheels-") as folder:
        wheels = collect(needed(options.extra), target, Path(folder))
        for number, part in enumerate(split(wheels), start=1):
            say_part(move_part(part, options.dest, number))
    return 0


def read_have(text: str) -> dict[str, Version | None]:
    """Read ``name==version`` and ``name``, with commas or blanks between."""
    found: dict[str, Version | None] = {}
    for item in text.replace(",", " ").split():
        name, _, version = item.partition("==")
        found[canonicalize_name(name)] = Version(version) if version else None
    return found


def needed(extra: str) -> list[Requirement]:
    """List the requirements in pyproject.toml of the package and one of its extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: list[Requirement] = []
    todo = [*project["dependencies"], f"{project['name']}[{extra}]"]
    while todo:
        requirement = Requirement(todo.pop())
        if canonicalize_name(requirement.name) != project["name"]:
            found.append(requirement)
            continue
        for name in requirement.extras:
            todo += project["optional-dependencies"][name]
    return found


def pins() -> dict[str, str]:
    """Read the versions that labelyard is tested with."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==") for line in lines if "==" in line and line[0] != "#"]
    return {canonicalize_name(name): version for name, _, version in pinned}


def collect(roots: Sequence[Requirement], target: Target, folder: Path) -> list[Path]:
    """Download *roots* and what they need, as wheels of the pinned versions.

    What the machine has is left out, and so is what only that needs.

    Raises:
        SystemExit: There is no wheel, or two packages want what one version cannot be.
    """
    versions = pins()
    chosen: dict[str, Path] = {}
    extras_seen: dict[str, set[str]] = {}
    todo = [one for one in roots if target.applies(one, ())]
    while todo:
        wanted = [one for one in todo if not target.has(one)]
        new = {canonicalize_name(one.name): one for one in wanted}
        download([one for name, one in new.items() if name not in chosen], versions, target, folder)
        chosen = {name_of(wheel): wheel for wheel in folder.glob("*.whl")}
        todo = []
        for requirement in wanted:
            name = canonicalize_name(requirement.name)
            check(requirement, chosen[name])
            extras = requirement.extras - extras_seen.get(name, set())
            if name in extras_seen and not extras:
                continue
            extras_seen.setdefault(name, set()).update(requirement.extras)
            needs = list(requirements_of(chosen[name]))
            todo += [one for one in needs if target.applies(one, requirement.extras)]
    return list(chosen.values())


def download(
    requirements: Sequence[Requirement], versions: dict[str, str], target: Target, folder: Path
) -> None:
    """Fetch one wheel for each requirement."""
    if not requirements:
        return
    exact = []
    for one in requirements:
        version = versions.get(canonicalize_name(one.name))
        exact.append(f"{one.name}=={version}" if version else f"{one.name}{one.specifier}")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
        *("--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder)),
        *target.pip_options,
        *exact,
    ]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"no wheels for Python {target.python_version}: {', '.join(exact)}")


def check(requirement: Requirement, wheel: Path) -> None:
    """Refuse a wheel that *requirement* does not accept."""
    version = parse_wheel_filename(wheel.name)[1]
    if not requirement.specifier.contains(version, prereleases=True):
        sys.exit(f"{wheel.name} is not {requirement}: change its line in constraints.txt")


def name_of(wheel: Path) -> str:
    """Read a wheel's canonical name."""
    return str(parse_wheel_filename(wheel.name)[0])


def requirements_of(wheel: Path) -> Iterator[Requirement]:
    """Yield the requirements of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    for line in headers.get_all("Requires-Dist") or ():
        yield Requirement(line)


def split(wheels: Iterable[Path], *, part_bytes: int = PART_BYTES) -> list[list[Path]]:
    """Put wheels into as few parts as filling them in order of size gives, the small ones first.

    Raises:
        SystemExit: A wheel is larger than a part.
    """
    parts: list[list[Path]] = []
    room = 0
    for wheel in sorted(wheels, key=lambda one: (one.stat().st_size, one.name)):
        size = wheel.stat().st_size
        if size > part_bytes:
            sys.exit(f"{wheel.name} is larger than a part: {size / MIB:.1f} MiB")
        if size > room:
            parts.append([])
            room = part_bytes
        parts[-1].append(wheel)
        room -= size
    return parts


def move_part(part: Sequence[Path], dest: Path, number: int) -> Path:
    """Put a part's wheels into its folder, in place of what was there."""
    folder = dest / str(number)
    if number == 1:
        for old in dest.glob("[0-9]*"):
            shutil.rmtree(old)
    folder.mkdir(parents=True)
    for wheel in part:
        shutil.move(wheel, folder / wheel.name)
    return folder


def say_part(folder: Path) -> None:
    """Print the wheels of a part and their sizes."""
    sizes = {wheel.name: wheel.stat().st_size for wheel in folder.iterdir()}
    print(f"{folder}: {sum(sizes.values()) / MIB:.1f} MiB, {len(sizes)} wheels")
    for name in sorted(sizes):
        print(f"  {sizes[name] / MIB:6.2f}  {name}")


if __name__ == "__main__":
    sys.exit(main())
