"""Images that can be read, and the messages for those that cannot."""

import base64
import contextlib
import io
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from llava.errors import ImageError
from llava.files.images import FILE_FORMATS, ImageLimits, check_image, open_image
from llava.mm_utils import load_image, load_image_from_base64

Image.init()  # the formats that this Pillow writes are known after that


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_load_image_of_each_format_and_mode_is_rgb(image, tmp_path):
    for mode in ("RGB", "RGBA", "L", "P", "LA"):
        path = tmp_path / f"{mode}.png"
        image.convert(mode).save(path)
        found = load_image(path)
        assert found.mode == "RGB"
        assert found.tobytes() == Image.open(path).convert("RGB").tobytes()
    assert load_image(str(tmp_path / "RGB.png")).tobytes() == image.tobytes()
    assert load_image(image.convert("L")).mode == "RGB"


def test_load_image_ignores_exif_orientation(image, tmp_path):
    """Upstream reads the stored pixels, unturned."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    image.save(tmp_path / "turned.png", exif=exif)
    assert load_image(tmp_path / "turned.png").size == image.size


def test_load_image_of_unusable_path_raises(tmp_path):
    with pytest.raises(ImageError, match=r"there is no image at.*nowhere\.png"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        (tmp_path / "text.png").write_bytes(content)
        with pytest.raises(ImageError, match=r"text\.png"):
            load_image(tmp_path / "text.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_load_image_truncated_raises(image, tmp_path, kind):
    """Wherever a file ends early, the error is ours, or enough was there to show the image's size."""
    complete = io.BytesIO()
    image.save(complete, kind)
    path = tmp_path / "cut"
    for length in np.linspace(0, len(complete.getvalue()) // 2, 25).astype(int):
        path.write_bytes(complete.getvalue()[:length])
        with pytest.raises(ImageError):
            load_image(path)


@pytest.mark.parametrize("kind", [kind for kind in FILE_FORMATS if kind in Image.SAVE])
def test_load_image_of_a_damaged_file_raises_or_shows_it(image, kind):
    """Bytes changed or cut out anywhere, the header's more often: nothing but our error."""
    complete, draws = io.BytesIO(), np.random.default_rng(3)
    image.save(complete, kind)
    for _ in range(80):
        damaged = bytearray(complete.getvalue())
        for at in draws.integers(0, min(len(damaged), draws.choice([40, 300, 10_000])), 3):
            damaged[at : at + draws.integers(1, 3)] = draws.choice([b"", b"\0", b"\xff\xff", b"\x7f"])
        with contextlib.suppress(ImageError):
            assert load_image(bytes(damaged)).mode == "RGB"


@pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF")
@pytest.mark.parametrize("box", [b"mdat", b"av01", b"pitm", b"iloc"])
def test_load_image_of_a_damaged_avif_raises(image, box):
    """Its decoder raises RuntimeError, for pixels and for the boxes before them."""
    complete = io.BytesIO()
    image.save(complete, "AVIF")
    before, name, after = complete.getvalue().partition(box)
    damaged = before + name + bytes(len(after)) if box == b"mdat" else before + b"xxxx" + after
    with pytest.raises(ImageError, match="is cut short or damaged"):
        load_image(damaged)


def png_header(width, height):
    """A PNG that claims a size, and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 15_000, 60_000])
def test_load_image_too_large_raises_before_decoding(tmp_path, side):
    """Refused by its header: 100 megapixels, and sizes at which Pillow warns or refuses by itself."""
    path = tmp_path / "large.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(ImageError, match=r"50,000,000"):
        load_image(path)
    with pytest.raises(ImageError, match=r"50,000,000"):
        load_image_from_base64(base64.b64encode(path.read_bytes()))


def test_load_image_takes_another_limit(image, tmp_path):
    image.save(tmp_path / "p.png")
    assert load_image(tmp_path / "p.png", max_pixels=1200).size == (40, 30)
    with pytest.raises(ImageError, match=r"40 x 30 = 1,200 pixels; at most 1,199"):
        load_image(tmp_path / "p.png", max_pixels=1199)


def test_load_image_from_base64(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    text = base64.b64encode(data.getvalue()).decode()
    assert load_image_from_base64(text).tobytes() == image.tobytes()
    for bad in ("a", base64.b64encode(b"no image").decode(), text[: len(text) // 8 * 4]):
        with pytest.raises(ImageError):
            load_image_from_base64(bad)


def test_load_image_from_an_address(image, monkeypatch):
    """An address is fetched with a time limit; what fails there is an ImageError that names it."""
    import requests

    from llava.files import images as image_files

    data = io.BytesIO()
    image.save(data, "PNG")
    answer = requests.Response()
    answer.status_code = 200
    asked = {}

    def get(address, timeout, stream):
        asked[address] = timeout
        answer.raw = io.BytesIO(data.getvalue())
        if "down" in address:
            raise requests.ConnectionError("refused")
        return answer

    monkeypatch.setattr(image_files.requests, "get", get)
    assert load_image("http://example.org/p.png").tobytes() == image.tobytes()
    assert asked["http://example.org/p.png"] > 0
    with pytest.raises(ImageError, match=r"down\.png"):
        load_image("https://example.org/down.png")
    answer.status_code = 404
    with pytest.raises(ImageError, match="404"):
        load_image("https://example.org/gone.png")


@pytest.mark.parametrize(
    "host", ["a..b", "a" * 64, "xn--\u0080", "host:99999", "[::1", "", ".", "\ud83d", "a b", "host:x", "%zz"]
)
def test_load_image_from_an_address_that_is_none_raises(host, monkeypatch):
    """Before anything is looked up; for some of these the library raises what belongs to another one."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("looked up"))
    if host in ("a b", "%zz"):  # names that could be looked up
        monkeypatch.setattr(socket, "getaddrinfo", raiser(socket.gaierror("unknown")))
    with pytest.raises(ImageError, match="cannot fetch the image"):
        load_image(f"http://{host}/a.png")


def raiser(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("mode", ["RGB", "I", "F", "I;16"])
def test_load_image_without_pixels_raises(mode):
    with pytest.raises(ImageError, match="0 x 5 pixels"):
        load_image(Image.new(mode, (0, 5)))


def test_open_image_refuses_a_file_beyond_its_bytes_and_formats(image, tmp_path):
    image.save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    assert open_image(tmp_path / "a.png", ImageLimits(max_bytes=size)).image.tobytes() == image.tobytes()
    with pytest.raises(ImageError, match=rf"a\.png.*{size - 1:,} bytes"):
        open_image(tmp_path / "a.png", ImageLimits(max_bytes=size - 1))
    for kind in ("EPS", "DDS"):  # Ghostscript would run the first
        image.save(tmp_path / "a", kind)
        with pytest.raises(ImageError, match="expected one of PNG, JPEG"):
            load_image(tmp_path / "a")
    with pytest.raises(ImageError, match="expected one of PNG"):
        open_image(b"".join([b"II*\0", bytes(200)]), ImageLimits(formats=("PNG",)))


@pytest.mark.parametrize("source", ["\0", "a" * 5000, "/dev/zero"])
def test_load_image_of_odd_paths_raises(source):
    with pytest.raises(ImageError):
        open_image(source, ImageLimits(max_bytes=1000))


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_check_image_decodes_no_complete_jpeg(image, tmp_path, monkeypatch, options):
    image.save(tmp_path / "a.jpg", **options)
    complete = (tmp_path / "a.jpg").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
        patch.setattr(JpegImageFile, "load", lambda _: pytest.fail("decoded"))
        check_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(complete[: len(complete) // 3])
    with pytest.raises(ImageError, match=r"a\.jpg.*cut short"):
        check_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(complete)
    with pytest.raises(ImageError, match="1,200 pixels"):
        check_image(tmp_path / "a.jpg", ImageLimits(max_pixels=1199))
