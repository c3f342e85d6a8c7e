"""Benchmarks of open answers: short ones (VQAv2, GQA, VizWiz, TextVQA), long ones (MM-Vet, LLaVA-Bench)."""

from __future__ import annotations

import random

from playground.shapes.benchmark_scenes import PEOPLE, Bench, Row, people
from playground.shapes.captions import caption, request
from playground.shapes.questions import KINDS, Maker, Question
from playground.shapes.scene import Scene

OPEN: tuple[Maker, ...] = tuple(maker for kind, maker in KINDS.items() if kind != "choice")
STRUCTURES = {"existence": "verify", "relation": "verify", "compare": "compare"}
CAPABILITIES = {"reading": ["ocr"], "relation": ["spat"], "count": ["rec", "math"], "describe": ["rec", "spat", "gen"]}
SPOKEN: tuple[Maker, ...] = tuple(KINDS[kind] for kind in ("colour", "count", "relation", "reading"))


def answer_type(answer: str) -> str:
    """Return VQAv2's type of an answer."""
    return "yes/no" if answer in ("yes", "no") else "number" if answer.isdigit() else "other"


def describe(rng: random.Random, scene: Scene) -> Question:
    """Return a request for a description."""
    return Question("describe", request(rng), caption(scene))


def vqav2(bench: Bench) -> None:
    """Write the test split, of which every other question is test-dev's, with its answers for marking here."""
    rows, annotations = [], []
    for number, scene, question in bench.asked(OPEN):
        image = f"shapes_test2015_{number:012d}.png"
        bench.save_image(scene, f"test2015/{image}")
        rows.append({"question_id": number, "image": image, "text": question.prompt, "category": "default"})
        annotations.append(
            {
                "question_id": number,
                "image_id": number,
                "question_type": question.kind,
                "answer_type": answer_type(question.answer),
                "multiple_choice_answer": question.answer,
                "answers": people(question.answer),
            }
        )
    bench.write_lines("llava_vqav2_mscoco_test2015.jsonl", rows)
    bench.write_lines("llava_vqav2_mscoco_test-dev2015.jsonl", rows[::2])
    bench.write_json("v2_mscoco_test2015_annotations.json", {"annotations": annotations})
    bench.write_json("v2_mscoco_test-dev2015_annotations.json", {"annotations": annotations[::2]})


def gqa(bench: Bench) -> None:
    """Write questions with the structures that GQA names."""
    rows, questions = [], {}
    for number, scene, question in bench.asked(OPEN):
        name, key = f"n{number:06d}", f"{number:09d}"
        bench.save_image(scene, f"data/images/{name}.png")
        rows.append({"question_id": key, "image": f"{name}.png", "text": question.prompt, "category": "default"})
        questions[key] = {
            "question": question.text,
            "answer": question.answer,
            "imageId": name,
            "isBalanced": True,
            "types": {"structural": STRUCTURES.get(question.kind, "query"), "detailed": question.kind},
        }
    bench.write_lines("llava_gqa_testdev_balanced.jsonl", rows)
    bench.write_json("data/testdev_balanced_questions.json", questions)


def vizwiz(bench: Bench) -> None:
    """Write questions that can all be answered; so the request to say so where it cannot is left out."""
    rows, annotations = [], []
    for number, scene, question in bench.asked(OPEN):
        image = f"VizWiz_test_{number:08d}.png"
        bench.save_image(scene, f"test/{image}")
        rows.append({"question_id": number, "image": image, "text": question.prompt, "category": "default"})
        kind = answer_type(question.answer)
        annotation = {"image": image, "question": question.text, "answers": people(question.answer)}
        annotations.append({**annotation, "answer_type": kind, "answerable": 1})
    bench.write_lines("llava_test.jsonl", rows)
    bench.write_json("test.json", annotations)


def textvqa(bench: Bench) -> None:
    """Write questions about words and digits.

    The prompt holds no other program's reading of the image, which would give the answer away.
    """
    rows, data = [], []
    for number, scene, question in bench.asked([KINDS["reading"]]):
        key = f"{number:016x}"
        bench.save_image(scene, f"train_images/{key}.png")
        rows.append({"question_id": key, "image": f"{key}.png", "text": question.prompt, "category": "default"})
        entry: Row = {"question_id": number, "image_id": key, "question": question.text}
        data.append({**entry, "answers": [question.answer] * PEOPLE})
    bench.write_lines("llava_textvqa_val_v051_ocr.jsonl", rows)
    bench.write_json("TextVQA_0.5.1_val.json", {"dataset_type": "val", "dataset_name": "textvqa", "data": data})


def mm_vet(bench: Bench) -> None:
    """Questions and requests without an instruction, each with the capabilities that it takes."""
    rows, truths = [], {}
    for number, scene, question in bench.asked((*SPOKEN, describe)):
        key = f"v1_{number}"
        bench.save_image(scene, f"images/{key}.png")
        rows.append({"question_id": number, "image": f"{key}.png", "text": question.text})
        truths[key] = {
            "imagename": f"{key}.png",
            "question": question.text,
            "answer": question.answer,
            "imagesource": "shapes",
            "capability": CAPABILITIES.get(question.kind, ["rec"]),
        }
    bench.write_lines("llava-mm-vet.jsonl", rows)
    bench.write_json("mm-vet.json", truths)


def llava_bench(bench: Bench) -> None:
    """Conversation, detail and complex questions, with descriptions as context and true answers as reference."""
    kinds = {"colour": "conv", "count": "conv", "reading": "conv", "describe": "detail", "relation": "complex"}
    questions, contexts, references = [], [], []
    for number, scene, question in bench.asked((*SPOKEN, describe)):
        image = f"{number:03d}.png"
        bench.save_image(scene, f"images/{image}")
        questions.append(
            {"question_id": number, "image": image, "text": question.text, "category": kinds[question.kind]}
        )
        contexts.append({"id": number, "image": image, "caption": caption(scene)})
        answer = f"{question.evidence} So: {question.answer}." if question.evidence else question.answer
        references.append({"question_id": number, "text": answer, "answer_id": f"truth-{number}", "model_id": "truth"})
    bench.write_lines("questions.jsonl", questions)
    bench.write_lines("context.jsonl", contexts)
    bench.write_lines("answers_gpt4.jsonl", references)
