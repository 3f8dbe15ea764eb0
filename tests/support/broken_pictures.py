"""Files that are not the pictures they claim to be, each broken in another way."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

from tests.support import pictures

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREYSCALE_1_BIT = b"\x01\x00\x00\x00\x00"
RGB_8_BIT = b"\x08\x02\x00\x00\x00"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG, with its length and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_file(
    width: int, height: int, *, pixel_kind: bytes, idat: bytes, extra: bytes = b""
) -> bytes:
    """Return a PNG that claims this size, whatever its pixels are."""
    header = png_chunk(b"IHDR", struct.pack(">II", width, height) + pixel_kind)
    return PNG_SIGNATURE + header + extra + png_chunk(b"IDAT", idat) + png_chunk(b"IEND", b"")


def deflated_zeros(size_bytes: int) -> bytes:
    """Compress many zeros, in little memory."""
    packer = zlib.compressobj(9)
    million = bytes(1_000_000)
    parts = [packer.compress(million) for _ in range(size_bytes // len(million))]
    parts.append(packer.compress(bytes(size_bytes % len(million))))
    return b"".join(parts) + packer.flush()


def png_bomb(*, side_px: int = 20_000) -> bytes:
    """Make 50 KB of PNG that truly unpack to 400 megapixels, by default."""
    row_bytes = 1 + (side_px + 7) // 8  # a filter byte before each row
    return png_file(
        side_px, side_px, pixel_kind=GREYSCALE_1_BIT, idat=deflated_zeros(row_bytes * side_px)
    )


def text_bomb_png(*, text_bytes: int = 100_000_000) -> bytes:
    """Make a small PNG whose comment unpacks to 100 MB, by default."""
    comment = b"Comment\x00\x00" + deflated_zeros(text_bytes)
    row = b"\x00" + bytes(3 * 8)
    return png_file(
        8, 8, pixel_kind=RGB_8_BIT, idat=zlib.compress(row * 8), extra=png_chunk(b"zTXt", comment)
    )


def huge_png_header(*, side_px: int = 30_000) -> bytes:
    """Make a PNG of a few bytes that claims 30,000 x 30,000 pixels."""
    return png_file(side_px, side_px, pixel_kind=RGB_8_BIT, idat=zlib.compress(bytes(64)))


def huge_jpeg_header(*, side_px: int = 30_000) -> bytes:
    """Make a JPEG of a few hundred bytes that claims 30,000 x 30,000 pixels."""
    whole = pictures.jpeg()
    frame = whole.index(b"\xff\xc0")  # marker, length, precision, then height and width
    return whole[: frame + 5] + struct.pack(">HH", side_px, side_px) + whole[frame + 9 :]


def empty() -> bytes:
    """Make a file without bytes."""
    return b""


def truncated_jpeg() -> bytes:
    """Make a JPEG that ends half-way through its pixels."""
    whole = pictures.jpeg((320, 240))
    return whole[: len(whole) // 2]


def truncated_png() -> bytes:
    """Make a PNG that ends half-way through its pixels."""
    whole = pictures.png((320, 240))
    return whole[: len(whole) // 2]


def start_of_jpeg() -> bytes:
    """Make the first two bytes of a JPEG."""
    return b"\xff\xd8"


def bad_checksum_png() -> bytes:
    """Make a PNG with a flipped bit among its compressed pixels."""
    whole = bytearray(pictures.png())
    whole[whole.index(b"IDAT") + 20] ^= 1
    return bytes(whole)


def html_page() -> bytes:
    """Make the error page that a web server sends in place of a picture."""
    return b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"


def svg() -> bytes:
    """Make a vector drawing."""
    return b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'


def pdf() -> bytes:
    """Make the head of a PDF."""
    return b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"


def zip_archive() -> bytes:
    """Make a ZIP archive with a picture inside."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat.jpg", pictures.jpeg())
    return file.getvalue()


def video() -> bytes:
    """Make the head of an MP4, a relative of AVIF and HEIC."""
    return struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42" + bytes(64)


def noise() -> bytes:
    """Make bytes without any meaning, always the same ones."""
    return bytes((i * i * 31 + 7 * i) % 251 for i in range(4096))


# Nobody can read a picture out of these.
UNDECODABLE: dict[str, Callable[[], bytes]] = {
    "empty.jpg": empty,
    "truncated.jpg": truncated_jpeg,
    "truncated.png": truncated_png,
    "start_only.jpg": start_of_jpeg,
    "bad_checksum.png": bad_checksum_png,
    "page.jpg": html_page,
    "drawing.svg": svg,
    "document.pdf": pdf,
    "archive.zip": zip_archive,
    "video.avif": video,
    "noise.webp": noise,
}

# These would be pictures, of a size that nobody should decode.
TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "bomb.png": png_bomb,
    "huge_header.png": huge_png_header,
    "huge_header.jpg": huge_jpeg_header,
}


def corrupt_exif_jpeg() -> bytes:
    """Make a JPEG with good pixels, and EXIF data that no parser accepts."""
    whole = pictures.jpeg()
    exif = b"Exif\x00\x00II*\x00\xff\xff\xff\x7f" + b"\xee" * 24
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]


def mistyped_exif_jpeg() -> bytes:
    """Make a JPEG with good pixels, whose EXIF orientation is a text."""
    whole = pictures.jpeg()
    orientation = struct.pack("<HHI4s", 0x0112, 2, 4, b"up\x00\x00")
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + orientation + bytes(4)
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]
