"""A key pair and its self-signed certificate, for servers of one machine that must know each other.

Only servers on 127.0.0.1 use them. They are made anew at each start, and no client of labelyard
receives them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# The machine's clock may be wrong; the certificate lives as long as its servers.
VALID_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
VALID_UNTIL: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's certificate, which is also its own authority, and its private key; both PEM."""

    certificate: str
    private_key: str = ""

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Identity(…)"


def make_identity(*, ip: bytes, name: str) -> Identity:
    """Make a new key pair and its certificate.

    Args:
        ip: Address of the servers, 4 bytes.
        name: Common name of the certificate.
    """
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(ip))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(address, critical=False)
        .sign(key, algorithm=None)  # Ed25519 names no digest
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(certificate.public_bytes(Encoding.PEM).decode(), private.decode())
