"""Pictures of every mode, depth and kind of transparency that Pillow reads, small ones."""

import io
import struct
import zlib
from array import array
from collections.abc import Callable, Sequence

from PIL import Image

from tests.support.pictures import encode, scene

SIZE = (96, 64)


def colours() -> Image.Image:
    """Draw the RGB picture that most of the others show."""
    return scene(SIZE, seed=1)


def greys() -> Image.Image:
    """Draw the grey picture that most of the others show: black to white, left to right."""
    return Image.linear_gradient("L").rotate(90).resize(SIZE)


def clear_in_part() -> Image.Image:
    """Draw an RGBA picture that fades from clear to opaque."""
    picture = colours()
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


def grey_values(scale: float, offset: float = 0.0) -> list[float]:
    """Return the values of ``greys()``, 0 to 255, times *scale*, plus *offset*."""
    return [value * scale + offset for value in greys().tobytes()]


def integers(scale: float, offset: float = 0.0, *, code: str) -> bytes:
    """Return ``grey_values`` as little-endian integers; *code* is that of ``array``."""
    return array(code, [round(value) for value in grey_values(scale, offset)]).tobytes()


def floats(scale: float, offset: float = 0.0) -> bytes:
    """Return ``grey_values`` as 32-bit floats."""
    return array("f", grey_values(scale, offset)).tobytes()


def png_of(*, depth: int, colour: int, rows: Sequence[bytes], chunks: bytes = b"") -> bytes:
    """Make a PNG of ``SIZE``; *colour* is its colour type, *rows* are packed already."""
    header = struct.pack(">IIBBBBB", *SIZE, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, body: bytes) -> bytes:
    """Make a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def key_of(*values: int) -> bytes:
    """Make the chunk that names a PNG's one transparent colour."""
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def deep_grey_png(*, key: int | None = None) -> bytes:
    """Make a PNG of 16 grey bits, of which *key* is transparent."""
    values = array("H", [257 * value for value in greys().tobytes()])
    values.byteswap()
    packed, stride = values.tobytes(), 2 * SIZE[0]
    rows = [packed[at : at + stride] for at in range(0, len(packed), stride)]
    return png_of(depth=16, colour=0, rows=rows, chunks=b"" if key is None else key_of(key))


def one_bit_png(*, key: int) -> bytes:
    """Make a PNG that is black on the left and white on the right; *key*, 0 or 1, is clear."""
    half = SIZE[0] // 16
    row = bytes([0] * half + [255] * half)
    return png_of(depth=1, colour=0, rows=[row] * SIZE[1], chunks=key_of(key))


def deep_rgb_png(*, key: tuple[int, int, int] | None = None) -> bytes:
    """Make a PNG of 3 times 16 bits."""
    data, stride = colours().tobytes(), 3 * SIZE[0]
    deep = b"".join(bytes((value, value)) for value in data)
    rows = [deep[2 * at : 2 * (at + stride)] for at in range(0, len(data), stride)]
    return png_of(depth=16, colour=2, rows=rows, chunks=b"" if key is None else key_of(*key))


def tiff_of(
    data: bytes,
    *,
    bits: Sequence[int],
    photometric: int = 1,
    sample_format: int = 1,
    extra: int | None = None,
) -> bytes:
    """Make an uncompressed little-endian TIFF of ``SIZE`` (TIFF 6.0, section 2)."""
    tags: list[tuple[int, Sequence[int]]] = [
        (256, [SIZE[0]]),
        (257, [SIZE[1]]),
        (258, bits),
        (259, [1]),
        (262, [photometric]),
        (273, [8]),
        (277, [len(bits)]),
        (278, [SIZE[1]]),
        (279, [len(data)]),
        *([] if extra is None else [(338, [extra])]),
        (339, [sample_format] * len(bits)),
    ]
    at = 8 + len(data)
    long_values = at + 2 + 12 * len(tags) + 4
    entries, behind = b"", b""
    for tag, values in tags:
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", long_values + len(behind)), behind + packed
        entries += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + behind
    return b"II*\0" + struct.pack("<I", at) + data + directory


def twelve_bit_tiff() -> bytes:
    """Make a TIFF of 12 grey bits, two pixels in three bytes."""
    values = [round(value) for value in grey_values(4095 / 255)]
    pairs = zip(values[::2], values[1::2], strict=True)
    data = b"".join((one << 12 | other).to_bytes(3, "big") for one, other in pairs)
    return tiff_of(data, bits=[12])


def bmp32(alpha: int | None, *, header: int = 108) -> bytes:
    """Make a BMP of 32 bits whose header names an alpha mask; ``None`` fades from 0 to 255."""
    picture = colours()
    picture.putalpha(Image.linear_gradient("L").resize(SIZE) if alpha is None else alpha)
    upside_down = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    pixels = upside_down.tobytes("raw", "BGRA")
    head = struct.pack("<IiiHHIIiiII", header, *SIZE, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = head.ljust(header, b"\0")
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + pixels


def animated_gif_with_key() -> bytes:
    """Make a GIF of two frames with a transparent colour."""
    frames = [scene(SIZE, seed=seed).quantize(16) for seed in (1, 2)]
    return encode(
        frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=3, disposal=2
    )


def multi_picture_jpeg() -> bytes:
    """Make an MPO, as stereo cameras do."""
    return encode(colours(), "MPO", save_all=True, append_images=[scene(SIZE, seed=2)])


def turned(raw: bytes) -> bytes:
    """Write a PNG once more with EXIF that turns it a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(raw)) as picture:
        return encode(picture, "PNG", exif=exif)


def deep(mode: str, data: bytes) -> Image.Image:
    """Make a picture of ``SIZE`` out of its pixels."""
    return Image.frombytes(mode, SIZE, data)


def not_numbers() -> bytes:
    """Return floats 0 to 1 of which some are infinite or not a number, the first one too."""
    values = array("f", grey_values(1 / 255))
    values[:3] = array("f", [float("nan"), float("inf"), -float("inf")])
    return values.tobytes()


# Deep greys: each must look like greys().
DEEP_GREYS: dict[str, Callable[[], bytes]] = {
    "16 bits.png": deep_grey_png,
    "16 bits.tiff": lambda: encode(deep("I;16", integers(257, code="H")), "TIFF"),
    "16 bits, big-endian.tiff": lambda: encode(
        deep("I;16", integers(257, code="H")).convert("I").convert("I;16B"), "TIFF"
    ),
    "12 bits.tiff": twelve_bit_tiff,
    "12 of 16 bits.tiff": lambda: tiff_of(integers(4095 / 255, code="H"), bits=[16]),
    "10 of 32 bits.tiff": lambda: tiff_of(integers(1023 / 255, code="I"), bits=[32]),
    "16 bits, white is zero.tiff": lambda: tiff_of(
        integers(-257, 65_535, code="H"), bits=[16], photometric=0
    ),
    "floats, white is zero.tiff": lambda: tiff_of(
        floats(-1 / 255, 1), bits=[32], photometric=0, sample_format=3
    ),
    "signed 16 bits.tiff": lambda: tiff_of(
        integers(257, -32_768, code="h"), bits=[16], sample_format=2
    ),
    "signed 16 bits below zero.tiff": lambda: tiff_of(
        integers(100, -30_000, code="h"), bits=[16], sample_format=2
    ),
    "unsigned 32 bits.tiff": lambda: tiff_of(integers((2**32 - 1) / 255, code="I"), bits=[32]),
    "signed 32 bits.tiff": lambda: encode(deep("I", integers(257, code="i")), "TIFF"),
    "floats up to 1.tiff": lambda: encode(deep("F", floats(1 / 255)), "TIFF"),
    "floats up to 255.tiff": lambda: encode(deep("F", floats(1)), "TIFF"),
    "floats up to 1000000.tiff": lambda: encode(deep("F", floats(1e6 / 255)), "TIFF"),
    "floats around zero.tiff": lambda: encode(deep("F", floats(2 / 255, -1)), "TIFF"),
    "floats and others.tiff": lambda: encode(deep("F", not_numbers()), "TIFF"),
}

# Each must look like colours().
COLOURS: dict[str, Callable[[], bytes]] = {
    "rgb.jpg": lambda: encode(colours(), "JPEG", quality=95),
    "cmyk.jpg": lambda: encode(colours().convert("CMYK"), "JPEG", quality=95),
    "several.jpg": multi_picture_jpeg,
    "rgb.png": lambda: encode(colours(), "PNG"),
    "16 bits.png": deep_rgb_png,
    "palette.png": lambda: encode(colours().quantize(256), "PNG"),
    "rgb.bmp": lambda: encode(colours(), "BMP"),
    "palette.bmp": lambda: encode(colours().quantize(256), "BMP"),
    "unused alpha, v4.bmp": lambda: bmp32(0),
    "unused alpha, v5.bmp": lambda: bmp32(0, header=124),
    "opaque alpha.bmp": lambda: bmp32(255),
    "unused alpha.tiff": lambda: encode(
        Image.merge("RGBA", [*colours().split(), Image.new("L", SIZE, 0)]), "TIFF"
    ),
    "unnamed fourth channel.tiff": lambda: encode(colours().convert("RGBX"), "TIFF"),
    "cmyk.tiff": lambda: encode(colours().convert("CMYK"), "TIFF"),
    "ycbcr.tiff": lambda: encode(colours().convert("YCbCr"), "TIFF"),
    "lab.tiff": lambda: encode(colours().convert("LAB"), "TIFF"),
    "palette.tiff": lambda: encode(colours().quantize(256), "TIFF"),
    "16 bits.tiff": lambda: tiff_of(
        array("H", [257 * value for value in colours().tobytes()]).tobytes(),
        bits=[16, 16, 16],
        photometric=2,
    ),
    "rgb.webp": lambda: encode(colours(), "WEBP", lossless=True),
    "rgb.avif": lambda: encode(colours(), "AVIF", quality=95),
}

# Partly transparent.
TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "rgba.png": lambda: encode(clear_in_part(), "PNG"),
    "la.png": lambda: encode(clear_in_part().convert("LA"), "PNG"),
    "rgba.webp": lambda: encode(clear_in_part(), "WEBP"),
    "rgba.avif": lambda: encode(clear_in_part(), "AVIF"),
    "rgba.tiff": lambda: encode(clear_in_part(), "TIFF"),
    "la.tiff": lambda: encode(clear_in_part().convert("LA"), "TIFF"),
    "pa.tiff": lambda: encode(clear_in_part().convert("PA"), "TIFF"),
    "premultiplied.tiff": lambda: tiff_of(
        clear_in_part().convert("RGBa").tobytes(), bits=[8] * 4, photometric=2, extra=1
    ),
    "fading.bmp": lambda: bmp32(None),
    "palette of alphas.png": lambda: encode(
        colours().quantize(16), "PNG", transparency=bytes(range(0, 256, 16))
    ),
    "palette key.png": lambda: encode(colours().quantize(16), "PNG", transparency=2),
    "palette key, turned.png": lambda: turned(
        encode(colours().quantize(16), "PNG", transparency=2)
    ),
    "rgb key.png": lambda: encode(
        colours().quantize(8).convert("RGB"),
        "PNG",
        transparency=colours().quantize(8).convert("RGB").getpixel((5, 5)),
    ),
    "rgb key, 16 bits.png": lambda: deep_rgb_png(key=(257, 257, 257)),
    "grey key.png": lambda: encode(greys(), "PNG", transparency=129),
    "1 bit, black is clear.png": lambda: one_bit_png(key=0),
    "1 bit, white is clear.png": lambda: one_bit_png(key=1),
    "key.gif": lambda: encode(colours().quantize(16), "GIF", transparency=1),
    "key, grey.gif": lambda: encode(greys().quantize(16).convert("L"), "GIF", transparency=0),
    "key, animated.gif": animated_gif_with_key,
    "16 bits key.png": lambda: deep_grey_png(key=129 * 257),
}

# The rest: grey, black and white.
PLAIN_GREYS: dict[str, Callable[[], bytes]] = {
    "grey.jpg": lambda: encode(greys(), "JPEG"),
    "grey.png": lambda: encode(greys(), "PNG"),
    "grey.gif": lambda: encode(greys(), "GIF"),
    "grey.bmp": lambda: encode(greys(), "BMP"),
    "grey.tiff": lambda: encode(greys(), "TIFF"),
    "black and white.png": lambda: encode(greys().convert("1"), "PNG"),
    "black and white.tiff": lambda: encode(greys().convert("1"), "TIFF"),
    "black and white.bmp": lambda: encode(greys().convert("1"), "BMP"),
}

ALL: dict[str, Callable[[], bytes]] = {
    f"{kind}: {name}": make
    for kind, table in (
        ("deep", DEEP_GREYS),
        ("colours", COLOURS),
        ("transparent", TRANSPARENT),
        ("grey", PLAIN_GREYS),
    )
    for name, make in table.items()
}
