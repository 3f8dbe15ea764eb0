"""One enum holds the queues: its rules, and the type of the clients, agree with it."""

from typing import get_args

import pytest

from labelyard.arguments import submit_queue
from labelyard.errors import InvalidMessageError
from labelyard.queues import RULES, SUBMIT_QUEUES, Queue, SubmitQueue


def test_every_queue_has_rules_in_the_order_of_urgency() -> None:
    assert tuple(RULES) == tuple(Queue)


def test_the_type_of_the_clients_names_every_queue_that_they_may_submit_to() -> None:
    enum, names = get_args(SubmitQueue)

    assert enum is Queue
    assert get_args(names) == SUBMIT_QUEUES


@pytest.mark.parametrize("queue", SUBMIT_QUEUES)
def test_clients_name_a_queue_by_member_or_by_text(queue: Queue) -> None:
    assert submit_queue(queue) is queue
    assert submit_queue(queue.value) is queue


@pytest.mark.parametrize("queue", [Queue.QUARANTINE, "control", "express", "", None, 3, ["bulk"]])
def test_clients_may_name_no_other_queue(queue: object) -> None:
    with pytest.raises(InvalidMessageError, match="queue: write interactive or bulk"):
        submit_queue(queue)
