"""Both commands: the same help, version, error lines and exit codes; no boxes, no tracebacks."""

from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import labelyard
import labelyard_worker
from labelyard.cli import app as producer_app
from labelyard.command_group import CommandError, new_app
from labelyard.errors import InvalidMessageError, JobNotFoundError, LedgerUnavailableError
from labelyard.version import UNKNOWN, read_version
from labelyard_worker.cli import app as worker_app
from tests.support.shell import shell

APPS = {"labelyard": producer_app, "labelyard-worker": worker_app}
both = pytest.mark.parametrize("app", APPS.values(), ids=APPS)


@both
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_plain_text_and_says_what_exit_codes_mean(app: typer.Typer, option: str) -> None:
    ended = CliRunner().invoke(app, [option])

    assert ended.exit_code == 0
    assert "Exit codes: 0, " in ended.stdout
    assert not set("╭│╰") & set(ended.stdout)


@both
def test_every_command_has_both_help_options(app: typer.Typer) -> None:
    commands = [info.name or info.callback.__name__ for info in app.registered_commands]  # type: ignore[union-attr]

    for name in commands:
        ended = CliRunner().invoke(app, [name.replace("_", "-"), "-h"])
        assert (ended.exit_code, "-h, --help" in ended.stdout) == (0, True), name


@both
def test_both_commands_have_the_version_of_the_packages(app: typer.Typer) -> None:
    ended = CliRunner().invoke(app, ["--version"])

    assert (ended.exit_code, ended.stdout) == (0, f"labelyard {version('labelyard')}\n")
    assert labelyard.__version__ == labelyard_worker.__version__ == version("labelyard")


@pytest.mark.parametrize("module", ["labelyard", "labelyard_worker"])
def test_a_package_run_as_a_module_is_its_command(module: str, tmp_path: Path) -> None:
    ended = shell(tmp_path, f"python -m {module} --version")

    assert (ended.returncode, ended.stdout) == (0, f"labelyard {version('labelyard')}\n")


def test_a_checkout_that_is_not_installed_has_the_version_of_its_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelyard.version.version", not_installed)
    file = tmp_path / "pyproject.toml"
    read = []
    for text in ('[project]\nname = "labelyard"\nversion = "7.1"', '[project]\nname = "x"', "?"):
        file.write_text(text)
        read.append(read_version(file))

    assert read == ["7.1", UNKNOWN, UNKNOWN]
    assert read_version(tmp_path / "missing.toml") == UNKNOWN
    assert read_version() == version("labelyard")


def not_installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("program", "arguments", "sentence"),
    [
        ("labelyard", "clasify x", "there is no command clasify: did you mean classify? See"),
        ("labelyard", "zzz", "there is no command zzz; see labelyard -h"),
        ("labelyard", "dead lst", "there is no command lst: did you mean list? See labelyard dead"),
        (
            "labelyard",
            "classify a --lables x",
            "there is no option --lables: did you mean --labels",
        ),
        ("labelyard", "classify a --zzz", "there is no option --zzz; see labelyard classify -h"),
        ("labelyard", "classify", "PATH_OR_URI... is missing (Files, s3://… or https://…); see"),
        ("labelyard", "wait", "JOB_ID... is missing; see labelyard wait -h"),
        ("labelyard", "classify a --labels", "--labels needs a value"),
        ("labelyard", "classify a --top-k x", "--top-k must be a valid integer; see"),
        ("labelyard", "classify a --top-k 0", "--top-k must be at least 1; see"),
        ("labelyard", "wait a --timeout-s -1", "--timeout-s must be at least 0; see"),
        ("labelyard", "classify a --queue x", "--queue: 'x' is not one of 'interactive', 'bulk'"),
        ("labelyard-worker", "strat", "there is no command strat: did you mean start? See"),
        (
            "labelyard-worker",
            "up --detch",
            "there is no option --detch: did you mean --detach? See",
        ),
        ("labelyard-worker", "up --data /etc/passwd", "--data: dir '/etc/passwd' is a file; see"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_that_says_what_to_do(
    program: str, arguments: str, sentence: str
) -> None:
    ended = CliRunner().invoke(APPS[program], arguments.split())

    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"usage_error: {sentence}")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidMessageError("odd"), 2, "invalid_message: odd\n"),
        (JobNotFoundError("x"), 1, "job_not_found: x\n"),
        (LedgerUnavailableError("away"), 3, "ledger_unavailable: away\n"),
        (CommandError("no_stack", "start one"), 1, "no_stack: start one\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(70), 70, ""),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error: Exception, code: int, line: str) -> None:
    app = new_app("example", summary="An example.")

    @app.command()
    def fail() -> None:
        raise error

    ended = CliRunner().invoke(app, ["fail"])

    assert (ended.exit_code, ended.stderr, ended.stdout) == (code, line, "")


@both
def test_a_command_without_a_name_is_the_help(app: typer.Typer) -> None:
    ended = CliRunner().invoke(app, [])

    assert ended.exit_code == 2
    assert "Usage: " in ended.stderr
    assert "usage_error" not in ended.stderr
