"""Tags that clients give to jobs and runs of their own."""

from typing import Final

#: Of jobs and runs that evaluate a label set. Their answers do not count for drift: the pictures
#: were chosen.
EVALUATION_TAG: Final = "evaluation"
