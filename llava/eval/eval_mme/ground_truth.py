"""Reads MME's release: a folder a category, with a text of two questions and their answers for each image."""

from __future__ import annotations

from pathlib import Path

from llava.errors import DataError
from llava.eval.scoring.submissions import MmeTruth, mme_question
from llava.files.jsonl import read_text

TEXTS, IMAGES = "questions_answers_YN", "images"  # folders inside some of the categories


def read_truth(folder: Path) -> MmeTruth:
    """Return the true answers, yes or no, by (category, image, question).

    Raises ``DataError`` for a folder that is not MME's release.
    """
    truth: MmeTruth = {}
    for category in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        inside = (category / TEXTS, category / IMAGES)
        texts, images = inside if inside[0].is_dir() else (category, category)
        names = {path.stem: path.name for path in images.iterdir() if path.suffix.lower() != ".txt"}
        for path in sorted(texts.glob("*.txt")):
            if path.stem not in names:
                raise DataError(f"{path} has no image in {images}")
            for line in filter(str.strip, read_text(path, "MME's").splitlines()):
                question, tab, answer = line.partition("\t")
                if not tab:
                    raise DataError(f"{path}: {line!r} is no question and answer with a tab between")
                truth[category.name, names[path.stem], mme_question(question)] = answer.strip()
    if not truth:
        raise DataError(f"{folder} holds no categories with images and questions; expected MME's release")
    return truth
