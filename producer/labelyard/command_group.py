"""Frame of the commands ``labelyard`` and ``labelyard-worker``: help, version, errors, exit codes.

It lies outside ``labelyard.cli``, whose commands a worker's probe need not import.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import labelyard
from labelyard.errors import LabelyardError, RequestError, ServiceConfigError

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
EXIT_NOT_NOW: Final = 3
EXIT_INTERRUPTED: Final = 130  # 128 and SIGINT's number, as shells count
HELP_OPTIONS: Final = ("-h", "--help")

# Errors of the command line's own library. Some versions bring click as a library of its own,
# others have it inside: these two names are the same class in all of them.
_USAGE_ERROR: Final[type[Exception]] = typer.BadParameter.__mro__[1]
_CLICK_ERROR: Final[type[Exception]] = _USAGE_ERROR.__mro__[1]
# What the library's validation writes before and after the useful part.
_SHOULD_BE: Final = "Input should be "
_NOISE: Final = re.compile(r"^Value error, |, unable to .*$|^Invalid value: ")
_NO_COMMAND: Final = re.compile(r"No such command '(.*?)'")


class CommandError(Exception):
    """A command cannot do its work, for a reason that no error of labelyard names.

    Attributes:
        code: Stable name, as of a LabelyardError.
        exit_code: Exit code for a shell.
    """

    def __init__(self, code: str, text: str, *, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.exit_code = exit_code


def exit_code(error: LabelyardError) -> int:
    """Return the exit code for a shell: refused, not now, or failed."""
    if isinstance(error, RequestError | ServiceConfigError):
        return EXIT_REFUSED
    return EXIT_NOT_NOW if error.is_retryable else EXIT_FAILED


def usage_sentence(error: Any, *, program: str) -> str:
    """Write a sentence for a command line that cannot be understood: what is wrong, where to look.

    Args:
        error: A usage error of typer's.
        program: Name of the command, for an error that does not know where it arose.
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else program
    complaint = _complaint(error, context)
    join = " See" if complaint.endswith("?") else "; see"
    return f"usage_error: {complaint}{join} {command} -h"


def _complaint(error: Any, context: Any) -> str:
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    text = _NOISE.sub("", str(error.message)).strip().rstrip(".")
    if kind == "NoSuchOption":
        known = list(_options_of(context)) if context is not None else []
        return f"there is no option {_with_suggestion(error.option_name, known)}"
    if unknown := _NO_COMMAND.match(text):
        return f"there is no command {_with_suggestion(unknown[1], context.command.commands)}"
    if kind == "BadOptionUsage" and "requires" in text:
        return f"{error.option_name} needs a value"
    if parameter is None:
        return text[:1].lower() + text[1:]
    name = _name_of(parameter)
    if kind == "MissingParameter":
        meaning = f" ({parameter.help})" if getattr(parameter, "help", None) else ""
        return f"{name} is missing{meaning}"
    if text.startswith(_SHOULD_BE):
        return f"{name} must be {_plain(text.removeprefix(_SHOULD_BE))}"
    return f"{name}: {text}"


def _plain(bound: str) -> str:
    return bound.replace("greater than or equal to", "at least").replace(
        "less than or equal to", "at most"
    )


def _name_of(parameter: Any) -> str:
    """Return an option's longest form, or an argument's name in the help."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())


def _with_suggestion(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"{wrong}: did you mean {close[0]}?" if close else wrong


def _options_of(context: Any) -> Iterator[str]:
    yield from HELP_OPTIONS
    for parameter in context.command.params:
        if parameter.param_type_name == "option":
            yield from parameter.opts


class ErrorsAsLines(TyperGroup):
    """Command group that prints an error as a line, and exits with a code for shells."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **options: Any,
    ) -> Any:
        """Run the command, and end the process with its exit code."""
        options["windows_expand_args"] = windows_expand_args
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **options)
        try:
            code = super().main(args, prog_name, complete_var, False, **options)
        except _CLICK_ERROR as error:
            sys.exit(self._print_usage_error(error))
        except LabelyardError as error:
            _print_lines(self.explain(error), error)
            sys.exit(exit_code(error))
        except CommandError as error:
            _print_lines(str(error), error)
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def explain(self, error: LabelyardError) -> str:
        """Write an error as one line."""
        return str(error)

    def _print_usage_error(self, error: Any) -> int:
        if type(error).__name__ == "NoArgsIsHelpError":  # its text is the help
            typer.echo(error.format_message(), err=True)
        elif isinstance(error, _USAGE_ERROR):
            typer.echo(usage_sentence(error, program=self.name or ""), err=True)
        else:
            typer.echo(f"usage_error: {error.format_message()}", err=True)
        return EXIT_REFUSED


def _print_lines(line: str, error: Exception) -> None:
    """Print an error's line, and below it the notes that the command added."""
    for one in (line, *getattr(error, "__notes__", ())):
        typer.echo(one, err=True)


def new_app(name: str, *, summary: str, group: type[ErrorsAsLines] = ErrorsAsLines) -> typer.Typer:
    """Make the application of a command, with ``-h`` and ``--version``.

    Args:
        name: Name of the command.
        summary: Text above the list of its subcommands.
        group: Class of the command.
    """
    app = typer.Typer(
        name=name,
        help=summary,
        cls=group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": list(HELP_OPTIONS)},
    )
    app.callback()(take_version)
    return app


def print_version(wanted: bool) -> None:
    """Print the version and exit, if the option is given."""
    if wanted:
        typer.echo(f"labelyard {labelyard.__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=print_version, is_eager=True, help="Print the version"),
]


def take_version(*, version: Version = False) -> None:
    """Take the options that stand before the command."""
    _ = version  # its callback has printed it
