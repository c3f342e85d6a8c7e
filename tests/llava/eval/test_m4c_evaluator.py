"""BLEU-4 of captions: upstream's figure where its package is installed, else a message that says what is missing."""

import math
import shutil
from collections import Counter

import pytest

from llava.errors import DataError, OptionError
from llava.eval import m4c_evaluator
from llava.eval.m4c_evaluator import TextCapsBleu4Evaluator

CAPTIONS = [
    {"pred_answer": "a red sign says stop here", "gt_answers": ["a red sign says stop here", "the sign says stop"]},
    {"pred_answer": "A bottle of water on the table.", "gt_answers": ["a bottle of water is on the table", "bottle"]},
    {"pred_answer": "the book", "gt_answers": ["a book on a desk with a title"]},
]


def bleu4(captions):
    """The geometric mean of n-grams' precisions up to 4, times the penalty for too few words, over all captions."""
    hits, totals, said, closest = [0] * 4, [0] * 4, 0, 0
    for entry in captions:
        words, *truths = [
            text.lower().replace(".", "").split() for text in (entry["pred_answer"], *entry["gt_answers"])
        ]
        said += len(words)
        closest += min((abs(len(truth) - len(words)), len(truth)) for truth in truths)[1]
        for n in range(4):
            given, *known = [
                Counter(tuple(text[start : start + n + 1]) for start in range(len(text) - n))
                for text in (words, *truths)
            ]
            ceiling = Counter({gram: max(own[gram] for own in known) for gram in given})
            hits[n] += sum((given & ceiling).values())
            totals[n] += sum(given.values())
    precision = math.exp(sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / 4)
    return precision * min(1, math.exp(1 - closest / said))


def test_figure_is_that_of_the_formula():
    pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    evaluator = TextCapsBleu4Evaluator()
    assert evaluator.eval_pred_list(CAPTIONS) == pytest.approx(bleu4(CAPTIONS), rel=1e-6)
    with pytest.raises(DataError, match="no captions"):
        evaluator.eval_pred_list([])


def test_missing_package_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pycocoevalcap")

    monkeypatch.setattr(m4c_evaluator.importlib, "import_module", missing)
    with pytest.raises(OptionError, match="no package pycocoevalcap; install it: pip install pycocoevalcap"):
        TextCapsBleu4Evaluator()


def test_missing_java_is_named(monkeypatch):
    monkeypatch.setattr(m4c_evaluator.importlib, "import_module", lambda name: None)
    monkeypatch.setattr(m4c_evaluator.shutil, "which", lambda program: None)
    with pytest.raises(OptionError, match="no program java"):
        TextCapsBleu4Evaluator()
