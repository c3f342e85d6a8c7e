"""The page: whole in one file, well-formed, and true to the answers; and the warnings where quality falls off."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from ada.budget import LatencyBudget
from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.latency_samples import LatencySamples
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import Item, QuestionSet
from ada.eval.report.page import Notes, page
from ada.eval.report.write_report import draw
from ada.eval.stats.falloff import falls
from ada.eval.stats.results import Part, make_rows
from ada.scheduling.execution_plan import ExecutionPlan
from llava.eval.answering.questions import Question

NOTES = Notes("python -m ada.eval.sweep", "2026-01-01", "a device", ["<b>how</b> & why"])


def questions(name: str, count: int, picture=None) -> QuestionSet:
    items = [
        Item(Question(n, f"what <is> {n}?", "text", picture), ("first", "second")[n % 2], "yes", _right)
        for n in range(count)
    ]
    return QuestionSet(name, f"{name} set", items, lambda records: {"points & more": None})


def _right(record) -> bool:
    return record["text"] == "yes"


def rows_of(rights: dict[tuple[str, float], dict[str, str]], family: str = "H", timed: bool = True):
    """Rows of one model: (planner, budget) -> by set, a 1 for every right answer."""
    plan = ExecutionPlan.full(4, 2)

    def picture():
        return Image.new("RGB", (40, 30), "red")

    sets = {}
    parts, times = {}, {}
    for (planner, budget), own in rights.items():
        run = Run("tiny", planner, LatencyBudget(budget))
        parts[run] = {}
        for name, marks in own.items():
            sets.setdefault(name, questions(name, len(marks), picture))
            answers = [
                GivenAnswer(n, n, "yes" if mark == "1" else "<no> & <br>", 1.0, 2.0 * budget, plan.to_short_json())
                for n, mark in enumerate(marks)
            ]
            parts[run][name] = Part.of(sets[name], answers)
        if timed:
            times[run] = LatencySamples((10 * budget, 20 * budget), (1.0, 2.0), (5 * budget, 5 * budget))
    return make_rows({"tiny": family}, parts, times)


def parsed(text: str) -> ElementTree.Element:
    assert text.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(text.partition("\n")[2])


def cells(tree: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in line] for line in tree.iter("tr")]


@pytest.fixture(scope="module")
def example() -> tuple[list, str]:
    whole, half = "1" * 40, "10" * 20
    rows = rows_of(
        {
            ("learned", 1.0): {"test": whole, "other": "1111"},
            ("learned", 0.5): {"test": half, "other": "1100"},
            ("last", 1.0): {"test": whole, "other": "1111"},
            ("last", 0.5): {"test": "0" * 40, "other": "0000"},
        }
    )
    return rows, page(rows, falls(rows), NOTES, draw(rows, "H"))


def test_it_is_well_formed_and_asks_for_nothing_outside(example):
    tree = parsed(example[1])
    for element in tree.iter():
        for name, value in element.attrib.items():
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/", "#")), (element.tag, name, value[:60])
        assert element.tag not in ("script", "link", "iframe", "object", "embed")
    assert "url(" not in example[1] and "@import" not in example[1]
    assert {link.attrib["href"][1:] for link in tree.iter("a")} <= {e.attrib.get("id") for e in tree.iter()}


def test_pictures_can_be_opened(example):
    urls = [image.attrib["src"] for image in parsed(example[1]).iter("img")]
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


def test_what_it_says(example):
    lines = cells(parsed(example[1]))
    assert ["TTFT, ms", "15", "7.5"] in lines and ["TTFT, warm plan cache, ms", "5", "2.5"] in lines
    assert ["second", "20", "100.0 (yes)", "100.083.9 to 100.0", "0.00.0 to 16.1"] in lines
    assert ["other set", "points & more", "4", "", "undefined", "undefined"] in lines
    assert ["tiny, learned", "yes", "<no> & <br>"] in lines, "an example that is right at first, and wrong later"
    (last,) = [line for line in lines if line[0] == "tiny, last"][:1]
    assert last[2].endswith("-50.0 ± 15.5, p < 0.001")
    assert "<li>&lt;b&gt;how&lt;/b&gt; &amp; why</li>" in example[1]


def test_falls_are_found_where_they_are(example):
    found = falls(example[0])
    assert [(fall.title, fall.row.run.budget.fraction) for fall in found] == [("second", 0.5), ("test set", 0.5)]
    assert found[1].sentence == "tiny, learned, from budget 0.5 down, test set: 100.0 % to 50.0 % (-50.0 ± 15.5)"
    assert "from budget 0.5 down" in example[1]


def test_a_small_or_uncertain_fall_is_none():
    few = rows_of({("learned", 1.0): {"test": "1" * 12}, ("learned", 0.5): {"test": "1" * 8 + "0" * 4}}, timed=False)
    assert not falls(few), "four of twelve may be chance: p is 2 / 16"
    many = "1" * 1000
    slight = rows_of({("learned", 1.0): {"test": many}, ("learned", 0.5): {"test": "0" * 48 + many[48:]}}, timed=False)
    assert not falls(slight), "4.8 points"
    enough = rows_of({("learned", 1.0): {"test": many}, ("learned", 0.5): {"test": "0" * 50 + many[50:]}}, timed=False)
    assert len(falls(enough)) == 3, "5 points, of all and of both kinds"
    assert "Quality does not fall off" in page(slight, falls(slight), NOTES, draw(slight, "H"))


def test_the_first_budget_at_which_it_falls_is_named():
    many = "1" * 100
    rights = {1.0: many, 0.9: "0" + many[1:], 0.8: "0" * 30 + many[30:], 0.7: "0" * 60 + many[60:]}
    found = falls(rows_of({("learned", budget): {"test": marks} for budget, marks in rights.items()}))
    assert {fall.row.run.budget.fraction for fall in found} == {0.8} and len(found) == 3


def test_a_page_without_times_and_benchmarks():
    rows = rows_of({("even", 1.0): {"test": "10" * 5}}, family="L", timed=False)
    text = page(rows, falls(rows), NOTES, draw(rows, "L"))
    tree = parsed(text)
    assert not re.search("TTFT|time to first token|By benchmark", text) and "AdaLLaVA-L" in text
    assert len([image for image in tree.iter("img") if "svg" in image.attrib["src"][:20]]) == 2


def test_the_program_leaves_the_page_and_warns(flags, checkpoint_h, capsys):
    from ada.eval.sweep import sweep

    options = flags(f"tiny={checkpoint_h}", more=["--budgets", "1,0.3", "--planners", "learned"])
    sweep(options)
    tree = parsed((options.out / "sweep.html").read_text(encoding="utf-8"))
    told = capsys.readouterr().err
    falls_told = json.loads((options.out / "sweep.json").read_text())["falls"]
    assert f"the page is {options.out / 'sweep.html'}" in told
    assert [line for line in told.splitlines() if line.startswith("warning")] == [
        f"warning: quality falls off: {fall}" for fall in falls_told
    ]
    assert ["executed share", "1.000", "0.333"] in cells(tree)
