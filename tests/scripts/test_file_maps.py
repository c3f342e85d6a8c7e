"""File maps of the packages' pages are those of the sources."""

from pathlib import Path

import file_maps
import pytest

PAGE = "# A package\n\n<!-- files -->\n<!-- /files -->\n\nMore.\n"


@pytest.mark.parametrize("page", file_maps.pages(), ids=lambda page: page.relative_to(file_maps.ROOT).as_posix())
def test_map_is_up_to_date(page: Path) -> None:
    current = file_maps.with_map(page) == page.read_text(encoding="utf-8")
    assert current, "after a module was added, moved or described anew run: python scripts/file_maps.py"


@pytest.mark.parametrize("page", file_maps.pages(), ids=lambda page: page.relative_to(file_maps.ROOT).as_posix())
def test_every_file_of_a_map_is_described(page: Path) -> None:
    assert "|  |\n" not in file_maps.with_map(page)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two modules, a package below it, and one below that has a page."""
    texts = {
        "README.md": PAGE,
        "__init__.py": '"""Is the package itself."""\n',
        "b.py": '"""Does b | c.\n\nAt length."""\n',
        "a.py": '"""Does a, in a sentence that\nneeds two lines. And more."""\n',
        "below/__init__.py": "",
        "below/c.py": '"""Does c: ``python -m c``."""\n',
        "apart/__init__.py": '"""Stands apart."""\n',
        "silent/__init__.py": "",
        "silent/README.md": PAGE,
        "apart/README.md": PAGE,
        "apart/d.py": '"""Does d."""\n',
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_map_lists_modules_then_packages(package: Path) -> None:
    assert file_maps.with_map(package / "README.md").splitlines()[2:-2] == [
        "<!-- files -->",
        "| file | what it does |",
        "|---|---|",
        "| `a.py` | Does a, in a sentence that needs two lines. |",
        "| `b.py` | Does b \\| c. |",
        "| [`apart/`](apart/README.md) | Stands apart. |",
        "| `below/c.py` | Does c: `python -m c`. |",
        "| [`silent/`](silent/README.md) | A package |",
        "<!-- /files -->",
    ]


def test_map_made_twice_stays(package: Path) -> None:
    page = package / "README.md"
    page.write_text(file_maps.with_map(page), encoding="utf-8")
    assert file_maps.with_map(page) == page.read_text(encoding="utf-8")
    (package / "e.py").write_text('"""Does e."""\n')
    assert file_maps.with_map(page) != page.read_text(encoding="utf-8")


def test_page_without_a_block_has_no_map(package: Path) -> None:
    (package / "llava").mkdir()
    (package / "llava" / "README.md").write_text("# No map\n")
    assert file_maps.pages(package) == []
