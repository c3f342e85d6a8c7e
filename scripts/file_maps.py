"""Writes the file map of each package's README.md: every module with the first line of its docstring.

The map goes between the lines `<!-- files -->` and `<!-- /files -->`; a page without them is left as it is. A folder
below whose page has a map too is one line, with a link.

python scripts/file_maps.py           # after a module was added, moved or described anew
python scripts/file_maps.py --check   # exit code 1 where a map is out of date
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("llava", "ada", "playground", "scripts")
BLOCK = re.compile(r"(?<=<!-- files -->\n).*?(?=<!-- /files -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that have a map."""
    found = (page for folder in FOLDERS for page in sorted((root / folder).rglob("README.md")))
    return [page for page in found if _has_map(page)]


def with_map(page: Path) -> str:
    """Return a page's text with its map made anew."""
    rows = "".join(f"| {name} | {text} |\n" for name, text in _rows(page.parent, page.parent))
    table = f"| file | what it does |\n|---|---|\n{rows}"
    return BLOCK.sub(lambda _: table, page.read_text(encoding="utf-8"))


def first_line(module: Path) -> str:
    """Return the first sentence line of a module's docstring, for a table's cell; empty without one."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.match(r".*?[.:](?=\s|$)", paragraph)
    line = sentence[0] if sentence and text.partition("\n")[0].rstrip()[-1:] not in ".:" else text.partition("\n")[0]
    return line.strip().rstrip(":").replace("``", "`").replace("|", "\\|")


def _has_map(page: Path) -> bool:
    return page.is_file() and BLOCK.search(page.read_text(encoding="utf-8")) is not None


def _rows(folder: Path, top: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules of a folder, then those of the packages below it."""
    for module in sorted(folder.glob("*.py")):
        if module.name != "__init__.py" or (folder != top and first_line(module)):
            shown = module.relative_to(top).as_posix().removesuffix("__init__.py")
            yield f"`{shown}`", first_line(module)
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        page = below / "README.md"
        if _has_map(page):
            shown = below.relative_to(top).as_posix()
            heading = page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            yield f"[`{shown}/`]({shown}/README.md)", first_line(below / "__init__.py") or heading
        else:
            yield from _rows(below, top)


def main() -> int:
    """Write the maps, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with code 1 where a map is out of date"
    )
    args = parser.parse_args()
    stale = [page for page in pages() if with_map(page) != page.read_text(encoding="utf-8")]
    for page in stale:
        print(f"{page.relative_to(ROOT)}: out of date" if args.check else page.relative_to(ROOT))
        if not args.check:
            page.write_text(with_map(page), encoding="utf-8")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
