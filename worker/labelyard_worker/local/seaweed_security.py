"""Close the ports of SeaweedFS that know no users: master, volume, filer and gRPC.

The S3 gateway checks signatures, the parts behind it do not. So each part presents a
certificate, and answers only peers with the same one (mutual TLS); the volume server also
requires a token for each object. Both are made anew at each start, in files that their user
alone can read.
"""

import secrets
import ssl
from pathlib import Path
from typing import Final

from labelyard_worker.local.certificates import make_identity

LOOPBACK: Final = bytes([127, 0, 0, 1])
CERTIFICATE: Final = "certificate.pem"
PRIVATE_KEY: Final = "private_key.pem"
SETTINGS: Final = "security.toml"  # SeaweedFS reads it from its working directory

GRPC_PARTS: Final = (
    "volume", "master", "filer", "s3", "msg_broker", "msg_agent", "admin", "worker", "mq", "client"
)  # fmt: skip
# Not the volume server: it checks a signed token of the master's for each object, and TLS would
# cost half a millisecond of CPU for each picture that is read.
HTTPS_PARTS: Final = ("master", "filer", "admin")
# Random keys that sign those tokens; no client needs them.
SIGNING_KEYS: Final = ("signing", "signing.read", "filer_signing", "filer_signing.read")


def write_security(folder: Path) -> None:
    """Write a new certificate, its key and the settings that name them into *folder*."""
    identity = make_identity(ip=LOOPBACK, name="labelyard embedded stack")
    certificate, private_key = folder / CERTIFICATE, folder / PRIVATE_KEY
    write_private(certificate, identity.certificate)
    write_private(private_key, identity.private_key)
    pair = f'cert = "{_quoted(certificate)}"\nkey = "{_quoted(private_key)}"\n'
    authority = f'ca = "{_quoted(certificate)}"\n'
    sections = [
        *(f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(30)}"\n' for name in SIGNING_KEYS),
        "[filer.expose_directory_metadata]\nenabled = false\n",
        f"[grpc]\n{authority}",
        *(f"[grpc.{part}]\n{pair}" for part in GRPC_PARTS),
        *(f"[https.{part}]\n{pair}{authority}" for part in HTTPS_PARTS),
    ]
    write_private(folder / SETTINGS, "\n".join(sections))


def client_context(folder: Path) -> ssl.SSLContext:
    """Return the TLS context for clients of the parts of the server that runs on *folder*."""
    context = ssl.create_default_context(cafile=str(folder / CERTIFICATE))
    context.load_cert_chain(folder / CERTIFICATE, folder / PRIVATE_KEY)
    return context


def write_private(path: Path, text: str) -> None:
    """Write a file that its user alone can read, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)


def _quoted(path: Path) -> str:
    """Write a path inside a TOML string."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
