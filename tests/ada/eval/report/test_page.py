"""The page is one well-formed file that shows what the answers say."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from ada.eval.report.page import Notes, page
from ada.eval.report.write_report import draw
from ada.eval.stats.falloff import falls
from ada.eval.sweep import sweep

NOTES = Notes("python -m ada.eval.sweep", "2026-01-01", "a device", ["<b>how</b> & why"])


def parsed(text: str) -> ElementTree.Element:
    assert text.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(text.partition("\n")[2])


def cells(tree: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in line] for line in tree.iter("tr")]


@pytest.fixture(scope="module")
def example(example_rows) -> str:
    return page(example_rows, falls(example_rows), NOTES, draw(example_rows, "H"))


def test_page_is_well_formed_and_loads_nothing_from_outside(example):
    tree = parsed(example)
    for element in tree.iter():
        for name, value in element.attrib.items():
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/", "#")), (element.tag, name, value[:60])
        assert element.tag not in ("script", "link", "iframe", "object", "embed")
    assert "url(" not in example and "@import" not in example
    assert {link.attrib["href"][1:] for link in tree.iter("a")} <= {e.attrib.get("id") for e in tree.iter()}


def test_page_images_can_be_opened(example):
    urls = [image.attrib["src"] for image in parsed(example).iter("img")]
    kinds = [url.partition(";")[0] for url in urls]
    # three axes for kinds and for benchmarks, one figure of three panels; two heat maps, an example of either kind
    assert kinds.count("data:image/svg+xml") == 7 and kinds.count("data:image/png") == 4
    for url in urls:
        content = base64.b64decode(url.partition(",")[2])
        if "svg" in url[:20]:
            root = ElementTree.fromstring(content)
            links = [value for e in root.iter() for name, value in e.attrib.items() if name.endswith("href")]
            assert root.tag.endswith("svg") and all(link.startswith(("#", "data:")) for link in links)
        else:
            Image.open(io.BytesIO(content)).load()


def test_page_tables_have_the_figures(example):
    lines = cells(parsed(example))
    assert ["TTFT, ms", "15", "7.5"] in lines and ["TTFT, warm plan cache, ms", "5", "2.5"] in lines
    assert ["second", "20", "100.0 (yes)", "100.083.9 to 100.0", "0.00.0 to 16.1"] in lines
    assert ["other set", "points & more", "4", "", "undefined", "undefined"] in lines
    (last,) = [line for line in lines if line[0] == "tiny, last"][:1]
    assert last[2].endswith("-50.0 ± 15.5, p < 0.001")


def test_page_shades_cells_that_have_fallen_off(example):
    shaded = [cell for cell in parsed(example).iter("td") if cell.attrib.get("class") == "fallen"]
    assert ["".join(cell.itertext()) for cell in shaded] == ["0.00.0 to 16.1", "50.035.2 to 64.8"]
    assert "from budget 0.5 down" in example


def test_page_example_is_right_at_first_and_wrong_later(example):
    tree = parsed(example)
    assert ["tiny, learned", "yes", "<no> & <br>"] in cells(tree)
    marks = [cell.attrib.get("class") for cell in tree.iter("td") if cell.text in ("yes", "<no> & <br>")]
    assert marks == ["right", "right", "right", "wrong"]


def test_page_escapes_texts(example):
    assert "<li>&lt;b&gt;how&lt;/b&gt; &amp; why</li>" in example


def test_page_says_that_quality_does_not_fall_off(rows_of):
    rows = rows_of({("learned", 1.0): {"test": "1111"}, ("learned", 0.5): {"test": "1110"}}, timed=False)
    assert "Quality does not fall off" in page(rows, falls(rows), NOTES, draw(rows, "H"))


def test_page_without_times_and_benchmarks_leaves_them_out(rows_of):
    rows = rows_of({("even", 1.0): {"test": "10" * 5}}, family="L", timed=False)
    text = page(rows, falls(rows), NOTES, draw(rows, "L"))
    tree = parsed(text)
    assert not re.search("TTFT|time to first token|By benchmark", text) and "AdaLLaVA-L" in text
    assert len([image for image in tree.iter("img") if "svg" in image.attrib["src"][:20]]) == 2


def test_sweep_writes_the_page_and_warns_of_falls(flags, checkpoint_h, capsys):
    options = flags(f"tiny={checkpoint_h}", more=["--budgets", "1,0.3", "--planners", "learned"])
    sweep(options)
    tree = parsed((options.out / "sweep.html").read_text(encoding="utf-8"))
    printed = capsys.readouterr().err
    found = json.loads((options.out / "sweep.json").read_text())["falls"]
    assert f"the page is {options.out / 'sweep.html'}" in printed
    assert [line for line in printed.splitlines() if line.startswith("warning")] == [
        f"warning: quality falls off: {fall}" for fall in found
    ]
    assert ["executed share", "1.000", "0.333"] in cells(tree)
