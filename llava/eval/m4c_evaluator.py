"""Compares open answers: the VQA challenges' normalization, and accuracy over ten people's answers.

The tables and rules are those that published figures were made with, oddities included; tests/parity pins them.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from llava.errors import DataError, OptionError
from llava.eval.scoring.matching import mean

ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = {name: str(n) for n, name in enumerate("zero one two three four five six seven eight nine ten".split())}
NUMBERS["none"] = "0"
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUM_PEOPLE = 10  # who answered each question
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # that are removed

# Words that people write without their apostrophe. Words such as "she's" and "I'm", which the metric has too, cannot
# occur: answers are in lower case, and "'s" is split off.
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're "
    "you've"
).split()
CONTRACTIONS = {
    word[:index] + word[index + 1 :]: word for word in _CONTRACTED for index, letter in enumerate(word) if letter == "'"
}
CONTRACTIONS["somebody'd"] = "somebodyd"


class EvalAIAnswerProcessor:
    """Normalizes answers as the VQA challenges do: ``processor(answer)``."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Take any arguments, as upstream, and use none."""

    def word_tokenize(self, word: str) -> str:
        """Return the text in lower case, without commas and question marks, with a space before a possessive."""
        return word.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()

    def process_punctuation(self, in_text: str) -> str:
        """Remove marks that are next to a space anywhere, or all where a number has a comma; else make them spaces."""
        remove_all = _COMMA_IN_NUMBER.search(in_text) is not None
        text = in_text
        for mark in PUNCTUATION:
            next_to_space = f"{mark} " in in_text or f" {mark}" in in_text
            text = text.replace(mark, "" if next_to_space or remove_all else " ")
        return _PERIOD.sub("", text, count=_MAX_PERIODS)

    def process_digit_article(self, in_text: str) -> str:
        """Write number words as digits, drop articles, and restore apostrophes."""
        words = (NUMBERS.get(word, word) for word in in_text.lower().split())
        return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)

    def __call__(self, item: str) -> str:
        """Return the answer in the form that is compared."""
        text = self.word_tokenize(item).replace("\n", " ").replace("\t", " ").strip()
        return self.process_digit_article(self.process_punctuation(text))


class TextVQAAccuracyEvaluator:
    """Scores an answer by min(1, people who gave it / 3), averaged over leaving out each one of ten people."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def unique_scores(self, raw_answers: Sequence[str]) -> dict[str, float]:
        """Return the score of every answer that somebody gave. Raises ``DataError`` unless ten people answered."""
        if len(raw_answers) != NUM_PEOPLE:
            raise DataError(f"{len(raw_answers)} answers of people ({list(raw_answers)}); expected {NUM_PEOPLE}")
        answers = [self.answer_processor(answer) for answer in raw_answers]
        return {answer: self._score(answer, answers) for answer in dict.fromkeys(answers)}

    _compute_answer_scores = unique_scores  # upstream's name, which research code overrides or calls

    @staticmethod
    def _score(answer: str, answers: list[str]) -> float:
        others = (answers[:left_out] + answers[left_out + 1 :] for left_out in range(len(answers)))
        return mean([min(1, rest.count(answer) / 3) for rest in others], "answers")

    def scores(self, pred_list: Sequence[Mapping[str, Any]]) -> list[float]:
        """Score each prediction ``{"pred_answer": text, "gt_answers": [ten texts]}`` in [0, 1]."""
        return [
            self.unique_scores(entry["gt_answers"]).get(self.answer_processor(entry["pred_answer"]), 0.0)
            for entry in pred_list
        ]

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Return the mean score, in [0, 1]."""
        return mean(self.scores(pred_list), "answers to score")


class STVQAAccuracyEvaluator:
    """Counts an answer as right where any of the people gave it."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Return the share of predictions that are right, in [0, 1]."""
        same = self.answer_processor
        hits = [same(e["pred_answer"]) in {same(answer) for answer in e["gt_answers"]} for e in pred_list]
        return mean(hits, "answers to score")


class STVQAANLSEvaluator:
    """Average normalized Levenshtein similarity, where a similarity below one half counts as 0."""

    def get_anls(self, s1: str, s2: str) -> float:
        """Return the similarity of two texts, in [0, 1]."""
        one, other = s1.lower().strip(), s2.lower().strip()
        longest = max(len(one), len(other))
        similarity = 1 - edit_distance(one, other) / longest if longest else 1.0
        return similarity if similarity >= 0.5 else 0.0

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Return the mean over predictions of the best similarity to any of the people's answers."""
        best = [max(self.get_anls(e["pred_answer"], answer) for answer in e["gt_answers"]) for e in pred_list]
        return mean(best, "answers to score")


class TextCapsBleu4Evaluator:
    """BLEU-4 of captions, by the package ``pycocoevalcap``, whose tokenizer needs Java.

    No other tokenizer gives the same figures. Raises ``OptionError`` where the package or Java is missing.
    """

    def __init__(self) -> None:
        try:
            bleu = importlib.import_module("pycocoevalcap.bleu.bleu")
            tokenizer = importlib.import_module("pycocoevalcap.tokenizer.ptbtokenizer")
        except ModuleNotFoundError as error:
            raise OptionError(f"there is no package {error.name}; install it: pip install pycocoevalcap") from error
        if shutil.which("java") is None:
            raise OptionError("there is no program java, which the tokenizer of pycocoevalcap runs; install Java")
        self.tokenizer, self.scorer = tokenizer.PTBTokenizer(), bleu.Bleu(4)

    def eval_pred_list(self, pred_list: Sequence[Mapping[str, Any]]) -> float:
        """Return the BLEU-4 of all predictions ``{"pred_answer": text, "gt_answers": [texts]}``, in [0, 1]."""
        if not pred_list:
            raise DataError("there are no captions to score")
        truths = {n: [{"caption": text} for text in entry["gt_answers"]] for n, entry in enumerate(pred_list)}
        said = {n: [{"caption": entry["pred_answer"]}] for n, entry in enumerate(pred_list)}
        scores, _ = self.scorer.compute_score(self.tokenizer.tokenize(truths), self.tokenizer.tokenize(said), verbose=0)
        return float(scores[3])  # of BLEU-1 to BLEU-4


def edit_distance(one: str, other: str) -> int:
    """Count the insertions, deletions and replacements of letters that turn one text into the other."""
    above = list(range(len(other) + 1))
    for row, a in enumerate(one, 1):
        line = [row]
        for column, b in enumerate(other, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (a != b)))
        above = line
    return above[-1]
