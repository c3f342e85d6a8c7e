"""The chat's commands: paths as people type, copy or drag them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llava.errors import ImageError, OptionError
from llava.serve import cli


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ('"my file.png"', "my file.png"),
        ("'my file.png'", "my file.png"),
        (r"my\ file.png", "my file.png"),
        ("my file.png", "my file.png"),
        ('"a.png"', "a.png"),
        ('""', ""),
        ("photo's.png", "photo's.png"),
        ("'photo.png", "'photo.png"),
        (r"C:\images\a.png", r"C:\images\a.png"),
        ('"a.png" "b.png"', '"a.png" "b.png"'),
        ("https://host/a.png?q='b'", "https://host/a.png?q='b'"),
        (r'"it\"s.png"', 'it"s.png'),
        ("", ""),
    ],
)
def test_quotes_around_an_argument_are_taken_off(typed, path):
    assert cli.unquoted(typed) == path


@pytest.mark.parametrize("typed", ['"my file.png"', "'my file.png'", "my file.png", r"my\ file.png"])
def test_image_command_opens_the_path_without_quotes(typed):
    opened = []
    session = SimpleNamespace(open_images=lambda paths: opened.extend(paths) or [])
    assert cli.run_command(session, f"/image {typed}") == "image: my file.png"
    assert opened == ["my file.png"]


@pytest.mark.parametrize("typed", ["/image", '/image ""', "/image '  '", "/image  "])
def test_image_command_without_a_path_is_refused(typed):
    with pytest.raises(OptionError, match="/image needs a path"):
        cli.run_command(SimpleNamespace(), typed)


def test_image_of_a_path_is_rgb(image_file, tmp_path):
    assert cli.load_image(str(image_file)).mode == "RGB"
    with pytest.raises(ImageError, match="there is no image"):
        cli.load_image(str(tmp_path / "lost.png"))


def test_main_takes_parsed_arguments_as_upstream(monkeypatch):
    given = cli.parse_arguments(["--image-file", "a.png"])
    seen = []
    monkeypatch.setattr(cli, "run_chat", lambda args: seen.append(args) or 0)
    assert cli.main(given) == 0 and seen == [given]
    assert cli.main(["--image-file", "b.png"]) == 0 and seen[1].image_file == ["b.png"]
