"""Panels of the versions of label sets: scores, answers, canaries and drift."""

from typing import Final

from deploy.grafana.panels import Panel, Query, fleet, quantiles, rate

LABEL_SETS: Final = (
    Panel(
        title="Best score",
        description="Best score of an image, by the version of its registered label set.",
        unit="short",
        queries=quantiles("labelyard_best_score", "label_set"),
    ),
    Panel(
        title="Answers",
        description="Images of jobs by what their label set answered; and jobs that were not "
        "counted, because too many versions were in use.",
        unit="1/s",
        queries=(
            Query(rate("labelyard_answers_total", "label_set, answer"), "{{label_set}} {{answer}}"),
            Query(rate("labelyard_answers_dropped_total", "job"), "not counted"),
        ),
    ),
    Panel(
        title="Canaries",
        description="Images that the canary of an alias answers alike or otherwise, and jobs that "
        "it could not score.",
        unit="1/s",
        queries=(
            Query(rate("labelyard_canary_images_total", "alias, answer"), "{{alias}} {{answer}}"),
            Query(rate("labelyard_canary_failures_total", "alias"), "{{alias}} failed"),
        ),
    ),
    Panel(
        title="Drift",
        description="Distance of the last hour of an alias from its baseline, by scores and by "
        "answers; from 0.1 on an alarm is possible, and the third line is 1 if there is one.",
        unit="short",
        queries=(
            Query(fleet("labelyard_fleet_drift_distance", "alias, test"), "{{alias}} {{test}}"),
            Query(fleet("labelyard_fleet_drift_alarm", "alias"), "{{alias}} alarm"),
        ),
    ),
    Panel(
        title="Explanations",
        description="Images with a hidden window that the model saw, to explain labels.",
        unit="1/s",
        queries=(Query(rate("labelyard_occluded_images_total", "job"), "hidden windows"),),
    ),
)
