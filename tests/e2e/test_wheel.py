"""The wheel, installed as a user installs it: without constraints, without what tests need."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import labelyard
from tests.support.pictures import photo
from tests.support.service import PICTURES, Service
from tests.support.shell import fresh_environment

ROOT = Path(__file__).parents[2]
INSTALL_WITHIN_S = 150
# What a producer installs takes 20 MB; pip and setuptools, which a new environment has
# already, are not counted.
MAX_INSTALLED_BYTES = 48_000_000
NO_INDEX = ("No matching distribution found", "Could not find a version", "ConnectionError")

SUBMIT_AND_WAIT = """
import sys
from labelyard import Client

with Client() as client:
    job = client.submit([sys.argv[1]], labels=["a cat", "a dog"])
    result = client.wait([job], timeout_s=60)[0].outcome()
    print(job.is_published, result.status, result.images[0].labels[0].name)
heavy = {"celery", "kombu", "boto3", "typer", "rich", "torch", "PIL", "numpy"}
print(sorted(heavy & set(sys.modules)))
"""
WALK = """
import json
import typer
from typer.testing import CliRunner
from labelyard.cli import app

def walk(command, path):
    inner = getattr(command, "commands", {})
    if not inner:
        yield path
    for name, one in inner.items():
        yield from walk(one, [*path, name])

commands = list(walk(typer.main.get_command(app), []))
runner = CliRunner()
answers = [(one, runner.invoke(app, [*one, "--help"]).exit_code) for one in commands]
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class BareEnvironment:
    """A virtual environment that holds the wheel and what pip installed for it."""

    folder: Path
    wheel: Path
    variables: Mapping[str, str]

    def run(self, *command: object) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment, outside the checkout."""
        program, *args = command
        return self._run([str(self.folder / "bin" / str(program)), *map(str, args)])

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        bin_folder = self.folder / "bin"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={
                **fresh_environment(self.folder, self.variables),
                "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=INSTALL_WITHIN_S,
            check=False,
        )

    def install(self, *arguments: object) -> None:
        """Install with pip, as a user does; skip the test if there is no package index."""
        # Not a pip of the environment's own: unpacking one costs seconds of CPU.
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin/python")]
        installed = self._run([*pip, "install", "-q", *map(str, arguments)])
        if installed.returncode and any(sign in installed.stderr for sign in NO_INDEX):
            if os.environ.get("CI"):
                pytest.fail(installed.stderr)
            pytest.skip("no package index can be reached from here: pip finds no dependency")
        assert installed.returncode == 0, installed.stderr

    def installed_bytes(self) -> int:
        """Count the bytes of all packages but pip and setuptools."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        not_ours = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        return sum(
            file.stat().st_size
            for package in packages.iterdir()
            if not package.name.startswith(not_ours)
            for file in ([package] if package.is_file() else package.rglob("*"))
            if file.is_file()
        )


def build(source: Path, target: str, *, into: Path) -> Path:
    """Build the sdist or the wheel of a source tree with what pyproject.toml names."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=INSTALL_WITHIN_S)
    (built,) = into.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel out of the sdist, which a user may have instead of a checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", into=folder)) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return build(unpacked, "wheel", into=folder / "dist")


@pytest.fixture(scope="module")
def bare(
    service: Service, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> BareEnvironment:
    """Install the wheel alone."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        check=True,
        timeout=INSTALL_WITHIN_S,
    )
    variables = {
        **service.variables,
        "AWS_ACCESS_KEY_ID": service.seaweed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": service.seaweed.secret_access_key,
        "LABELYARD_UPLOAD_BUCKET": PICTURES,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONSTRAINT": "",
    }
    made = BareEnvironment(folder, wheel, variables)
    made.install(wheel)
    return made


def contents(wheel: Path) -> dict[str, int]:
    """Read the checksum of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist()}


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(wheel: Path, tmp_path: Path) -> None:
    assert contents(wheel) == contents(build(ROOT, "wheel", into=tmp_path))


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    folders = [ROOT / "producer", ROOT / "worker"]
    files = {
        str(path.relative_to(folder))
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {"labelyard/py.typed", "labelyard_worker/vision/lite/lexicon.toml"} <= files
    assert any(name.endswith(".lua") for name in files)
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == files


@pytest.mark.usefixtures("worker")
@pytest.mark.timeout(300)
def test_the_wheel_alone_submits_and_waits_and_the_extra_adds_every_command(
    bare: BareEnvironment, service: Service
) -> None:
    """One test for all claims, because installing costs seconds."""
    uri = service.pictures.put("wheel-cat.png", photo("cat"))

    submitted = bare.run("python", "-c", SUBMIT_AND_WAIT, uri)
    without_extra = bare.run("labelyard", "--help")
    without_worker = bare.run("labelyard-worker", "--help")
    size = bare.installed_bytes()

    assert submitted.stdout.splitlines() == ["True succeeded a cat", "[]"], submitted.stderr
    assert without_extra.returncode == 2
    assert "pip install 'labelyard[cli]'" in without_extra.stderr
    assert without_extra.stderr.count("\n") == 1
    assert without_worker.returncode == 2
    assert "pip install 'labelyard[worker]'" in without_worker.stderr
    assert without_worker.stderr.count("\n") == 1
    assert size <= MAX_INSTALLED_BYTES

    bare.install("--no-compile", f"{bare.wheel}[cli]")
    assert "why" in done(bare, "-h")
    assert done(bare, "--version") == f"labelyard {labelyard.__version__}\n"
    assert bare.run("python", "-m", "labelyard", "--version").stdout == done(bare, "--version")
    every_command_answers(bare)
    commands_do_their_work(bare, uri)


def every_command_answers(bare: BareEnvironment) -> None:
    walked = bare.run("python", "-c", WALK)
    answers = {tuple(command): code for command, code in json.loads(walked.stdout)}
    assert {("classify",), ("why",), ("dead", "list"), ("set-aside", "list")} <= set(answers)
    assert set(answers.values()) == {0}


def commands_do_their_work(bare: BareEnvironment, uri: str) -> None:
    (bare.folder / "cat.png").write_bytes(photo("cat"))
    (bare.folder / "animals.txt").write_text("a cat\na dog\n")
    labels = ("--labels", "a cat,a dog")
    job_id = done(bare, "submit", uri, *labels).strip()
    assert "a cat" in done(bare, "classify", "cat.png", *labels)
    assert "a cat" in done(bare, "wait", job_id)
    assert "succeeded,a cat," in done(bare, "classify", "cat.png", *labels, "--csv", "-q")
    assert job_id in done(bare, "result", job_id, "--json")
    assert "succeeded" in done(bare, "status", job_id)
    assert "interactive" in done(bare, "status", "--json")
    assert "finished" in done(bare, "why", job_id)
    assert "a cat" in done(bare, "rescore", uri, *labels)
    assert "labels" in done(bare, "schema", "result")
    assert "succeeded" in done(bare, "cancel", job_id, code=1)
    reference = done(bare, "label-sets", "register", "wheel", "animals.txt").strip()
    assert reference in done(bare, "label-sets", "list", "--json")
    assert "a dog" in done(bare, "label-sets", "show", reference)
    done(bare, "dead", "list")
    for command in ("show", "replay", "purge"):
        done(bare, "dead", command, "nothing", code=1)


def done(bare: BareEnvironment, *command: str, code: int = 0) -> str:
    """Run a command of labelyard and return what it printed."""
    ended = bare.run("labelyard", *command)
    assert ended.returncode == code, (command, ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stdout
