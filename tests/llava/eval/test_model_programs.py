"""The programs that answer question files, on tiny models: questions without images, Q-Bench, and what is refused."""

from __future__ import annotations

import base64
import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from llava.conversation import conv_templates
from llava.errors import DataError, OptionError
from llava.eval import model_qa, model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_qbench, model_vqa_science
from llava.eval.answering.batched_generation import Answerer
from llava.files.jsonl import lines_of
from llava.model.builder import load_pretrained_model

QUESTIONS = [{"question_id": n, "text": text, "category": "c"} for n, text in enumerate(("w5", "w7 w9 w11", "w30"))]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory, tiny_tokenizer):
    """A plain language model's folder."""
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=4, max_position_embeddings=256, initializer_range=0.8)
    ).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "q.jsonl").write_text(lines_of(QUESTIONS))
    paths = ["--question-file", str(tmp_path / "q.jsonl"), "--answers-file", str(tmp_path / "a.jsonl")]
    return [*paths, "--temperature", "0", "--max_new_tokens", "5", "--device", "cpu"]


def rows(folder, name="a.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def generated(folder, text, template):
    """What transformers' own model answers to one question."""
    tokenizer = load_pretrained_model(str(folder), None, "x", device="cpu")[0]
    conversation = conv_templates[template].copy()
    conversation.append_message(conversation.roles[0], text)
    conversation.append_message(conversation.roles[1], None)
    ids = torch.tensor([tokenizer(conversation.get_prompt()).input_ids])
    plain = LlamaForCausalLM.from_pretrained(folder)
    mask = torch.ones_like(ids)  # unknown words have the id of padding
    new = plain.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=5, pad_token_id=0)[0, ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch", ["1", "3"])
def test_language_model_answers_as_transformers_does(text_model, flags, tmp_path, batch):
    model = ["--model-name", str(text_model), "--conv-mode", "vicuna_v1", "--batch-size", batch]
    assert model_qa.main([*flags, *model]) == 0
    expected = [generated(text_model, question["text"], "vicuna_v1") for question in QUESTIONS]
    assert [row["text"] for row in rows(tmp_path)] == expected and len(set(expected)) == 3
    assert list(rows(tmp_path)[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert [row["question_id"] for row in rows(tmp_path)] == [0, 1, 2]


def test_llava_answers_questions_without_images(tiny_checkpoint, flags, tmp_path):
    assert model_qa.main([*flags, "--model-name", str(tiny_checkpoint)]) == 0
    assert [row["metadata"]["new_tokens"] for row in rows(tmp_path)] == [5, 5, 5]


def test_function_samples_with_upstreams_settings(tiny_checkpoint, flags, tmp_path):
    model_qa.eval_model(str(tiny_checkpoint), str(tmp_path / "q.jsonl"), str(tmp_path / "b.jsonl"))
    settings = rows(tmp_path, "b.jsonl")[0]["metadata"]["settings"]
    assert (settings["temperature"], settings["max_new_tokens"]) == (0.7, 1024)


def test_language_model_refuses_questions_about_images(text_model, flags, tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "q.jsonl").write_text(lines_of([{"question_id": 0, "image": "0.png", "text": "w5"}]))
    more = ["--model-path", str(text_model), "--image-folder", str(tmp_path), "--conv-mode", "vicuna_v1"]
    assert model_vqa.main([*flags, *more]) == 2
    assert "without a vision tower" in capsys.readouterr().err


ASKING = ["model_vqa", "model_vqa_loader", "model_vqa_science", "model_vqa_mmbench", "model_vqa_qbench"]


@pytest.mark.parametrize("program", ASKING)
def test_photograph_is_turned_where_the_flag_says_so(tiny_checkpoint, flags, tmp_path, monkeypatch, program):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((40, 20), 90).convert("RGB").save(tmp_path / "0.jpg", exif=exif)
    data = base64.b64encode((tmp_path / "0.jpg").read_bytes()).decode()
    questions = {
        "model_vqa_science": json.dumps([{"id": 0, "image": "0.jpg", "conversations": [{"value": "w5"}]}]),
        "model_vqa_mmbench": f"index\tquestion\tA\tB\tC\tD\timage\n0\tw5\tw6\tw7\t\t\t{data}",
        "model_vqa_qbench": json.dumps([{"img_path": "0.jpg", "question": "w5", "candidates": ["w6"]}]),
    }
    (tmp_path / "q.jsonl").write_text(
        questions.get(program, lines_of([{"question_id": 0, "image": "0.jpg", "text": "w5"}]))
    )
    seen = []
    pixels = Answerer.pixels

    def recorded(self, images, prompts):
        seen.extend(image.size for image in images)
        return pixels(self, images, prompts)

    monkeypatch.setattr(Answerer, "pixels", recorded)
    main = importlib.import_module(f"llava.eval.{program}").main
    asked = [flag.replace("--question-file", "--questions-file") if program == ASKING[-1] else flag for flag in flags]
    more = ["--model-path", str(tiny_checkpoint), "--image-folder", str(tmp_path)]
    assert main([*asked, *more]) == 0 and seen == [(40, 20)]
    assert main([*asked, *more, "--exif-orientation"]) == 2, "answers to other images are not mixed in"
    (tmp_path / "a.jsonl").unlink()
    assert main([*asked, *more, "--exif-orientation"]) == 0 and seen[1:] == [(20, 40)]
    assert rows(tmp_path)[0]["metadata"]["settings"]["exif_orientation"] is True


def test_image_of_a_table_that_cannot_be_read_is_named_by_its_question(tiny_checkpoint, flags, tmp_path, capsys):
    table = "index\tquestion\tA\tB\tC\tD\timage\n7\tw5\tw6\tw7\t\t\t{}"
    for data, said in (("a", "is not base64"), (base64.b64encode(b"no image").decode(), "is not an image")):
        (tmp_path / "q.jsonl").write_text(table.format(data))
        assert model_vqa_mmbench.main([*flags, "--model-path", str(tiny_checkpoint)]) == 2
        assert f"question 7: the image {said}" in capsys.readouterr().err


@pytest.fixture
def qbench(tmp_path):
    """Q-Bench's file of two questions, of which one has a field more; its flags."""
    records = [
        {"img_path": "0.png", "question": "w5", "candidates": ["w6", "w7"], "correct_ans": "w7", "type": 0},
        {"img_path": "1.png", "question": "w8", "candidates": ["w9", "w10", "w11"], "response": "w3"},
    ]
    for number in range(2):
        Image.effect_noise((20, 30 + number), 90).convert("RGB").save(tmp_path / f"{number}.png")
    (tmp_path / "dev.json").write_text(json.dumps(records))
    files = ["--questions-file", str(tmp_path / "dev.json"), "--answers-file", str(tmp_path / "a.jsonl")]
    return [*files, "--image-folder", str(tmp_path), "--max_new_tokens", "4", "--device", "cpu"]


@pytest.mark.parametrize("program", ["model_vqa", "model_vqa_mmbench"])
def test_answers_about_other_images_are_not_taken_over(tiny_checkpoint, flags, tmp_path, capsys, program):
    """The same questions, asked again with images of other content under the same names."""

    def ask(seed: int, *more: str) -> int:
        folder = tmp_path / f"images {seed}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(folder / "0.png")
        data = base64.b64encode((folder / "0.png").read_bytes()).decode()
        table = ["index\tquestion\tA\tB\tC\tD\timage", *(f"{n}\tw5\tw6\tw7\t\t\t{data}" for n in range(2))]
        lines = lines_of({"question_id": n, "image": "0.png", "text": "w5"} for n in range(2))
        (tmp_path / "q.jsonl").write_text(lines if program == "model_vqa" else "\n".join(table))
        where = ["--image-folder", str(folder), "--model-path", str(tiny_checkpoint)]
        return importlib.import_module(f"llava.eval.{program}").main([*flags, *where, *more])

    assert ask(1) == ask(1) == 0
    (recorded,) = {row["metadata"]["settings"]["images"] for row in rows(tmp_path)}
    assert ask(2) == 2 and "a.jsonl holds answers with another set of images" in capsys.readouterr().err
    chunk = ["--num-chunks", "2", "--answers-file", str(tmp_path / "chunk.jsonl")]
    assert ask(1, *chunk) == 0
    assert [row["metadata"]["settings"]["images"] for row in rows(tmp_path, "chunk.jsonl")] == [recorded]


def test_qbench_records_keep_their_fields_and_get_a_response(tiny_checkpoint, qbench, tmp_path):
    for _ in range(2):  # the second time all is answered
        assert model_vqa_qbench.main([*qbench, "--model-path", str(tiny_checkpoint)]) == 0
    first, second = rows(tmp_path)
    assert list(first) == ["question_id", "img_path", "question", "candidates", "correct_ans", "type", "prompt",
                           "response", "answer_id", "model_id", "metadata"]  # fmt: skip
    assert first["candidates"] == ["w6", "w7"] and second["response"] not in ("", "w3")
    assert first["prompt"] == "w5\nChoose between one of the options as follows:\nA. w6\nB. w7\n"


def test_qbench_in_chinese_has_upstreams_prompt(qbench, tmp_path):
    questions = model_vqa_qbench.read_questions(tmp_path / "dev.json", tmp_path, lang="zh")
    assert questions[1].text == "w8\\在下列选项中选择一个:\nA. w9\nB. w10\nC. w11\n"


@pytest.mark.parametrize("options", [[], ["a"] * 5, "ab", [1], None])
def test_qbench_options_that_cannot_be_lettered_are_refused(tmp_path, options):
    (tmp_path / "q.json").write_text(json.dumps([{"img_path": "0.png", "question": "q", "candidates": options}]))
    with pytest.raises(DataError, match="question 1: 'candidates'"):
        model_vqa_qbench.read_questions(tmp_path / "q.json", tmp_path)


READERS = ["model_qa", "model_vqa", "model_vqa_science", "model_vqa_mmbench", "model_vqa_qbench"]


def read_with(folder, program, text, image="0.png"):
    """Read two questions, of which the second has ``text`` and ``image``, as a program does."""
    Image.new("RGB", (4, 4)).save(folder / "0.png")
    data = base64.b64encode((folder / "0.png").read_bytes()).decode()
    both = [("q", "0.png"), (text, image)]
    path = folder / "questions"
    if program == "model_vqa_mmbench":
        lines = [f"{n + 6}\t{t}\tx\ty\t\t\t{data}" for n, (t, _) in enumerate(both)]
        path.write_text("\n".join(["index\tquestion\tA\tB\tC\tD\timage", *lines]))
        return model_vqa_mmbench.read_questions(path)
    if program == "model_vqa_science":
        records = [{"id": n, "image": i, "conversations": [{"value": t}]} for n, (t, i) in enumerate(both)]
        path.write_text(json.dumps(records))
        return model_vqa_science.read_questions(path, folder)
    if program == "model_vqa_qbench":
        records = [{"img_path": i, "question": t, "candidates": ["x"]} for t, i in both]
        path.write_text(json.dumps(records))
        return model_vqa_qbench.read_questions(path, folder)
    path.write_text(lines_of({"question_id": n, "image": i, "text": t} for n, (t, i) in enumerate(both)))
    return model_qa.read_questions(path) if program == "model_qa" else model_vqa.read_questions(path, folder)


@pytest.mark.parametrize(
    "text",
    ["<image> what?", "what <image>", "a <image> b <image>", "<image-placeholder><image>", "<image-placeholder>" * 2],
)
@pytest.mark.parametrize("program", [name for name in READERS if name != "model_vqa_science"])
def test_image_tag_in_a_question_is_refused_with_the_question(tmp_path, program, text):
    """ScienceQA's questions hold their image's tag, which is taken out, as upstream."""
    with pytest.raises(DataError, match=r"question (2|7): the text .* holds <image"):
        read_with(tmp_path, program, text)


def test_tag_of_a_scienceqa_question_is_not_asked_twice(tmp_path):
    question = read_with(tmp_path, "model_vqa_science", "<image>\nwhat?")[1]
    assert (question.text, question.prompt) == ("what?", "<image>\nwhat?")


@pytest.mark.parametrize("program", READERS)
def test_text_like_a_tag_is_asked(tmp_path, program):
    assert read_with(tmp_path, program, "what is an < image >?")[1].text.startswith("what is an < image >?")


@pytest.mark.parametrize("image", ["", " ", ".", "lost.png", "n" * 400, "\0"])
@pytest.mark.parametrize("program", [name for name in READERS if name not in ("model_qa", "model_vqa_mmbench")])
def test_image_that_is_no_file_is_refused_with_the_question(tmp_path, program, image):
    with pytest.raises(DataError, match=r"question 2: ('image' is|there is no image)"):
        read_with(tmp_path, program, "what?", image)


# The loader that research code imports.


def test_loader_gives_what_the_model_reads(tiny_checkpoint, tmp_path):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_checkpoint), None, "x", device="cpu")
    image = Image.effect_noise((20, 30), 90).convert("RGB")
    image.save(tmp_path / "0.png")
    lines = [{"question_id": n, "image": "0.png", "text": text} for n, text in enumerate(("w5", "w6 w7"))]
    loader = model_vqa_loader.create_data_loader(lines, tmp_path, tokenizer, processor, model.config, num_workers=0)
    batches = list(loader)
    assert len(loader.dataset) == len(batches) == 2
    for (ids, pixels, sizes), line in zip(batches, lines, strict=True):
        conversation = conv_templates["llava_v1"].copy()
        conversation.append_message(conversation.roles[0], f"<image>\n{line['text']}")
        conversation.append_message(conversation.roles[1], None)
        before, after = conversation.get_prompt().split("<image>")
        own = [*tokenizer(before).input_ids, -200, *tokenizer(after).input_ids[1:]]
        assert ids.tolist() == [own] and sizes == ((20, 30),)
        assert pixels.shape == (1, 3, 16, 16) and model.generate(ids, images=pixels, max_new_tokens=2).shape[0] == 1


def test_loader_takes_one_question_a_batch():
    config = SimpleNamespace()
    with pytest.raises(OptionError, match="batch_size is 2"):
        model_vqa_loader.create_data_loader([], "", None, None, config, batch_size=2)
    rows = [(torch.tensor([1, 2]), torch.zeros(3, 4, 4), (5, 6))] * 2
    ids, pixels, sizes = model_vqa_loader.collate_fn(rows)
    assert ids.shape == (2, 2) and pixels.shape == (2, 3, 4, 4) and sizes == ((5, 6), (5, 6))
