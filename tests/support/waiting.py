"""Wait for what must come true, in place of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

FIRST_STEP_S = 0.001
LONGEST_STEP_S = 0.05


def wait_until(
    condition: Callable[[], Value], *, within_s: float = 30.0, message: str = ""
) -> Value:
    """Call *condition* again and again until it returns a truthy value.

    Args:
        condition: What to ask; what it raises is not caught.
        within_s: Seconds after which the test fails.
        message: What is waited for, for the failure.

    Returns:
        The truthy answer.

    Raises:
        AssertionError: It did not come true in time.
    """
    due = time.monotonic() + within_s
    step_s = FIRST_STEP_S
    while not (answer := condition()):
        if time.monotonic() >= due:
            awaited = message or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"not within {within_s:g} s: {awaited} (last answer: {answer!r})")
        time.sleep(step_s)
        step_s = min(2 * step_s, LONGEST_STEP_S)
    return answer
