"""The rule file: which rule takes an event, and faults with their line and field."""

from pathlib import Path

import pytest

from labelyard.errors import ServiceConfigError
from labelyard.ingest.events import EventOrder, ObjectEvent
from labelyard.ingest.job_maker import JobMaker
from labelyard.ingest.rule_file import parse_rules, read_rule_file
from labelyard.ingest.rules import IngestRule, IngestRules
from labelyard.settings import ClientSettings

RULE = """\
[[rules]]
name = "uploads"
bucket = "photos"
labels = ["a cat", "a dog"]
"""
ORDER = EventOrder.of_sequencer("1")


def rules(text: str) -> IngestRules:
    return parse_rules(text, name="rules.toml")


def event(
    key: str = "a.jpg", *, bucket: str = "photos", kind: str = "ObjectCreated:Put", **fields: str
) -> ObjectEvent:
    return ObjectEvent(
        source="aws", kind=kind, bucket=bucket, key=key, order=ORDER, etag="e", **fields
    )


def names(found: list[IngestRule]) -> list[str]:
    return [rule.name for rule in found]


@pytest.mark.parametrize(
    ("more", "given", "field"),
    [
        ("", event(), None),
        ("", event(bucket="other"), "bucket"),
        ('prefix = "in/"', event("in/a"), None),
        ('prefix = "in/"', event("out/a"), "prefix"),
        ('prefix = ["in/", "out/"]', event("out/a"), None),
        ('suffix = [".jpg", ".png"]', event("a.png"), None),
        ('suffix = ".jpg"', event("a.JPG"), "suffix"),
        ("", event(kind="ObjectCreated:CompleteMultipartUpload"), None),
        ("", event(kind="ObjectTagging:Put"), "events"),
        ('events = "s3:ObjectCreated:Copy"', event(), "events"),
        ('events = ["ObjectRestore:Completed"]', event(kind="ObjectRestore:Completed"), None),
    ],
)
def test_a_rule_takes_the_events_that_all_its_fields_fit(
    more: str, given: ObjectEvent, field: str | None
) -> None:
    [rule] = rules(RULE + more).rules

    assert rule.mismatch(given) == field


def test_a_bucket_may_be_a_pattern() -> None:
    [rule] = rules(RULE.replace('"photos"', '"shop-*"')).rules

    assert rule.mismatch(event(bucket="shop-eu")) is None
    assert rule.mismatch(event(bucket="shop")) == "bucket"


def test_the_first_rule_takes_an_event_or_all_rules_do() -> None:
    two = RULE + RULE.replace("uploads", "second")

    assert names(rules(two).matching(event())) == ["uploads"]
    assert names(rules('match = "all"\n' + two).matching(event())) == ["uploads", "second"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1, rules: is missing"),
        ("rules = [", "is not TOML"),
        ("rules = []", "line 1, rules: name at least 1 item"),
        (RULE + "colour = 3", "line 5, rule uploads.colour: is not a field of a rule file"),
        (RULE + 'queue = "control"', "line 5, rule uploads.queue: write 'interactive' or 'bulk'"),
        (RULE + "top_k = 0", "line 5, rule uploads.top_k: write a number of at least 1"),
        (RULE + "batch = 65", "line 5, rule uploads.batch: write a number of at most 64"),
        (RULE + 'tenant = "a b"', "line 5, rule uploads.tenant: write up to 64"),
        (
            RULE + 'events = "ObjectRemoved:*"',
            "line 5, rule uploads.events: ObjectRemoved:* leaves",
        ),
        (RULE + 'label_set = "pets"', "line 1, rule uploads: write either labels or label_set"),
        (
            RULE.replace('["a cat", "a dog"]', "[1]"),
            "line 4, rule uploads.labels.0: write an object",
        ),
        (
            RULE.replace('"a dog"', '"a cat"'),
            "line 4, rule uploads.labels: two labels have the same",
        ),
        (RULE.replace('name = "uploads"\n', ""), "line 1, rule 1.name: is missing"),
        (RULE + "\n" + RULE, "line 1: two rules have the name uploads"),
        (
            RULE + '\n[rules.deliver]\nstream = "s"\nobjekt = "x"\n',
            "line 8, rule uploads.deliver.objekt: is not a field",
        ),
        (
            f'{RULE}\n{RULE.replace("uploads", "b")}deliver = {{ stream = "a b" }}',
            "line 10, rule b.deliver.stream: write 1 to 128",
        ),
        ("[limits]\nhold_s = 99\n" + RULE, "line 2, limits.hold_s: write a number of at most 20"),
        ('sns_topics = ["uploads"]\n' + RULE, "line 1, sns_topics: write the ARN of a topic"),
        (
            RULE + 'deliver = { webhook = "ftp://a" }',
            "line 5, rule uploads.deliver.webhook: write an",
        ),
        (RULE + 'deliver = { object_uri = "s3://r/x" }', "would overwrite one another: use {key}"),
        (
            RULE + 'deliver = { object_uri = "s3://r/{kay}" }',
            "line 5, rule uploads.deliver.object_uri: {kay} is not a",
        ),
        (RULE + 'deliver = { object_uri = "s3://r/{key" }', "a brace is left open"),
        (
            RULE + 'batch = 8\ndeliver = { object_uri = "s3://r/{key}" }',
            "a job of several images has no key: use {job_id}",
        ),
        (
            RULE + 'every_version = true\ndeliver = { object_uri = "s3://r/{key}" }',
            "would overwrite one another: use {version_id}",
        ),
        (RULE + 'deliver = { object_uri = "s3://photos/{key}.json" }', "take its own results"),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(text: str, fault: str) -> None:
    with pytest.raises(ServiceConfigError) as caught:
        rules(text)

    assert fault in str(caught.value)
    assert "rules.toml" in str(caught.value)


def test_every_fault_of_a_file_is_named() -> None:
    text = RULE + "top_k = 0\nbatch = 0\n\n[[rules]]\nname = 3\n"

    with pytest.raises(ServiceConfigError) as caught:
        rules(text)

    assert [f"line {number}" in str(caught.value) for number in (5, 6, 8, 9)] == [True] * 4


@pytest.mark.parametrize("raw", [b"\xff", b"a" * (4 * 1024 * 1024 + 1)])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "rules.toml"

    with pytest.raises(ServiceConfigError, match=r"rules\.toml: No such file"):
        read_rule_file(path)
    path.write_bytes(raw)
    with pytest.raises(ServiceConfigError, match=r"rules\.toml: is "):
        read_rule_file(path)


def job_of(text: str, *events: ObjectEvent) -> dict[str, object]:
    [rule] = rules(text).rules
    labels = rule.labels or f"{rule.label_set}"
    job = JobMaker(rule, labels=labels, settings=ClientSettings(tenant="shop")).make(events)
    return job.model_dump(mode="json", exclude_defaults=True)


def test_a_rule_gives_a_job_its_labels_tenant_tags_and_destinations() -> None:
    more = (
        'tenant = "team"\ntop_k = 2\ntags = { team = "search" }\nsuffix = ".jpg"\n'
        'deliver = { object_uri = "s3://results/{rule}/{key}.json", stream = "done" }\n'
    )

    job = job_of(RULE + more, event("in/a b.jpg"))

    assert job["tenant"] == "team"
    assert job["top_k"] == 2
    assert job["trace"] == {"team": "search"}
    assert job["label_set"] == {"labels": [{"name": "a cat"}, {"name": "a dog"}]}
    assert job["deliver"] == {
        "object_uri": "s3://results/uploads/in/a b.jpg.json",
        "stream": "done",
    }
    assert job["images"] == [{"id": "s3://photos/in/a b.jpg", "uri": "s3://photos/in/a b.jpg"}]


def test_a_job_of_several_images_has_distinct_ids_and_the_setting_s_tenant() -> None:
    text = RULE + "batch = 8\nevery_version = true\n"

    job = job_of(text, event(version_id="v1"), event(version_id="v2"))

    assert job["tenant"] == "shop"
    assert job["images"] == [
        {"id": "s3://photos/a.jpg", "uri": "s3://photos/a.jpg", "version_id": "v1"},
        {"id": "s3://photos/a.jpg#2", "uri": "s3://photos/a.jpg", "version_id": "v2"},
    ]


@pytest.mark.parametrize(
    ("more", "fields", "pinned"),
    [
        ("", {"version_id": "v1"}, {}),
        ("pin = true", {}, {"etag": "e"}),
        ("pin = true", {"version_id": "v1"}, {"version_id": "v1"}),
        ("every_version = true", {"version_id": "v1"}, {"version_id": "v1"}),
        ("every_version = true\npin = false", {"version_id": "v1"}, {}),
    ],
)
def test_a_job_reads_the_event_s_version_only_if_the_rule_pins_it(
    more: str, fields: dict[str, str], pinned: dict[str, str]
) -> None:
    [image] = job_of(RULE + more, event(**fields))["images"]  # type: ignore[misc, attr-defined]

    assert {name: value for name, value in image.items() if name not in {"id", "uri"}} == pinned


def test_the_job_s_id_may_be_part_of_the_result_s_address() -> None:
    text = RULE + 'batch = 2\ndeliver = { object_uri = "s3://results/{rule}/{job_id}.json" }\n'

    job = job_of(text, event())

    assert job["deliver"] == {"object_uri": f"s3://results/uploads/{job['job_id']}.json"}
