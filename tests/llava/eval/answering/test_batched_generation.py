"""Answers in batches and alone, at the end of the context too; questions that are too long are named."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import ImageError, OptionError
from llava.eval import model_vqa, model_vqa_science, run_llava
from llava.eval.answering.batched_generation import Answerer
from llava.eval.answering.runner import load_answerer
from llava.generation import SamplingParams, answer
from llava.mm_utils import tokenizer_image_token
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.model.loaded_model import open_model
from tests.fixtures.hub_llavas import write_hub_llava

ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [64, 16]]}
IMAGE = Image.new("RGB", (16, 16), (120, 30, 200))
TAG = IMAGE_TOKEN_INDEX
PROMPTS = [[1, TAG, 7, 5], [1, 5, 9], [1, TAG, 8, TAG, 7, 5], [1, TAG, 5, 33, 17]]
SIZES = [(64, 64), (30, 20), (90, 20), (10, 90)]  # width, height


@pytest.fixture(scope="module")
def answerer(make_checkpoint):
    """Of a context of 64 positions, with training cut at 24; answers never end by themselves."""
    folder = make_checkpoint(max_position_embeddings=64, tokenizer_model_max_length=24, eos_token_id=None)
    found = load_answerer(str(folder), device="cpu", conv_mode="plain")
    found.model.generation_config.eos_token_id = None
    return found


def prompt_of(length: int) -> str:
    return " ".join(["<image>"] + ["w7"] * (length - 5))


@pytest.mark.parametrize("lengths", [(58, 62, 40), (63,), (10, 63)], ids=str)
def test_answers_of_a_batch_end_each_at_its_own_end_of_the_context(answerer, lengths):
    """As long as those of ``answer``, which asks one prompt, and equal to them."""
    prompts = [prompt_of(length) for length in lengths]
    ids = [tokenizer_image_token(prompt, answerer.tokenizer) for prompt in prompts]
    images = [IMAGE] * len(lengths)
    sampling = SamplingParams(max_new_tokens=8)
    found = answerer.answer(ids, answerer.pixels(images, ids), [image.size for image in images], sampling, {})
    assert found.new_tokens == [min(8, 64 - length) for length in lengths]
    for prompt, text in zip(prompts, found.texts, strict=True):
        alone = answer(answerer.model, answerer.tokenizer, answerer.image_processor, prompt, [IMAGE], sampling=sampling)
        assert alone.text == text


@pytest.mark.parametrize("merge_type", ["flat", "spatial", "spatial_unpad"])
@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_image_takes_the_positions_that_run_llava_gives_it(make_checkpoint, tmp_path, monkeypatch, merge_type, aspect):
    folder, embedded = str(make_checkpoint(mm_patch_merge_type=merge_type, image_aspect_ratio=aspect)), []
    original = LlavaCausalLM.generate_from_embeds

    def seen(self, batch, *given, **keywords):
        embedded.append(batch.embeds)
        return original(self, batch, *given, **keywords)

    monkeypatch.setattr(LlavaCausalLM, "generate_from_embeds", seen)
    image = Image.effect_noise((30, 20), 90).convert("RGB")
    image.save(tmp_path / "image.png")
    flags = {"model_path": folder, "image_file": str(tmp_path / "image.png"), "query": "w5 w9", "conv_mode": "plain"}
    alone = run_llava.eval_model(SimpleNamespace(**flags, device="cpu", max_new_tokens=4))
    answerer = load_answerer(folder, device="cpu", conv_mode="plain")
    ids = [answerer.ids(answerer.prompt("w5 w9", 1))]
    found = answerer.answer(ids, answerer.pixels([image], ids), [image.size], SamplingParams(max_new_tokens=4), {})
    assert embedded[0].shape[1] == len(ids[0]) + 3, "an image of one crop has 4 positions"
    assert torch.equal(*embedded) and found.texts == [alone.text]


def test_answer_limits_count_each_prompts_own_images(answerer):
    prompts = [answerer.ids(prompt) for prompt in ("w5", "<image> w5 <image>", "w5 w6")]
    assert answerer.answer_limits(prompts, [(16, 16), (9, 30)], 100) == [62, 54, 61]


def test_answer_names_the_question_that_is_too_long(answerer):
    ids = [answerer.ids(prompt_of(length)) for length in (20, 64)]
    with pytest.raises(OptionError, match="question b has 64 tokens, image tokens included; the maximum is 63"):
        answerer.answer(ids, None, [(16, 16)] * 2, SamplingParams(), {}, titles=["question a", "question b"])


@pytest.fixture
def flags(make_checkpoint, tmp_path):
    """``flags(records, **config)``: of a run over these records, on a context of 64 positions."""

    def make(records, **config):
        IMAGE.save(tmp_path / "square.png")
        Image.new("RGB", (40, 16)).save(tmp_path / "wide.png")
        text = "\n".join(json.dumps(record) for record in records)
        (tmp_path / "questions.jsonl").write_text(text if len(records) > 1 else json.dumps(records))
        paths = {"--model-path": make_checkpoint(max_position_embeddings=64, **config), "--image-folder": tmp_path}
        paths |= {"--question-file": tmp_path / "questions.jsonl", "--answers-file": tmp_path / "answers.jsonl"}
        given = [str(word) for pair in paths.items() for word in pair]
        return [*given, "--device", "cpu", "--temperature", "0", "--max_new_tokens", "3", "--conv-mode", "plain"]

    return make


def asked(number, words, image="square.png"):
    return {"question_id": f"q{number}", "image": image, "text": " ".join(["w5"] * words)}


def test_too_long_question_ends_the_run_by_name_before_any_is_answered(flags, tmp_path, capsys):
    assert model_vqa.main(flags([asked(1, 5), asked(2, 200), asked(3, 5)])) == 2
    said = capsys.readouterr().err
    assert "question 'q2' has 2" in said and "the maximum is 63" in said and "Traceback" not in said
    assert not list(tmp_path.glob("answers*"))


def test_question_too_long_by_its_images_tiles_ends_the_run_by_name(flags, tmp_path, capsys):
    """Seen once the image is opened: three crops would fit, five do not."""
    records = [asked(1, 5, "wide.png"), asked(2, 44), asked(3, 44, "wide.png")]
    given = flags(records, **ANYRES)
    assert model_vqa.main(given) == 2
    assert "question 'q3' has 6" in capsys.readouterr().err
    assert len((tmp_path / "answers.jsonl.part").read_text().splitlines()) == 2, "the answers so far are kept"


def test_question_without_image_that_is_too_long_ends_the_run_by_name(flags, capsys):
    record = {"id": "s1", "conversations": [{"from": "human", "value": "w5 " * 90}]}
    assert model_vqa_science.main(flags([record])) == 2
    assert "question 's1' has 9" in capsys.readouterr().err


@pytest.fixture(scope="module", params=["onevision-4", "next-qwen2"])
def cropping(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    write_hub_llava(request.param, folder)
    loaded = open_model({"model_path": str(folder), "device": "cpu"})
    loaded.model.generation_config.eos_token_id = None
    return Answerer(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template)


@pytest.fixture(scope="module")
def images():
    return [Image.effect_noise(size, 90).convert("RGB") for size in SIZES]


def logits(cropping, prompts, images):
    """The first token's logits of each prompt (B, V)."""
    sizes = [image.size for image in images] or None
    keywords = {"output_logits": True}
    pixels = cropping.pixels(images, prompts)
    answers = cropping.answer(prompts, pixels, sizes, SamplingParams(max_new_tokens=1), keywords)
    return answers.output.logits[0]


def test_a_batch_is_answered_as_its_prompts_alone(cropping, images):
    batch = logits(cropping, PROMPTS, images)
    waiting = list(images)
    for row, prompt in enumerate(PROMPTS):
        own = [waiting.pop(0) for _ in range(prompt.count(TAG))]
        torch.testing.assert_close(batch[row], logits(cropping, [prompt], own)[0], atol=1e-5, rtol=0)


def test_pixels_of_more_images_than_tags_raises(cropping, images):
    with pytest.raises(ImageError, match=r"1 image tag\(s\) in the prompts, but 4 image\(s\) given"):
        cropping.pixels(images, [PROMPTS[0]])
