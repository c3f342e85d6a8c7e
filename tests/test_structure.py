"""The shape of the source tree: which package imports which, folder sizes, docstrings."""

from pathlib import Path

import pytest

from source_checks import signatures, structure
from source_checks.sources import PACKAGES, Source, read_sources


@pytest.fixture(scope="module")
def packages(root: Path) -> list[Source]:
    """The files of the packages."""
    return read_sources(root, PACKAGES)


@pytest.fixture
def make_sources(tmp_path: Path):
    """``make_sources({"a/b.py": text, ...})``: files of a checkout."""

    def make(texts: dict[str, str]) -> list[Source]:
        for path, text in texts.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
        return [Source(tmp_path, path) for path in texts]

    return make


def test_llava_never_names_ada(root: Path) -> None:
    shell = read_sources(root, ("llava",))
    found = structure.imports_of_package(shell, "ada")
    assert shell
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("text", ["import ada.model", "from ada import budget", 'import_module("ada.overlay")'])
def test_every_import_of_a_package_is_found(make_sources, text: str) -> None:
    assert structure.imports_of_package(make_sources({"module.py": text}), "ada")


def test_folders_have_at_most_20_modules(root: Path) -> None:
    folders = structure.modules_per_folder(read_sources(root))
    assert {folder: count for folder, count in folders.items() if count > structure.MAX_MODULES} == {}


def test_modules_do_not_import_each_other_in_a_cycle(packages: list[Source]) -> None:
    assert structure.import_cycles(packages) == []


def test_lazy_import_closes_a_cycle(make_sources) -> None:
    texts = {"a.py": "def f():\n    import b", "b.py": "from a import f", "c.py": "import a"}
    assert structure.import_cycles(make_sources(texts)) == [["a", "b"]]


def test_import_for_type_checkers_closes_no_cycle(make_sources) -> None:
    texts = {"a.py": "if TYPE_CHECKING:\n    import b", "b.py": "import a"}
    assert structure.import_cycles(make_sources(texts)) == []


def test_public_names_have_docstrings(packages: list[Source]) -> None:
    found = signatures.missing_docstrings(packages)
    assert not found, "\n".join(map(str, found))


def test_public_docstrings_have_four_words(packages: list[Source]) -> None:
    found = signatures.short_docstrings(packages)
    assert not found, "\n".join(map(str, found))


def test_parameters_are_seldom_any(packages: list[Source]) -> None:
    typed, bare = signatures.typed_parameters(packages)
    assert len(bare) <= 0.05 * typed, "\n".join(map(str, bare))


def test_bare_any_is_counted(make_sources) -> None:
    sources = make_sources({"a.py": "def f(a: Any, b: Any | None, c: list[Any], d, *e: Any, **f: Any): ..."})
    typed, bare = signatures.typed_parameters(sources)
    assert (typed, [finding.text for finding in bare]) == (3, ["f(a: Any)", "f(b: Any)"])


def test_docstrings_are_judged_where_public(make_sources) -> None:
    text = '"""A module of the test."""\ndef short():\n    """The program."""\ndef none(): ...\ndef _private(): ...\n'
    sources = make_sources({"a.py": text})
    assert [finding.line for finding in signatures.short_docstrings(sources)] == [2]
    assert [finding.line for finding in signatures.missing_docstrings(sources)] == [4]
