"""Count where the code leaves the rules of CONTRIBUTING.md: ``python -m tests.docs.house``."""

import argparse
import ast
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import grimp

from labelyard.queues import Queue

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("producer/labelyard", "worker/labelyard_worker")
AROUND: Final = ("benchmarks", "docs", "tests")
WORKER: Final = "labelyard_worker"
# From the top down: a module imports modules of lower layers only.
LAYERS: Final = (("tasks",), ("classify",), ("embedding",), ("vision", "intake"), ("pixels",))
MAX_FUNCTION_LINES: Final = 50

# "What is queued", "Read what is queued": a clause where a noun would name the subject.
CLAUSE: Final = re.compile(
    r"^(?:\w+ (?:of )?)?(?:what|who|whoever|whichever|whatever)\b", re.IGNORECASE
)
# Verbs of persons, for a program that returns, logs, raises, polls or releases.
PERSONS_VERB: Final = re.compile(
    r"\b(?:say|says|said|saying|tells?|told|telling|hears?|heard|hearing|asks?|asked|asking"
    r"|lets? go)\b",
    re.IGNORECASE,
)
QUEUES: Final = frozenset(Queue)
# A key of the ledger is "<namespace>:<name>", with an id behind some of the names.
NAMESPACED: Final = re.compile(r"^:\w")
KEY_NAME: Final = re.compile(
    r"^:(?:job|open|due|expiring|open_images|totals|dead|owed|ended|done)\b"
)


class Source(NamedTuple):
    """One file: its path from the root of the repository, and its syntax tree."""

    path: str
    tree: ast.Module


class Finding(NamedTuple):
    """One place that leaves a rule."""

    where: str
    text: str

    def __str__(self) -> str:
        """Write the place as an editor reads it."""
        return f"{self.where}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Code:
    """The parsed files that the rules are counted over.

    Attributes:
        packages: Files that are installed.
        around: Files of benchmarks/, docs/ and tests/.
        imports: The modules that each module of the packages imports when it is loaded.
    """

    packages: list[Source]
    around: list[Source]
    imports: Mapping[str, set[str]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, the function that finds where it is broken, and the limit that a test holds.

    Attributes:
        size: Number of things that are examined, for a limit that is a share of them.
        max_share: Share of *size* that may break the rule; 0 allows none.
    """

    name: str
    find: Callable[[Code], list[Finding]]
    size: Callable[[Code], int] = lambda _: 0
    max_share: float = 0.0

    def limit(self, code: Code) -> int:
        """Return the number of findings that are allowed."""
        return int(self.size(code) * self.max_share)


def sources(folders: Iterable[str]) -> list[Source]:
    """Parse every Python file below *folders*."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [
        Source(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8")))
        for path in paths
    ]


def first_lines(files: Iterable[Source]) -> Iterator[Finding]:
    """Return the first line of every docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path, tree in files:
        for node in ast.walk(tree):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield Finding(f"{path}:{getattr(node, 'lineno', 1)}", text.splitlines()[0])


def lines_matching(pattern: re.Pattern[str], files: Iterable[Source]) -> list[Finding]:
    """Return the first lines of docstrings in which *pattern* is found."""
    return [line for line in first_lines(files) if pattern.search(line.text)]


def repeated_classes(files: Iterable[Source]) -> list[Finding]:
    """Return the classes whose name another class has."""
    places: dict[str, list[str]] = {}
    for path, tree in files:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    return [
        Finding(where, f"class {name} is defined {len(all_places)} times")
        for name, all_places in places.items()
        if len(all_places) > 1
        for where in all_places
    ]


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the line and text of each string constant, and of each part of an f-string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def queue_literals(files: Iterable[Source]) -> list[Finding]:
    """Return the strings that are a queue's name, outside queues.py."""
    return [
        Finding(f"{path}:{line}", repr(text))
        for path, tree in files
        if not path.endswith("labelyard/queues.py")
        for line, text in strings(tree)
        if text in QUEUES
    ]


def raw_ledger_keys(files: Iterable[Source]) -> list[Finding]:
    """Return the expressions that build a ledger key, outside the ledger's package.

    Such an expression is ``f"{namespace}:name"`` in any spelling of the namespace, a call
    ``.key("name")``, or a string with the name of a ledger key behind a colon.
    """
    found = []
    for path, tree in files:
        if "labelyard/ledger/" in path:
            continue
        for node in ast.walk(tree):
            if (isinstance(node, ast.JoinedStr) and is_namespaced(node)) or is_key_call(node):
                found.append(Finding(f"{path}:{getattr(node, 'lineno', 1)}", ast.unparse(node)))
        found += [
            Finding(f"{path}:{line}", repr(text))
            for line, text in strings(tree)
            if KEY_NAME.search(text)
        ]
    return found


def raw_ledger_scripts(files: Iterable[Source]) -> list[Finding]:
    """Return the calls that register or run a Lua script, outside the ledger's package.

    The scripts of broker/ change the broker's keys, which are kombu's.
    """
    return [
        Finding(f"{path}:{node.lineno}", ast.unparse(node))
        for path, tree in files
        if "labelyard/ledger/" not in path and "labelyard_worker/broker/" not in path
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"register_script", "evalsha", "script_load"}
    ]


def is_namespaced(node: ast.JoinedStr) -> bool:
    """Return whether an f-string is the namespace, a colon and a name."""
    parts = list(node.values)
    return any(
        isinstance(first, ast.FormattedValue)
        and re.search(r"\b_?namespace$", ast.unparse(first.value)) is not None
        and isinstance(second, ast.Constant)
        and NAMESPACED.search(str(second.value)) is not None
        for first, second in itertools.pairwise(parts)
    )


def is_key_call(node: ast.AST) -> bool:
    """Return whether an expression is ``<anything>.key("name")``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "key"
        and len(node.args) == 1
        and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
    )


def long_functions(files: Iterable[Source]) -> list[Finding]:
    """Return the functions above MAX_FUNCTION_LINES lines."""
    return [
        Finding(f"{path}:{node.lineno}", f"{node.name} has {lines} lines")
        for path, tree in files
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def import_cycles(imports: Mapping[str, set[str]]) -> list[Finding]:
    """Return the groups of modules that import each other, directly or through others.

    Args:
        imports: The modules that each module imports.
    """
    reach = {module: reachable(module, imports) for module in imports}
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in imports
        if module in reach[module]
    }
    return [
        Finding(min(group), "imports itself through " + ", ".join(sorted(group)))
        for group in groups
    ]


def reachable(start: str, imports: Mapping[str, set[str]]) -> set[str]:
    """Return every module that *start* imports, directly or through others."""
    found: set[str] = set()
    pending = [start]
    while pending:
        new = imports.get(pending.pop(), set()) - found
        found |= new
        pending += new
    return found


def upward_imports(imports: Mapping[str, set[str]], *, package: str = WORKER) -> list[Finding]:
    """Return the imports that lead from a layer of LAYERS to a higher one or its neighbour."""
    names = {f"{package}.{name}": level for level, layer in enumerate(LAYERS) for name in layer}

    def place_of(module: str) -> tuple[str, int] | None:
        """Return the layer's member that *module* belongs to, and its level."""
        return next(
            (
                item
                for item in names.items()
                if module == item[0] or module.startswith(f"{item[0]}.")
            ),
            None,
        )

    found = []
    for module in imports:
        if (own := place_of(module)) is None:
            continue
        for other in reachable(module, imports):
            theirs = place_of(other)
            if theirs is not None and theirs[0] != own[0] and theirs[1] <= own[1]:
                found.append(Finding(module, f"imports {other}, directly or through others"))
    return found


def import_graph() -> dict[str, set[str]]:
    """Read the modules that each module of the two packages imports when it is loaded."""
    graph = grimp.build_graph("labelyard", WORKER, exclude_type_checking_imports=True)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


@cache
def read_code() -> Code:
    """Parse every file once."""
    return Code(packages=sources(PACKAGES), around=sources(AROUND), imports=import_graph())


def number_of_docstrings(files: Iterable[Source]) -> int:
    """Count the docstrings of *files*."""
    return sum(1 for _ in first_lines(files))


RULES: Final = (
    Rule(
        name="docstrings that open with a what/who clause",
        find=lambda code: lines_matching(CLAUSE, code.packages),
        size=lambda code: number_of_docstrings(code.packages),
        max_share=0.01,
    ),
    Rule(
        name="docstrings in which a program says, tells, hears, asks",
        find=lambda code: lines_matching(PERSONS_VERB, code.packages),
        size=lambda code: number_of_docstrings(code.packages),
        max_share=0.01,
    ),
    Rule(
        name="what/who clauses in benchmarks/, docs/, tests/",
        find=lambda code: lines_matching(CLAUSE, code.around),
        size=lambda code: number_of_docstrings(code.around),
        max_share=0.01,
    ),
    Rule(
        name="says, tells, hears, asks in benchmarks/, docs/, tests/",
        find=lambda code: lines_matching(PERSONS_VERB, code.around),
        size=lambda code: number_of_docstrings(code.around),
        max_share=0.01,
    ),
    Rule(
        name="classes of the packages that share a name",
        find=lambda code: repeated_classes(code.packages),
    ),
    Rule(
        name="queue literals outside queues.py",
        find=lambda code: queue_literals(code.packages),
    ),
    Rule(
        name="raw ledger keys outside ledger/",
        find=lambda code: raw_ledger_keys(code.packages),
    ),
    Rule(
        name="raw ledger scripts outside ledger/",
        find=lambda code: raw_ledger_scripts(code.packages),
    ),
    Rule(name="import cycles", find=lambda code: import_cycles(code.imports)),
    Rule(name="imports back up the layers", find=lambda code: upward_imports(code.imports)),
    Rule(
        name=f"functions above {MAX_FUNCTION_LINES} lines",
        find=lambda code: long_functions([*code.packages, *code.around]),
    ),
)


def main() -> None:
    """Print the table; with ``--list`` every finding as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print every finding")
    is_listing = parser.parse_args().list
    code = read_code()
    print(f"{'rule':<58}{'found':>7}{'limit':>7}{'of':>7}")
    for rule in RULES:
        findings = rule.find(code)
        size = rule.size(code) or ""
        print(f"{rule.name:<58}{len(findings):>7}{rule.limit(code):>7}{size:>7}")
        if is_listing and findings:
            print(*(f"    {finding}" for finding in findings), sep="\n")


if __name__ == "__main__":
    main()
