"""The identity of a checkpoint: what decides its embeddings, hashed."""

import hashlib
from pathlib import Path

# In the order of preference in which transformers takes them.
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
SETTINGS_PATTERNS = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


def fingerprint_of(folder: Path) -> str:
    """Hash the weights, and the settings of model, image processor and tokenizer.

    Embeddings are kept under this name, so it changes with anything that changes them.

    Args:
        folder: What transformers loaded from; of a hub checkpoint, its snapshot.

    Returns:
        ``sha256:`` and 64 hex digits.
    """
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _files(folder: Path) -> list[Path]:
    settings = {path for pattern in SETTINGS_PATTERNS for path in folder.glob(pattern)}
    for pattern in WEIGHT_PATTERNS:
        if weights := set(folder.glob(pattern)):
            break
    return sorted(settings | weights)
