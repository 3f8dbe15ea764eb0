"""Bytes to pixels: every format that is read, every breakage that is refused."""

import io
import pickle
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageOps, ImageStat

from labelyard.errors import ImageError, ImageTooLargeError, ImageUndecodableError
from labelyard_worker.intake.decode import ImageLimits, Pixels, PixelSpec, decode
from labelyard_worker.intake.formats import has_heif
from labelyard_worker.intake.resize import resize_and_crop
from tests.support import pictures

CLIP = PixelSpec("shortest_edge", shortest_edge=224, crop=(224, 224))
SIGLIP = PixelSpec("exact", height=224, width=224)
LIKE_PIPELINE = ImageLimits(decode="exact", transparency="drop")
EXACT = ImageLimits(decode="exact")
URI = "s3://pets/cat"

FORMATS = [
    pictures.jpeg,
    pictures.progressive_jpeg,
    pictures.cmyk_jpeg,
    pictures.png,
    pictures.palette_png,
    pictures.webp,
    pictures.gif,
    pictures.animated_gif,
    pictures.animated_webp,
    pictures.bmp,
    pictures.tiff,
    pictures.avif,
    pictures.heic,
]
WITH_MORE = [
    pictures.greyscale_jpeg,
    pictures.rotated_jpeg,
    pictures.transparent_palette_png,
    pictures.transparent_png,
    pictures.sixteen_bit_png,
]


def pixels_of(raw: bytes, *, spec: PixelSpec = SIGLIP, limits: ImageLimits | None = None) -> Pixels:
    return decode(raw, uri=URI, spec=spec, limits=limits or ImageLimits())


def as_image(pixels: Pixels) -> Image.Image:
    return Image.frombytes("RGB", (pixels.width, pixels.height), pixels.data)


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    bands = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(bands) / len(bands)


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    """Find the worst channel of the worst pixel, 0 to 255."""
    return max(most for _, most in ImageChops.difference(one, other).getextrema())


def png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    raw = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        checksum = zlib.crc32(name + body)
        raw += struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)
    return raw


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def with_chunk(raw: bytes, name: bytes, body: bytes) -> bytes:
    """Put a chunk behind a PNG's header."""
    return raw[:33] + png_of_chunks((name, body))[8:] + raw[33:]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_every_format_shows_the_first_frame_as_drawn(make: Callable[[], bytes]) -> None:
    """The decoded picture is the one that was saved, in every container."""
    drawn = pictures.scene().resize((224, 224), Image.Resampling.BICUBIC)

    pixels = pixels_of(make())

    assert (pixels.facts.width, pixels.facts.height) == pictures.SMALL
    assert mean_difference(as_image(pixels), drawn) < 15  # 16 colours cost 12; another frame 60


WITHOUT_KEY = [make for make in FORMATS + WITH_MORE if make is not pictures.transparent_palette_png]


@pytest.mark.parametrize("make", WITHOUT_KEY, ids=lambda make: make.__name__)
def test_exact_pixels_are_those_of_the_pipeline(make: Callable[[], bytes]) -> None:
    """With decode=exact and transparency=drop, transformers' ``load_image`` is followed.

    tests/model/test_normalizer.py compares with the image processors themselves.
    """
    has_heif()  # teaches Pillow to read HEIC
    raw = make()
    loaded = ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")
    expected = resize_and_crop(loaded, CLIP)

    pixels = pixels_of(raw, spec=CLIP, limits=LIKE_PIPELINE)

    assert pixels.data == expected.tobytes()
    assert (pixels.facts.width, pixels.facts.height) == loaded.size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decode_mode", ["draft", "exact"])
def test_exif_orientation_is_followed(orientation: int, decode_mode: str) -> None:
    """All eight, whether or not the JPEG is decoded at a smaller scale."""
    raw = pictures.rotated_jpeg((1200, 800), orientation=orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
    limits = ImageLimits(decode="draft" if decode_mode == "draft" else "exact")

    pixels = pixels_of(raw, spec=CLIP, limits=limits)

    assert (pixels.facts.width, pixels.facts.height) == upright.size
    assert mean_difference(as_image(pixels), resize_and_crop(upright, CLIP)) < 1.5


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00" + b"\xff" * 40,
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
        b"Exif\x00\x00MM\x00*\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00c\x00\x00\x00",
    ],
    ids=["garbage", "cut short", "beyond the end", "orientation 99"],
)
def test_corrupt_exif_does_not_fail_a_fine_picture(exif: bytes) -> None:
    """The picture is taken as it stands."""
    raw = pictures.encode(pictures.scene(), "JPEG", exif=exif)

    pixels = pixels_of(raw)

    assert (pixels.facts.width, pixels.facts.height) == pictures.SMALL


@pytest.mark.parametrize(
    "make",
    [
        lambda clear: pictures.encode(clear, "PNG"),
        lambda clear: pictures.encode(clear.convert("LA"), "PNG"),
        lambda clear: pictures.encode(clear, "WEBP"),
        lambda clear: pictures.encode(Image.new("P", clear.size, 0), "PNG", transparency=0),
        lambda clear: pictures.encode(clear.convert("RGB"), "PNG", transparency=(0, 0, 0)),
    ],
    ids=["RGBA", "LA", "WebP", "palette", "tRNS"],
)
def test_transparency_becomes_white_unless_dropped(make: Callable[[Image.Image], bytes]) -> None:
    """A clear black picture is white, or with transparency=drop black."""
    raw = make(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))

    on_white = pixels_of(raw, limits=ImageLimits(transparency="white"))
    dropped = pixels_of(raw, limits=ImageLimits(transparency="drop"))

    assert set(on_white.data) == {255}
    assert set(dropped.data) == {0}


def test_half_transparent_black_on_white_is_grey() -> None:
    """Alpha is weighed, not thresholded."""
    raw = pictures.encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")

    pixels = pixels_of(raw)

    assert set(pixels.data) == {127}


@pytest.mark.parametrize(
    ("mode", "values"),
    [("I;16", "<2H"), ("I", "<2i"), ("F", "<2f")],
)
def test_deep_greys_are_scaled_not_clipped(mode: str, values: str) -> None:
    """Half of the range is mid-grey: Pillow's plain conversion would make it white."""
    halves = struct.pack(values, 32_768, 65_535)
    raw = pictures.encode(Image.frombytes(mode, (2, 1), halves), "TIFF")

    pixels = pixels_of(raw, spec=PixelSpec("none", crop=(1, 2)))

    assert pixels.data == bytes([128] * 3 + [255] * 3)


def test_draft_decoding_differs_little_and_only_from_large_jpegs() -> None:
    """It is the same picture to within one level of 255."""
    large, small = pictures.jpeg((2400, 1600)), pictures.jpeg((500, 460))

    drafted, exact = pixels_of(large), pixels_of(large, limits=EXACT)

    assert drafted.data != exact.data
    assert mean_difference(as_image(drafted), as_image(exact)) < 1
    assert pixels_of(small).data == pixels_of(small, limits=EXACT).data


@pytest.mark.parametrize("spec", [CLIP, SIGLIP], ids=["crop", "exact"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (500, 3), (3, 500), (224, 224)])
def test_any_shape_becomes_the_size_asked_for(spec: PixelSpec, size: tuple[int, int]) -> None:
    """Down to a single pixel."""
    pixels = pixels_of(pictures.png(size), spec=spec)

    assert (pixels.height, pixels.width, len(pixels.data)) == (224, 224, 224 * 224 * 3)


def test_an_extremely_long_picture_is_not_blown_up_before_its_crop() -> None:
    """1 x 65,000 would take 9 GB at a width of 224; only its middle is resized."""
    middle = Image.new("L", (1, 65_000), 255)
    middle.paste(0, (0, 0, 1, 32_500))

    pixels = pixels_of(pictures.encode(middle, "PNG"), spec=CLIP)

    rows = [pixels.data[3 * 224 * row] for row in (0, 223)]
    assert rows == [0, 255]


def test_the_middle_resized_alone_is_the_middle_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The way for extreme shapes gives the same picture, to within rounding."""
    picture = pictures.scene((300, 2000))
    whole = resize_and_crop(picture, CLIP)
    monkeypatch.setattr("labelyard_worker.intake.resize.MAX_RESIZED_PX", 0)

    middle = resize_and_crop(picture, CLIP)

    differences = set(ImageChops.difference(whole, middle).tobytes())
    assert differences <= {0, 1}


BREAKAGES: dict[str, tuple[bytes, type[ImageError], str]] = {
    "empty": (b"", ImageUndecodableError, "empty"),
    "html": (b"\n<!DOCTYPE html><html>", ImageUndecodableError, "HTML"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ImageUndecodableError, "SVG"),
    "json": (b'{"error": "gone"}', ImageUndecodableError, "JSON"),
    "pdf": (b"%PDF-1.7", ImageUndecodableError, "PDF"),
    "zip": (b"PK\x03\x04" + b"\x00" * 99, ImageUndecodableError, "ZIP"),
    "noise": (bytes(range(256)), ImageUndecodableError, "not a picture"),
    "truncated jpeg": (pictures.jpeg((400, 300))[:3000], ImageUndecodableError, "cut short"),
    "truncated png": (pictures.png((400, 300))[:2000], ImageUndecodableError, "cut short"),
    "truncated webp": (pictures.webp()[:200], ImageUndecodableError, "WEBP"),
    "truncated gif": (pictures.gif()[:900], ImageUndecodableError, "cut short"),
    "truncated tiff": (pictures.tiff()[:2000], ImageUndecodableError, "TIFF"),
    "truncated avif": (pictures.avif()[:300], ImageUndecodableError, "AVIF"),
    "truncated heic": (pictures.heic()[:600], ImageUndecodableError, "HEIF"),
    "jpeg header alone": (b"\xff\xd8\xff", ImageUndecodableError, "header of this JPEG"),
    "png header alone": (b"\x89PNG\r\n\x1a\n", ImageUndecodableError, "PNG"),
    "30,000 x 30,000": (
        png_of_chunks(header(30_000, 30_000), (b"IDAT", zlib.compress(b"\x00"))),
        ImageTooLargeError,
        "30000 x 30000 pixels; the limit is 100000000",
    ),
    "no pixels": (png_of_chunks(header(0, 5), (b"IDAT", b"")), ImageUndecodableError, "PNG"),
    "text bomb": (
        with_chunk(pictures.png(), b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(10**8))),
        ImageTooLargeError,
        "metadata",
    ),
    "profile bomb": (
        with_chunk(pictures.png(), b"iCCP", b"icc\x00\x00" + zlib.compress(bytes(10**8))),
        ImageTooLargeError,
        "metadata",
    ),
    "tiff of nothing": (b"II*\x00\x08\x00\x00\x00\x00\x00", ImageUndecodableError, "TIFF"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_each_breakage_has_its_code_and_a_reason(name: str) -> None:
    """The reason is short and about the file; no foreign exception or address in it."""
    raw, error, reason = BREAKAGES[name]

    with pytest.raises(error) as raised:
        pixels_of(raw)

    assert type(raised.value) is error
    assert raised.value.uri == URI
    assert reason in raised.value.reason
    assert "0x" not in raised.value.reason
    assert len(raised.value.reason) < 200


def test_bytes_and_pixels_are_limited_before_decoding() -> None:
    """One more than the limit is refused, the limit itself is not."""
    raw = pictures.png((10, 10))

    pixels_of(raw, limits=ImageLimits(max_bytes=len(raw), max_pixels=100))
    with pytest.raises(ImageTooLargeError, match=f"{len(raw)} bytes"):
        pixels_of(raw, limits=ImageLimits(max_bytes=len(raw) - 1))
    with pytest.raises(ImageTooLargeError, match="10 x 10 pixels"):
        pixels_of(raw, limits=ImageLimits(max_pixels=99))


def test_a_decoder_out_of_memory_is_a_picture_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's memory limit shows up as MemoryError."""

    def out_of_memory(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr("labelyard_worker.intake.decode.open_image", out_of_memory)

    with pytest.raises(ImageTooLargeError, match="memory"):
        pixels_of(pictures.png())


WHOLE = [make() for make in FORMATS + WITH_MORE]


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, len(WHOLE) - 1),
    at=st.floats(0, 1),
    damage=st.binary(min_size=1, max_size=12),
)
def test_damage_anywhere_gives_pixels_or_one_of_our_errors(
    which: int, at: float, damage: bytes
) -> None:
    """No foreign exception escapes, whatever is wrong."""
    raw = WHOLE[which]
    position = int(at * (len(raw) - 1))
    damaged = raw[:position] + damage + raw[position + len(damage) :]

    try:
        length = len(pixels_of(damaged, limits=ImageLimits(max_pixels=1_000_000)).data)
    except (ImageUndecodableError, ImageTooLargeError):
        return

    assert length == 224 * 224 * 3


def test_what_crosses_to_a_child_can_be_pickled() -> None:
    """Spec and limits on the way there, pixels on the way back."""
    pixels = pixels_of(pictures.jpeg())

    for one in (CLIP, EXACT, pixels):
        assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("orientation", range(1, 9))
def test_draft_decoding_moves_nothing_in_pictures_of_odd_size(orientation: int) -> None:
    """Half of 1027 columns is 513.5: a shift by half a pixel would show at every edge."""
    raw = pictures.rotated_jpeg((1367, 1027), orientation=orientation)

    drafted, exact = (pixels_of(raw, spec=CLIP, limits=limits) for limits in (None, EXACT))

    assert drafted.data != exact.data
    assert largest_difference(as_image(drafted), as_image(exact)) < 25
