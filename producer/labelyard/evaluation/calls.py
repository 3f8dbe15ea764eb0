"""The call ``evaluate`` of both clients: score a manifest as jobs or as a run, and measure it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from labelyard.arguments import submit_queue, wait_s
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.preparation import PreparedEvaluation, prepare_evaluation
from labelyard.evaluation.scoring_calls import AsyncScoringCalls, ScoringCalls
from labelyard.evaluation.scoring_run import check_run
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.evaluation.template_choice import TemplateChoice, with_templates
from labelyard.queues import Queue, SubmitQueue
from labelyard.submission import Labels


class EvaluationCalls(ScoringCalls):
    """Call of :class:`labelyard.Client` that evaluates a label set."""

    def evaluate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        split: str | None = None,
        require: Sequence[str] = (),
        queue: SubmitQueue = Queue.BULK,
        out: str | None = None,
        timeout_s: float = 3600.0,
    ) -> Evaluation:
        """Score labelled pictures, and measure how good the labels are.

        Args:
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            manifest: File of JSON lines, or its lines as objects: ``image`` is an address or a
                local file, which is uploaded; ``label`` or ``labels`` is what it shows, ``None``
                for none of these; ``split`` names a part.
            split: Lines to take. Without one: ``test`` if a line has it, else all lines.
            require: Requirements such as ``accuracy>=0.9``; the result's ``passed`` is whether
                they hold.
            queue: Queue of the jobs.
            out: Prefix, ``s3://bucket/prefix/``. With one a bulk run scores the pictures, and its
                files stay below the prefix; the same call again goes on with the same run.
            timeout_s: Most seconds to wait for all jobs, or for the run.

        Returns:
            The figures; ``write(folder)`` writes them, with a page for people.

        Raises:
            InvalidMessageError: A line, a requirement or the set is wrong; nothing was submitted.
            UnknownLabelSetError: No label set is registered under the reference.
            ServiceConfigError: A library is missing, or S3 refused an upload.
            StorageUnavailableError: S3 gave no usable answer to an upload.
            ResultTimeoutError: Not all jobs were finished in time.
            RunTimeoutError: The run has not ended in time; it goes on.
            RunStateError: The run was cancelled, has expired or has failed as a whole.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        if out is not None:
            check_run(chosen.labels, out, self.settings)
        prepared = prepare_evaluation(
            chosen.label_set, manifest, reference=chosen.reference, split=split, require=require
        )
        if out is not None:
            return prepared.measure(self._score_by_run(prepared, out=out, watch=watch))
        return prepared.measure(self._score(prepared, queue=queue, watch=watch))

    def compare_templates(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        templates: Sequence[str] | str | Path,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TemplateChoice:
        """Evaluate a label set with each of several templates, on the same pictures.

        Args:
            labels: As for :meth:`evaluate`; a set that has learned nothing yet.
            manifest: As for :meth:`evaluate`.
            templates: Sentences with one ``{}``, or a file with one a line.
            split: As for :meth:`evaluate`; judge on other pictures than these.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Raises:
            LabelyardError: As for :meth:`evaluate`.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        pairs = with_templates(chosen.label_set, templates)
        evaluations = [
            self.evaluate(label_set, manifest, split=split, queue=queue, timeout_s=watch.left_s)
            for _, label_set in pairs
        ]
        return TemplateChoice([template for template, _ in pairs], evaluations)


class AsyncEvaluationCalls(AsyncScoringCalls):
    """Call of :class:`labelyard.AsyncClient` that evaluates a label set."""

    async def evaluate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        split: str | None = None,
        require: Sequence[str] = (),
        queue: SubmitQueue = Queue.BULK,
        out: str | None = None,
        timeout_s: float = 3600.0,
    ) -> Evaluation:
        """Score labelled pictures, and measure how good the labels are."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        if out is not None:
            check_run(chosen.labels, out, self.settings)
        prepared: PreparedEvaluation = await asyncio.to_thread(
            prepare_evaluation,
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            require=require,
        )
        if out is not None:
            scoring = await self._score_by_run(prepared, out=out, watch=watch)
        else:
            scoring = await self._score(prepared, queue=queue, watch=watch)
        return await asyncio.to_thread(prepared.measure, scoring)

    async def compare_templates(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        templates: Sequence[str] | str | Path,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TemplateChoice:
        """Evaluate a label set with each of several templates, on the same pictures."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        pairs = with_templates(chosen.label_set, templates)
        evaluations = [
            await self.evaluate(
                label_set, manifest, split=split, queue=queue, timeout_s=watch.left_s
            )
            for _, label_set in pairs
        ]
        return TemplateChoice([template for template, _ in pairs], evaluations)
