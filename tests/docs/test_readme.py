"""Every code block of the README works, in the order in which it is read."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

from labelyard.local_stack import StackState
from labelyard_worker.local.stack import take_down
from tests.support.pictures import photo
from tests.support.processes import processes_on
from tests.support.shell import fresh_environment, shell
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
GONE_WITHIN_S = 30.0
READY_WITHIN_S = 90.0
START = "labelyard-worker start"
DOWN = "labelyard-worker down"


class Block(NamedTuple):
    """A code block of the README."""

    language: str
    text: str

    @property
    def kind(self) -> str:
        """Return the kind of test that runs the block."""
        lines = self.text.splitlines()
        match self.language:
            case "":
                return "drawing"
            case "python":
                return "producer"
            case "bash" if all(line.startswith("make ") for line in lines):
                return "make"
            case "bash" if lines == [START]:
                return "start"
            case "bash" if lines[-1] == DOWN:
                return "stack"
            case _:
                return f"a block that no test runs: {self}"


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return [Block(*one) for one in found]


def only(kind: str) -> str:
    (text,) = [block.text for block in blocks() if block.kind == kind]
    return text


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Make a checkout with its virtual environment, and end what is left of a stack in it."""
    (tmp_path / ".venv").symlink_to(os.environ.get("VIRTUAL_ENV", ROOT / ".venv"))
    yield tmp_path
    take_down(tmp_path / "labelyard")


def test_every_block_is_run_or_accounted_for() -> None:
    kinds = [block.kind for block in blocks()]

    assert sorted(kinds) == ["drawing", "make", "make", "producer", "stack", "start"]


def test_the_make_targets_are_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [line for block in blocks() if block.kind == "make" for line in block.text.splitlines()]

    assert {line.removeprefix("make ") for line in named} <= set(targets)


def test_the_first_five_minutes_go_as_told(home: Path) -> None:
    """One test for the whole path, because each start of a stack costs seconds."""
    (home / "photo.jpg").write_bytes(photo("cat"))
    until_down = only("stack").removesuffix(DOWN)

    own_picture = shell(home, until_down)

    assert own_picture.returncode == 0, own_picture.stderr
    assert re.search(r"a cat +(0\.9|1\.0)", own_picture.stdout)

    state = StackState.read(home / "labelyard")
    assert state is not None
    store_photos(state)
    (home / "producer.py").write_text(only("producer"))
    produced = shell(home, "python producer.py", variables=state.variables)
    lines = produced.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["s3://photos/cat.jpg", "s3://photos/coffee.jpg"]
    assert "'a cat'" in lines[0]
    assert "'a cup of coffee'" in lines[1]

    assert exit_code_of_a_worker(home, state) == 0
    down = shell(home, DOWN)
    assert down.returncode == 0, down.stderr
    wait_until(lambda: processes_on(home / "labelyard") == [], within_s=GONE_WITHIN_S)


def store_photos(state: StackState) -> None:
    """Upload the producer's pictures to the addresses in its code."""
    variables = state.variables
    with closing(
        boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            region_name=variables["AWS_DEFAULT_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )
    ) as s3:
        s3.create_bucket(Bucket="photos")
        for name in ("cat", "coffee"):
            s3.put_object(Bucket="photos", Key=f"{name}.jpg", Body=photo(name))


def exit_code_of_a_worker(home: Path, state: StackState) -> int:
    """Start a worker as the README does, and end it once it takes jobs."""
    log = home / "worker.log"
    variables = {**state.variables, "LABELYARD_HEALTH_PORT": "0"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            only("start").split(),
            cwd=home,
            env=fresh_environment(home, variables),
            stdout=output,
            stderr=output,
        ) as worker,
    ):
        wait_until(lambda: "worker_ready" in log.read_text(), within_s=READY_WITHIN_S)
        worker.send_signal(signal.SIGTERM)
    return worker.returncode
