"""A log line is an event with fields, for people or for programs."""

import json
import logging
import sys
from datetime import datetime

import pytest
from pydantic import ValidationError

from labelyard.errors import InvalidMessageError
from labelyard.messages import Job, parse_job
from labelyard_worker.operations import logs


def record(event: str = "batch_done", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("labelyard_worker.x", logging.INFO, __file__, 1, event, (), None)
    made.fields = fields
    return made


def failed_record() -> logging.LogRecord:
    made = record("job_broke", job_id="a")
    try:
        raise MemoryError("no room")
    except MemoryError:
        made.exc_info = sys.exc_info()
    return made


def test_a_text_line_is_an_event_and_its_fields() -> None:
    line = logs.TextFormatter().format(record(batch_size=7, model_s=0.0213456, why="no answer"))

    at, level, rest = line.split(" ", 2)
    assert datetime.fromisoformat(at).utcoffset() is not None
    assert level == "info"
    assert rest == 'batch_done batch_size=7 model_s=0.02135 why="no answer"'


@pytest.mark.parametrize("value", ["two\nlines", "a=b", "", 'with "quotes"', "tab\there"])
def test_no_value_can_pass_for_another_line_or_field(value: str) -> None:
    line = logs.TextFormatter().format(record(why=value, code="x"))

    assert line.endswith(f"why={json.dumps(value)} code=x")


def test_a_json_line_is_one_object() -> None:
    line = logs.JsonFormatter().format(record(batch_size=7, path=logging))

    event = json.loads(line)
    assert (event["event"], event["level"], event["batch_size"]) == ("batch_done", "info", 7)
    assert event["logger"] == "labelyard_worker.x"
    assert isinstance(event["path"], str)


def test_a_traceback_stands_behind_a_text_line_and_inside_a_json_line() -> None:
    text = logs.TextFormatter().format(failed_record())
    line = logs.JsonFormatter().format(failed_record())

    assert "job_broke job_id=a\nTraceback" in text
    assert "MemoryError: no room" in json.loads(line)["traceback"]
    assert "\n" not in line


def test_a_traceback_holds_no_value_of_a_message() -> None:
    """Pydantic quotes what it refuses; the causes of an error are written, too."""
    message = {"job_id": "a", "images": [], "label_set": {"labels": [{"name": "a secret" * 99}]}}
    with pytest.raises(InvalidMessageError) as ours:
        parse_job(message)
    with pytest.raises(ValidationError) as theirs:
        Job.model_validate(message)

    written = [logs.format_traceback(each.value) for each in (ours, theirs)]

    assert all("images: name at least 1 item" in text for text in written)
    assert not any("secret" in text for text in written)
    assert "which led to" in written[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("GET https://a.example/b.jpg?X-Amz-Signature=s&b=c failed"), "failed"),
        (ValueError("first line\nsecond line"), "first line"),
        (ValueError("x" * 10_000), "x" * logs.MAX_TEXT_CHARS),
        (ValueError("what? nothing"), "what? nothing"),
        (KeyError(), ""),
    ],
)
def test_an_error_says_one_line_without_signatures(error: Exception, words: str) -> None:
    said = logs.redact(error)

    assert said.endswith(words)
    assert "Signature" not in said


def test_records_of_others_have_no_fields() -> None:
    foreign = record()
    foreign.fields = "not ours"

    assert logs.TextFormatter().format(foreign).endswith(" info batch_done")


def test_ours_are_heard_from_their_level_on_and_others_from_warnings_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up(level="info", form="json")

    for name in ("labelyard_worker.tasks", "labelyard.publisher", "botocore"):
        logging.getLogger(name).debug("debugged")
        logging.getLogger(name).info("told")
        logging.getLogger(name).warning("warned")

    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    heard = [(event["logger"], event["event"]) for event in events]
    assert heard == [
        ("labelyard_worker.tasks", "told"),
        ("labelyard_worker.tasks", "warned"),
        ("labelyard.publisher", "told"),
        ("labelyard.publisher", "warned"),
        ("botocore", "warned"),
    ]


def test_setting_it_up_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(level="info", form="text")
    logs.set_up(level="info", form="text")

    logging.getLogger("labelyard_worker").info("told")

    assert capsys.readouterr().err.count("told") == 1
