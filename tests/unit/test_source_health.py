"""Return whether a source or an object is at fault is decided by a probe sent after the failure."""

from labelyard.messages import ImageRef
from labelyard_worker.intake.queue import IntakeRequest
from labelyard_worker.intake.source_health import UNWANTED_S, SourceHealth

SOURCE = "s3://pets"


def request() -> IntakeRequest:
    return IntakeRequest(ImageRef(id="1", uri=f"{SOURCE}/cat"))


def test_a_failure_is_kept_until_a_probe_tells() -> None:
    health, failed = SourceHealth(), request()

    health.note_failure(failed, 10.0)

    assert health.due(10.0) == [(SOURCE, failed.image.uri)]
    assert health.due(10.0) == []
    assert health.note_probe(SOURCE, is_down=False, now=10.1) == [failed]
    assert not health.is_away(SOURCE, 10.1)


def test_a_probe_that_was_sent_before_a_failure_does_not_clear_the_source() -> None:
    """Else an outage's first jobs would use up their attempts."""
    health, early, late = SourceHealth(), request(), request()
    health.note_failure(early, 10.0)
    health.due(10.0)
    health.note_failure(late, 10.05)

    assert health.note_probe(SOURCE, is_down=False, now=10.1) == [early]
    assert health.due(10.5) == [(SOURCE, late.image.uri)]
    assert health.note_probe(SOURCE, is_down=True, now=10.6) == [late]
    assert health.is_away(SOURCE, 10.6)


def test_a_sound_answer_brings_a_source_back_and_blames_nobody() -> None:
    health, failed = SourceHealth(), request()
    health.note_failure(failed, 10.0)
    health.due(10.0)
    health.note_probe(SOURCE, is_down=True, now=10.1)
    health.note_failure(failed, 10.2)

    health.note_answer(SOURCE)

    assert not health.is_away(SOURCE, 10.3)
    assert health.due(20.0) == [(SOURCE, failed.image.uri)]


def test_a_withdrawn_suspect_is_not_answered() -> None:
    health, failed = SourceHealth(), request()
    health.note_failure(failed, 10.0)
    health.due(10.0)

    health.forget(failed)

    assert health.note_probe(SOURCE, is_down=True, now=10.1) == []


def test_a_failing_source_that_nobody_wants_is_not_probed_for_ever() -> None:
    health = SourceHealth()
    health.note_failure(request(), 10.0)
    health.due(10.0)
    health.note_probe(SOURCE, is_down=True, now=10.1)

    assert health.due(11.0)
    health.note_probe(SOURCE, is_down=True, now=11.1)

    assert health.due(11.1 + UNWANTED_S) == []
    assert health.away == []
