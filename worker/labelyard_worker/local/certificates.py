"""A key pair and its self-signed certificate, for servers of one machine that must know each other.

Python's standard library reads certificates and makes none. These are used by servers on
127.0.0.1 alone, are made anew at each start, and are never seen by a client of labelyard.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

# Ed25519, RFC 8032, section 5.1.
P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)
BASE_Y: Final = 4 * pow(5, -1, P) % P

Point = tuple[int, int, int, int]  # extended homogeneous coordinates, section 5.1.4
NEUTRAL: Final[Point] = (0, 1, 1, 0)

# DER, X.690.
INTEGER, BIT_STRING, OCTET_STRING, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x30, 0x31
UTF8_STRING, GENERALIZED_TIME = 0x0C, 0x18
TRUE: Final = b"\x01\x01\xff"
ED25519: Final = bytes.fromhex("06032b6570")  # 1.3.101.112, RFC 8410
COMMON_NAME: Final = bytes.fromhex("0603550403")
BASIC_CONSTRAINTS: Final = bytes.fromhex("0603551d13")
SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")
IP_ADDRESS_TAG: Final = 0x87


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

    Source:
        RFC 5280, section 4.1 (certificate); RFC 8410, sections 3, 4 and 7 (Ed25519 in it).
    """
    seed = secrets.token_bytes(32)
    algorithm = _der(SEQUENCE, ED25519)
    subject = _der(SEQUENCE, _der(SET, _der(SEQUENCE, COMMON_NAME, _text(name))))
    lifetime = _der(
        SEQUENCE,
        _der(GENERALIZED_TIME, b"20200101000000Z"),
        _der(GENERALIZED_TIME, b"99991231235959Z"),
    )
    is_authority = _der(SEQUENCE, TRUE)
    address = _der(SEQUENCE, _der(IP_ADDRESS_TAG, ip))
    extensions = _der(
        SEQUENCE,
        _der(SEQUENCE, BASIC_CONSTRAINTS, TRUE, _der(OCTET_STRING, is_authority)),
        _der(SEQUENCE, SUBJECT_ALTERNATIVE_NAME, _der(OCTET_STRING, address)),
    )
    to_be_signed = _der(
        SEQUENCE,
        _der(0xA0, _der(INTEGER, b"\x02")),  # version 3
        _der(INTEGER, b"\x01" + secrets.token_bytes(15)),
        algorithm,
        subject,
        lifetime,
        subject,
        _der(SEQUENCE, algorithm, _bits(public_key(seed))),
        _der(0xA3, extensions),
    )
    certificate = _der(SEQUENCE, to_be_signed, algorithm, _bits(sign(seed, to_be_signed)))
    private = _der(
        SEQUENCE, _der(INTEGER, b"\x00"), algorithm, _der(OCTET_STRING, _der(OCTET_STRING, seed))
    )
    return Identity(_pem("CERTIFICATE", certificate), _pem("PRIVATE KEY", private))


def public_key(seed: bytes) -> bytes:
    """Derive the public key of a private one (RFC 8032, section 5.1.5)."""
    scalar, _ = _expand(seed)
    return _encode(_times(scalar, _base()))


def sign(seed: bytes, message: bytes) -> bytes:
    """Sign *message* (RFC 8032, section 5.1.6)."""
    scalar, prefix = _expand(seed)
    nonce = _number(hashlib.sha512(prefix + message).digest()) % ORDER
    commitment = _encode(_times(nonce, _base()))
    digest = hashlib.sha512(commitment + public_key(seed) + message).digest()
    answer = (nonce + _number(digest) % ORDER * scalar) % ORDER
    return commitment + answer.to_bytes(32, "little")


def _expand(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    scalar = _number(digest[:32]) & ((1 << 254) - 8) | (1 << 254)
    return scalar, digest[32:]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _base() -> Point:
    """Return the base point: the one with y = 4/5 and an even x."""
    square = (BASE_Y * BASE_Y - 1) * pow(D * BASE_Y * BASE_Y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_ONE % P
    if x & 1:
        x = P - x
    return x, BASE_Y, 1, x * BASE_Y % P


def _plus(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = _plus(result, point)
        point = _plus(point, point)
        scalar >>= 1
    return result


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _bits(data: bytes) -> bytes:
    return _der(BIT_STRING, b"\x00", data)


def _text(text: str) -> bytes:
    return _der(UTF8_STRING, text.encode())


def _pem(label: str, der: bytes) -> str:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n"
