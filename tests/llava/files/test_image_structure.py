"""Files that cost far more than their pixels are refused before they are decoded; ordinary ones pass."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llava.errors import ImageError
from llava.files import image_structure
from llava.files.image_structure import MAX_SCANS, check_structure, count_scans
from llava.files.images import ImageLimits, check_image, open_image, stated_cost


def jpeg(width=32, height=24, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_scans(count: int, size=(32, 24)) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are ``count``."""
    buffer = io.BytesIO()
    Image.new("L", size, 128).save(buffer, "JPEG", progressive=True)
    *parts, last = buffer.getvalue().split(b"\xff\xda")
    scan = b"\xff\xda" + last[: last.rindex(b"\xff\xd9")]
    return b"\xff\xda".join(parts) + scan * (count - len(parts) + 1) + b"\xff\xd9"


def gif(before=b"", after=b"", blocks=b"\x07\x84\x8f\xa9\xcb\xed\x05\x05") -> bytes:
    """A GIF of 8 by 8 pixels, with extensions before and after its image."""
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02"
    return head + before + image + blocks + b"\0" + after + b";"


def run_length_bmp(width: int, height: int) -> bytes:
    """A BMP of no data in Pillow's slowest coding, 8 bits run-length."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 4, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1082, 0, 0, 1078) + info + bytes(1024) + b"\0\1\0\1"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"progressive": True, "subsampling": 0}])
def test_count_scans_of_encoders(options):
    """A baseline JPEG has one scan, Pillow's progressive ones ten; a thumbnail and a trailer add none."""
    data = jpeg(**options)
    assert count_scans(data) == (10 if options else 1)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
    assert count_scans(data[:2] + thumbnail + data[2:] + data * 3) == (10 if options else 1)


@pytest.mark.parametrize("count", [7, MAX_SCANS, MAX_SCANS + 1, 6000])
def test_open_image_refuses_a_jpeg_of_many_scans(count):
    data = with_scans(count)
    assert count_scans(data) == count
    if count <= MAX_SCANS:
        assert open_image(data).image.size == (32, 24)
        assert stated_cost(data, ImageLimits()) == 32 * 24 * count
    else:
        with pytest.raises(ImageError, match=rf"{count:,} scans; at most 100"):
            open_image(data)


@pytest.mark.parametrize(
    "hide",
    [
        lambda scans: scans.replace(b"\xff\xda", b"\xff\xff\xff\xda"),  # fill bytes before a marker
        lambda scans: scans.replace(b"\xff\xda", b"\xff\x01\xff\xda"),  # a marker without a length
        lambda scans: scans.replace(b"\xff\xda", b"\xff\xd0\xff\x00junk\xff\xda"),
    ],
)
def test_count_scans_finds_hidden_scans(hide):
    assert count_scans(hide(with_scans(150))) == 150


def test_open_image_counts_scans_by_pixels(monkeypatch):
    data = with_scans(20, (100, 100))
    monkeypatch.setattr(image_structure, "MAX_SCANNED_PIXELS", 200_000)
    assert open_image(data).image.size == (100, 100)
    monkeypatch.setattr(image_structure, "MAX_SCANNED_PIXELS", 199_999)
    with pytest.raises(ImageError, match="20 scans of 10,000 pixels; at most 199,999"):
        open_image(data)


def png(before=b"", after=b"") -> bytes:
    """A PNG of 8 by 8 pixels, with chunks before its pixels, and many times others after them."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + after * 30_000 + data[end:]


def packed_text() -> bytes:
    """A PNG's chunk of a kilobyte that holds a megabyte of text."""
    content = b"zTXtkey\0\0" + zlib.compress(bytes(1_000_000), 9)
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


COMMENT = b"\x21\xfe\x01a\0"
HOSTILE = {
    "many comments": gif(before=COMMENT * 250_000),
    "one long comment": gif(before=b"\x21\xfe" + (b"\xff" + b"a" * 255) * 5_000 + b"\0"),
    "comments after the image": gif(after=COMMENT * 250_000),
    "an application's blocks": gif(before=b"\x21\xff\x0bNETSCAPE2.0" + b"\x01\x84" * 600_000 + b"\0"),
    "plain text": gif(before=b"\x21\x01\x01a\0" * 250_000),
    "blocks of one byte": gif(blocks=b"\x01\x84" * 600_000),
    "chunks of a PNG": png(b"\0\0\0\5tEXta\0b\0\0\x12\x34\x56\x78" * 30_000),
    "chunks after a PNG's pixels": png(after=bytes(4) + b"abCd" + bytes(4)),
    "packed texts of a PNG": png(packed_text() * 40),
    "fill bytes of a JPEG": jpeg()[:2] + b"\xff" * 100_000 + jpeg()[2:],
    "segments of a JPEG": jpeg()[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg()[2:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_open_image_refuses_endless_blocks(name):
    with pytest.raises(ImageError, match=r"a (GIF|JPEG|PNG) "):
        open_image(HOSTILE[name])


@pytest.mark.parametrize("name", [name for name in HOSTILE if "PNG" in name])
def test_check_image_refuses_what_open_image_does(name, tmp_path):
    (tmp_path / "a.png").write_bytes(HOSTILE[name])
    with pytest.raises(ImageError, match="is a PNG of more than"):
        check_image(tmp_path / "a.png")


def test_check_structure_ordinary_files_pass(tmp_path):
    frames = [Image.effect_noise((300, 200), 90) for _ in range(12)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], comment=b"made by hand")
    for data in (
        gif(before=COMMENT * 10, after=COMMENT),
        (tmp_path / "a.gif").read_bytes(),
        b"",
        b"GIF8",
        b"\xff\xd8\xff",
    ):
        assert check_structure(data, "it") in (0, 1)
    assert open_image(tmp_path / "a.gif").image.size == (300, 200)
    assert open_image(png(packed_text() * 4)).image.size == (8, 8)


@pytest.mark.parametrize(("size", "wrong"), [((25_000, 251), "run-length"), ((1, 70_000), "65,535"), ((8, 8), None)])
def test_open_image_of_a_bmp_that_is_slow_or_long(size, wrong):
    limits = ImageLimits(max_pixels=50_000_000)
    if wrong is None:
        with pytest.raises(ImageError, match="damaged"):  # it holds no pixels, and was decoded
            open_image(run_length_bmp(*size), limits)
    else:
        with pytest.raises(ImageError, match=wrong):
            open_image(run_length_bmp(*size), limits)
