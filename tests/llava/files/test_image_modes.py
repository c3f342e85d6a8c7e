"""Colours of every mode against their own formulas, and orientation against Pillow's own turning."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from llava.errors import ImageError
from llava.files.image_modes import orientation_of, to_rgb
from llava.files.images import check_image, load_image, open_image

SIZE = (17, 11)  # width, height
rng = np.random.default_rng(0)


def random_values(*shape, high=256, dtype=np.uint8):
    return rng.integers(0, high, (SIZE[1], SIZE[0], *shape)).astype(dtype)


def rgb_of(image) -> np.ndarray:
    found = to_rgb(image)
    assert found.mode == "RGB" and found.size == image.size
    return np.asarray(found).astype(int)


def grey(values) -> np.ndarray:
    return np.repeat(np.asarray(values).astype(int)[..., None], 3, axis=2)


def saved(image, kind, **options):
    """The image as read back from a file of this kind, not converted."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    opened.load()
    return opened


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", None])
def test_to_rgb_16_bit_grey_is_scaled(kind):
    values = random_values(high=65536, dtype=np.uint16)
    values[0, :3] = 0, 65535, 32768
    image = Image.fromarray(values)
    found = rgb_of(saved(image, kind) if kind else image)
    assert np.abs(found - grey(np.rint(values / 257))).max() == 0
    assert found[0, :3, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_to_rgb_16_bits_in_any_byte_order(mode):
    image = Image.new(mode, SIZE, 257 * 200)
    assert (rgb_of(image) == 200).all()


def test_to_rgb_16_bit_tiff_that_counts_from_white():
    values = random_values(high=65536, dtype=np.uint16)
    stored = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.abs(rgb_of(stored) - grey(255 - values / 257)).max() <= 1


def test_to_rgb_float_tiff_that_counts_from_white():
    values = rng.random((SIZE[1], SIZE[0])).astype(np.float32)
    values[0, :2] = 0, 1
    stored = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.abs(rgb_of(stored) - grey(np.rint(255 - values * 255))).max() <= 1


def tiff_of_12_bits(values):
    """A TIFF of grey values up to 4095, two of them in three bytes."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in pairs)
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 3, height), (279, 4, len(packed))]
    entries = b"".join(struct.pack("<HHIHxx" if kind == 3 else "<HHII", tag, kind, 1, at) for tag, kind, at in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory


def test_to_rgb_12_bit_tiff_is_scaled():
    values = rng.integers(0, 4096, (6, 8))
    values[0, :3] = 0, 4095, 2048
    found = np.asarray(load_image(tiff_of_12_bits(values))).astype(int)
    assert np.abs(found - grey(np.rint(values / 4095 * 255))).max() <= 1
    assert found[0, :3, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize(("high", "scale"), [(256, 1), (65536, 257)])
def test_to_rgb_32_bit_integers_by_their_range(high, scale):
    values = random_values(high=high, dtype=np.int32)
    values[0, 0] = high - 1
    assert np.abs(rgb_of(Image.fromarray(values)) - grey(np.rint(values / scale))).max() == 0
    assert np.abs(rgb_of(saved(Image.fromarray(values), "TIFF")) - grey(np.rint(values / scale))).max() == 0


def test_to_rgb_dark_16_bit_file_stays_dark():
    """Pillow may read 16 bits of a PNG or PGM as 32; the values do not decide there."""
    image = Image.fromarray(np.full((4, 4), 200, dtype=np.int32))
    image.format = "PNG"
    assert (rgb_of(image) == 1).all()


@pytest.mark.parametrize("kind", ["TIFF", None])
def test_to_rgb_floats_from_0_to_1_are_scaled(kind):
    values = rng.random((SIZE[1], SIZE[0])).astype(np.float32)
    values[0, :2] = 0, 1
    image = Image.fromarray(values)
    assert np.abs(rgb_of(saved(image, kind) if kind else image) - grey(np.rint(values * 255))).max() <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 255.0]], dtype=np.float32), "0 to 255"),
        (np.array([[-0.1, 1.0]], dtype=np.float32), "-0.1 to 1"),
        (np.array([[np.nan, 1.0]], dtype=np.float32), "floating-point"),
        (np.array([[0, np.inf]], dtype=np.float32), "inf"),
        (np.array([[-1, 5]], dtype=np.int32), "-1 to 5"),
        (np.array([[0, 65536]], dtype=np.int32), "65536"),
    ],
    ids=["bytes", "below 0", "nan", "infinite", "negative", "32 bits"],
)
def test_values_of_an_unknown_range_are_refused(values, message, tmp_path):
    with pytest.raises(ImageError, match=message):
        to_rgb(Image.fromarray(values))
    Image.fromarray(values).save(tmp_path / "a.tif")
    for read in (load_image, check_image):
        with pytest.raises(ImageError, match=rf"a\.tif.*{message}"):
            read(tmp_path / "a.tif")


def test_to_rgb_drops_transparency():
    values, alpha = random_values(3), random_values(1)
    rgba = np.concatenate([values, alpha], axis=2)
    assert (rgb_of(Image.fromarray(rgba)) == values).all()
    assert (rgb_of(saved(Image.fromarray(rgba), "PNG")) == values).all()
    la = Image.merge("LA", [Image.fromarray(values[..., 0]), Image.fromarray(alpha[..., 0])])
    assert (rgb_of(la) == grey(values[..., 0])).all()


def test_to_rgb_premultiplied_colours():
    values = np.full((2, 2, 4), (200, 100, 50, 128), dtype=np.uint8)
    assert np.abs(rgb_of(Image.fromarray(values).convert("RGBa")) - values[..., :3].astype(int)).max() <= 2
    la = Image.merge("LA", [Image.new("L", (2, 2), 200), Image.new("L", (2, 2), 128)])
    assert np.abs(rgb_of(la.convert("La")) - 200).max() <= 2


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))], ids=["none", "index", "table"])
def test_to_rgb_palettes(transparency, tmp_path):
    indices, palette = random_values(), random_values(3)
    palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "p.png", **({} if transparency is None else {"transparency": transparency}))
    assert (np.asarray(load_image(tmp_path / "p.png")) == palette[indices]).all()


def test_to_rgb_black_and_white():
    bits = random_values(high=2, dtype=bool)
    assert (rgb_of(Image.fromarray(bits)) == grey(bits * 255)).all()


def test_to_rgb_cmyk_ink_takes_light():
    ink = random_values(4)
    expected = (255 - ink[..., :3].astype(int)) * (255 - ink[..., 3:].astype(int)) / 255
    image = Image.fromarray(ink, "CMYK")
    assert np.abs(rgb_of(image) - expected).max() <= 1
    assert np.abs(rgb_of(saved(image, "TIFF")) - expected).max() <= 1
    flat = Image.new("CMYK", SIZE, (10, 200, 30, 40))
    exact = (255 - np.array([10, 200, 30])) * 215 / 255
    assert np.abs(rgb_of(saved(flat, "JPEG", quality=100)) - exact).max() <= 4


def test_to_rgb_luminance_and_colour_difference():
    values = random_values(3)
    y, cb, cr = (values[..., channel].astype(float) - (0, 128, 128)[channel] for channel in range(3))
    expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2).clip(0, 255)
    assert np.abs(rgb_of(Image.fromarray(values, "YCbCr")) - expected).max() <= 1


def test_to_rgb_hue_saturation_value():
    import colorsys

    values = random_values(3)
    expected = [[[255 * c for c in colorsys.hsv_to_rgb(*(pixel / 255))] for pixel in row] for row in values]
    assert np.abs(rgb_of(Image.fromarray(values, "HSV")) - np.array(expected)).max() <= 2


@pytest.mark.parametrize(("lab", "rgb"), [((0, 128, 128), (0, 0, 0)), ((255, 128, 128), (255, 255, 255))])
def test_to_rgb_lab_grey(lab, rgb):
    """Pillow stores L as 0 to 255, a and b with 128 for 0."""
    assert np.abs(rgb_of(Image.new("LAB", SIZE, lab)) - np.array(rgb)).max() <= 1
    middle = rgb_of(Image.new("LAB", SIZE, (136, 128, 128)))
    light = ((136 / 255 * 100 + 16) / 116) ** 3
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(middle - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(9))
def test_open_image_turns_where_it_is_asked(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(random_values(3)).save(tmp_path / "a", kind, exif=exif)
    stored = open_image(tmp_path / "a")
    assert stored.image.size == SIZE and not stored.was_turned
    assert stored.orientation == (orientation or 1), "0 is none that EXIF knows"
    turned = open_image(tmp_path / "a", turn_by_exif=True)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a")).convert("RGB")
    assert turned.image.tobytes() == expected.tobytes() and turned.image.size == expected.size
    assert turned.was_turned == (orientation > 1)


def test_open_image_turns_by_xmp_and_a_tiff_once(tmp_path):
    image = Image.fromarray(random_values(3))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    image.save(tmp_path / "a.webp", xmp=xmp)
    assert open_image(tmp_path / "a.webp", turn_by_exif=True).image.size == SIZE[::-1]
    image.save(tmp_path / "a.tif", tiffinfo={274: 6})
    expected = image.transpose(Image.Transpose.ROTATE_270).tobytes()
    for turn in (False, True):  # Pillow turns a TIFF whatever is asked, so upstream does
        assert open_image(tmp_path / "a.tif", turn_by_exif=turn).image.tobytes() == expected


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_orientation_of_damaged_exif_is_none():
    for exif in (b"", b"Exif\0\0", b"Exif\0\0MM\0\x99junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40):
        image = Image.new("RGB", (4, 4))
        image.info["exif"] = exif
        assert orientation_of(image) == 1
