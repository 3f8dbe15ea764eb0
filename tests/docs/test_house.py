"""The code keeps the rules that ``python -m tests.docs.house`` counts."""

import ast

import pytest

from tests.docs import house


def parsed(code: str, path: str = "worker/labelyard_worker/example.py") -> list[house.Source]:
    return [house.Source(path, ast.parse(code))]


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.name)
def test_rule_is_kept(rule: house.Rule) -> None:
    """If this fails, ``python -m tests.docs.house --list`` prints every place."""
    code = house.read_code()

    findings = rule.find(code)

    assert len(findings) <= rule.limit(code), "\n".join(map(str, findings))


@pytest.mark.parametrize(
    "line",
    ["What is queued.", "Who finished.", "Read what is queued.", "Whatever comes, it is kept."],
)
def test_a_clause_in_place_of_a_noun_is_found(line: str) -> None:
    assert house.lines_matching(house.CLAUSE, parsed(f'"""{line}"""'))


@pytest.mark.parametrize("line", ["Return the queued jobs.", "Watch the whole queue."])
def test_a_noun_is_not_found_as_a_clause(line: str) -> None:
    assert house.lines_matching(house.CLAUSE, parsed(f'"""{line}"""')) == []


@pytest.mark.parametrize("verb", ["says", "tell", "heard", "asks", "lets go"])
def test_a_persons_verb_for_a_program_is_found(verb: str) -> None:
    code = f'def leave():\n    """The worker {verb} the ledger."""'

    assert house.lines_matching(house.PERSONS_VERB, parsed(code))


def test_two_classes_of_one_name_are_found() -> None:
    files = [*parsed("class Lane: ..."), *parsed("class Outer:\n    class Lane: ...")]

    assert len(house.repeated_classes(files)) == 2


@pytest.mark.parametrize(
    "code", ['queue = "bulk"', 'Queue = Literal["interactive"]', 'run(queue="quarantine")']
)
def test_a_queue_literal_is_found_outside_queues(code: str) -> None:
    assert house.queue_literals(parsed(code))
    assert house.queue_literals(parsed(code, "producer/labelyard/queues.py")) == []


@pytest.mark.parametrize(
    "code",
    [
        'key = f"{namespace}:label_set"',
        'key = f"{self._settings.namespace}:job:{job_id}"',
        'key = prefix + ":open"',
        'key = ledger.calls.key("due")',
        'key = ledger.calls.key(f"worker:{name}")',
    ],
)
def test_a_raw_key_is_found_outside_the_ledger(code: str) -> None:
    assert house.raw_ledger_keys(parsed(code))
    assert house.raw_ledger_keys(parsed(code, "producer/labelyard/ledger/job_keys.py")) == []


def test_a_raw_script_is_found_outside_the_ledger() -> None:
    code = "lead = client.register_script(LEAD)"

    assert house.raw_ledger_scripts(parsed(code))
    assert house.raw_ledger_scripts(parsed(code, "producer/labelyard/ledger/client.py")) == []


@pytest.mark.parametrize("code", ['name = f"{namespace}.bulk"', 'text = f"{job_id}: done"'])
def test_other_strings_are_not_found_as_keys(code: str) -> None:
    assert house.raw_ledger_keys(parsed(code)) == []


def test_a_cycle_of_imports_is_found_once() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}

    assert [finding.where for finding in house.import_cycles(imports)] == ["a"]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("pixels", "vision.scoring"),
        ("vision.scoring", "embedding"),
        ("vision.scoring", "intake.pool"),
        ("intake.pool", "vision.batch_queue"),
        ("classify", "tasks"),
    ],
)
def test_an_import_back_up_is_found_through_other_modules(importer: str, imported: str) -> None:
    package = "labelyard_worker"
    imports = {
        f"{package}.{importer}": {f"{package}.settings"},
        f"{package}.settings": {f"{package}.{imported}"},
        f"{package}.{imported}": set[str](),
    }

    assert [finding.where for finding in house.upward_imports(imports)] == [f"{package}.{importer}"]


def test_an_import_down_the_layers_is_not_found() -> None:
    package = "labelyard_worker"

    assert house.upward_imports({f"{package}.tasks": {f"{package}.classify"}}) == []


def test_a_function_of_51_lines_is_found() -> None:
    body = "    pass\n"

    assert house.long_functions(parsed(f"def short():\n{body * 49}")) == []
    assert house.long_functions(parsed(f"def long():\n{body * 50}"))
