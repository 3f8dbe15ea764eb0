"""Sources of checkpoints: lite, a folder, or a name on the hub with its revision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
)
from transformers.utils import cached_file

from labelyard.errors import ModelLoadError
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import lite

TOKENIZER_ADVICE: Final = (
    "are all files of the tokenizer there (tokenizer.json, or vocab.json and merges.txt, "
    "vocab.txt, or a *.model file)? Save the tokenizer into the checkpoint's folder"
)
IMAGE_PROCESSOR_ADVICE: Final = (
    "save it into the checkpoint's folder (preprocessor_config.json, or processor_config.json)"
)


@dataclass(frozen=True)
class CheckpointSource:
    """Folder or hub name that transformers loads from, without running the checkpoint's own code.

    Attributes:
        checkpoint: The setting, for error texts.
        name: A folder, or a name on the hub.
        revision: Branch, tag or commit on the hub; ``None`` for a folder, and for
            the newest commit of a hub name.
    """

    checkpoint: str
    name: str
    revision: str | None = None

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """Resolve ``LABELYARD_CHECKPOINT``; a folder whose name holds an @ stays a folder.

        Raises:
            ModelLoadError: There is no such folder, or the revision cannot be used.
        """
        wanted = settings.checkpoint
        if wanted == "lite":
            return cls(wanted, str(lite.ensure_lite(settings.cache_dir)))
        path = Path(wanted).expanduser()
        if path.is_dir():
            return cls(wanted, str(path))
        name, at, revision = wanted.partition("@")
        if path.is_absolute() or wanted.startswith((".", "~")) or name.count("/") > 1:
            raise ModelLoadError(
                wanted,
                "there is no such folder: LABELYARD_CHECKPOINT takes lite, a hub name, "
                "name@revision or a folder",
            )
        if at:
            _check_revision(wanted, name, revision)
        return cls(wanted, name, revision or None)

    @property
    def folder(self) -> Path:
        """Folder of the files that were loaded; of a hub name, its snapshot."""
        found = cached_file(self.name, "config.json", **self._pinned)
        return Path(str(found)).parent

    def load_config(self) -> Any:
        """Load the model's configuration."""
        return AutoConfig.from_pretrained(self.name, trust_remote_code=False, **self._pinned)

    def load_tokenizer(self) -> Any:
        """Load the tokenizer.

        Raises:
            ModelLoadError: It cannot be made of the files that are there.
        """
        try:
            return AutoTokenizer.from_pretrained(self.name, trust_remote_code=False, **self._pinned)
        except Exception as error:
            text = f"its tokenizer cannot be loaded ({_first_line(error)}): {TOKENIZER_ADVICE}"
            raise ModelLoadError(self.checkpoint, text) from error

    def load_image_processor(self) -> Any:
        """Load the image processor.

        Raises:
            ModelLoadError: It cannot be made of the files that are there.
        """
        try:
            return AutoImageProcessor.from_pretrained(
                self.name, backend="pil", trust_remote_code=False, **self._pinned
            )
        except Exception as error:
            reason = _first_line(error)
            text = f"its image processor cannot be loaded ({reason}): {IMAGE_PROCESSOR_ADVICE}"
            raise ModelLoadError(self.checkpoint, text) from error

    def load_model(self, config: Any) -> Any:
        """Load the weights in float32, and nothing but the weights.

        Raises:
            ModelLoadError: Weights are missing, so that random numbers would be served.
        """
        model, report = AutoModelForZeroShotImageClassification.from_pretrained(
            self.name,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **self._pinned,
        )
        if missing := sorted(report["missing_keys"]):
            some = ", ".join(missing[:3])
            raise ModelLoadError(self.checkpoint, f"{len(missing)} weights are missing: {some}, …")
        return model

    @property
    def _pinned(self) -> dict[str, Any]:
        return {} if self.revision is None else {"revision": self.revision}


def _check_revision(wanted: str, name: str, revision: str) -> None:
    """Refuse a revision that transformers would ignore.

    Raises:
        ModelLoadError: Says what to write.
    """
    if not revision:
        raise ModelLoadError(wanted, "names no revision after the @: write name@revision")
    if name == "lite" or Path(name).expanduser().is_dir():
        kind = "is built on this machine" if name == "lite" else "is a folder"
        raise ModelLoadError(
            wanted, f"{name} {kind} and has no revisions: set LABELYARD_CHECKPOINT={name}"
        )


def loading_advice(checkpoint: str, error: Exception) -> str:
    """Describe why loading failed, and what to do."""
    reason = _first_line(error)
    if Path(checkpoint).expanduser().is_dir() or checkpoint == "lite":
        return f"the folder cannot be loaded as a checkpoint: {reason}"
    return (
        f"cannot be loaded from the hub: {reason}. Check the name, the revision and the network, "
        "or download the checkpoint and set LABELYARD_CHECKPOINT to its folder"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
