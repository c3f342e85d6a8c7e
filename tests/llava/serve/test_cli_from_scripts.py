"""The chat program as scripts call it: its image reader, and flags that another program has parsed."""

import io

import pytest
from PIL import Image

from llava.errors import ImageError
from llava.serve import cli


def test_load_image_opens_a_path_as_rgb(tmp_path):
    Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    image = cli.load_image(str(tmp_path / "a.png"))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (255, 0, 0))
    with pytest.raises(ImageError, match="there is no image"):
        cli.load_image(image_file=str(tmp_path / "b.png"))


@pytest.mark.parametrize("listed", [False, True])
def test_main_takes_upstreams_parsed_flags(tiny_checkpoint, image_file, monkeypatch, capsys, listed, arguments_of):
    """As upstream's parser gives them: one image as a text, and none of our own flags."""
    image = [str(image_file)] if listed else str(image_file)
    given = arguments_of({
        "model_path": str(tiny_checkpoint), "model_base": None, "image_file": image, "device": "cpu", "conv_mode": None,
        "temperature": 0.2, "max_new_tokens": 2, "load_8bit": False, "load_4bit": False, "debug": False,
    })  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("w5 w6\n"))
    assert cli.main(given) == 0
    assert "ASSISTANT:" in capsys.readouterr().out
