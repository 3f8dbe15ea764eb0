"""Pictures of unusual modes are never silently blank, and drafts decode what exact decodes."""

import io
from array import array
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from labelyard.errors import ImageUndecodableError
from labelyard_worker.intake import decode as images
from labelyard_worker.intake.decode import ImageLimits, Pixels, PixelSpec, decode
from tests.support import odd_pictures, pictures
from tests.support.odd_pictures import COLOURS, DEEP_GREYS, SIZE, TRANSPARENT

WHOLE = PixelSpec("none", crop=(SIZE[1], SIZE[0]))
DECODES: tuple[Literal["draft", "exact"], ...] = ("draft", "exact")
WHITE = (255, 255, 255)
# JPEG and a palette of 256 colours cost up to 5 levels of 255; a blank picture 60 and more.
CLOSE = 6.0


def picture_of(raw: bytes, *, limits: ImageLimits | None = None) -> Image.Image:
    pixels = decode(raw, uri="x", spec=WHOLE, limits=limits or ImageLimits())
    return Image.frombytes("RGB", (pixels.width, pixels.height), pixels.data)


def difference(one: Image.Image, other: Image.Image) -> float:
    bands = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(bands) / len(bands)


@pytest.mark.parametrize("decode_mode", DECODES)
@pytest.mark.parametrize("transparency", ["white", "drop"])
@pytest.mark.parametrize("name", DEEP_GREYS)
def test_deep_greys_look_like_their_eight_bit_rendering(
    name: str, transparency: Literal["white", "drop"], decode_mode: Literal["draft", "exact"]
) -> None:
    """Any range of values is scaled; only exact and drop together clip, as the pipeline does."""
    limits = ImageLimits(decode=decode_mode, transparency=transparency)

    picture = picture_of(DEEP_GREYS[name](), limits=limits)

    is_close = difference(picture, odd_pictures.greys().convert("RGB")) < 1
    assert is_close != (limits.follows_pipeline and name != "floats up to 255.tiff")


@pytest.mark.parametrize("decode_mode", DECODES)
@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_as_drawn(name: str, decode_mode: Literal["draft", "exact"]) -> None:
    """In every mode; a fourth channel of zeros in a BMP or TIFF is no transparency."""
    picture = picture_of(COLOURS[name](), limits=ImageLimits(decode=decode_mode))

    assert difference(picture, odd_pictures.colours()) < CLOSE


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_composed_on_white_in_every_mode(name: str) -> None:
    """Clear pixels of the RGBA rendering are white, and nothing else changes."""
    with Image.open(io.BytesIO(TRANSPARENT[name]())) as opened:
        with_alpha = opened.convert("RGBA")
    expected = Image.new("RGB", with_alpha.size, WHITE)
    expected.paste(with_alpha, mask=with_alpha.getchannel("A"))
    has_16_bit_greys = name == "16 bits key.png"  # whose RGBA rendering is clipped to white
    if "turned" in name:
        expected = expected.transpose(Image.Transpose.ROTATE_270).crop((0, 0, 64, 96))

    picture = decode(
        TRANSPARENT[name](),
        uri="x",
        spec=PixelSpec("none", crop=(expected.height, expected.width)),
        limits=ImageLimits(),
    )

    if has_16_bit_greys:
        greys = odd_pictures.greys()
        expected = greys.point([255 if v == 129 else v for v in range(256)]).convert("RGB")
    assert picture.data == expected.tobytes()


def test_a_premultiplied_grey_is_composed_on_white() -> None:
    """Pillow converts its mode La to nothing but LA."""
    half_black = odd_pictures.tiff_of(bytes([0, 128]) * (SIZE[0] * SIZE[1]), bits=[8, 8], extra=1)

    on_white = picture_of(half_black)
    dropped = picture_of(half_black, limits=ImageLimits(decode="exact", transparency="drop"))

    assert on_white.getextrema() == ((127, 127),) * 3
    assert dropped.getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("values", [[0.0], [-3.0], [float("nan")], [float("inf")], [7.0]])
def test_a_picture_of_one_float_is_one_grey(values: list[float]) -> None:
    """No division by zero, nothing that is not a number."""
    data = array("f", values * (SIZE[0] * SIZE[1])).tobytes()

    picture = picture_of(pictures.encode(Image.frombytes("F", SIZE, data), "TIFF"))

    assert all(low == high for low, high in picture.getextrema())


def outcome(raw: bytes, spec: PixelSpec, decode_mode: Literal["draft", "exact"]) -> Pixels | None:
    try:
        return decode(raw, uri="x", spec=spec, limits=ImageLimits(decode=decode_mode))
    except ImageUndecodableError:
        return None


JPEGS: tuple[Callable[[tuple[int, int]], bytes], ...] = (
    pictures.jpeg,
    pictures.progressive_jpeg,
    pictures.cmyk_jpeg,
    pictures.greyscale_jpeg,
    pictures.rotated_jpeg,
)


@settings(max_examples=200, deadline=None)
@given(
    make=st.sampled_from(JPEGS),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    edges=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kept=st.floats(0.3, 1.4),
)
def test_drafts_decode_whatever_exact_decodes(
    make: Callable[[tuple[int, int]], bytes],
    size: tuple[int, int],
    edges: tuple[int, int],
    kept: float,
) -> None:
    """For any size, scale and turn, whole or cut short."""
    whole = make(size)
    raw = whole[: int(kept * len(whole))]
    spec = PixelSpec("exact", height=edges[0], width=edges[1])

    exact, drafted = outcome(raw, spec, "exact"), outcome(raw, spec, "draft")

    assert (drafted is None) == (exact is None)
    if exact is not None and drafted is not None:
        assert drafted.facts.width == exact.facts.width
        assert drafted.facts.height == exact.facts.height


def test_a_draft_that_fails_is_decoded_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be decoded at a smaller scale costs time, and is not refused."""
    raw, spec = pictures.jpeg((600, 400)), PixelSpec("exact", height=32, width=32)
    exact = outcome(raw, spec, "exact")
    assert outcome(raw, spec, "draft") != exact

    def refuse(*_: object) -> None:
        raise OSError("not at this scale")

    monkeypatch.setattr(images, "_draft", refuse)

    assert outcome(raw, spec, "draft") == exact
