"""Records to samples, and samples to batches."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import DataError, ImageError
from llava.mm_utils import process_images
from llava.model.llama_tokenizer import load_tokenizer
from llava.train.data.collator import DataCollatorForSupervisedDataset
from llava.train.data.dataset import LazySupervisedDataset, SampleSettings, read_records, sample_name
from llava.train.data.preprocessing import template_of

SIDE = 16


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return load_tokenizer(tiny_checkpoint, model_max_length=64)


@pytest.fixture
def processor(tiny_checkpoint):
    return CLIPImageProcessorPil.from_pretrained(tiny_checkpoint / "tower")


@pytest.fixture
def dataset(toy_data, tokenizer, processor):
    """``dataset(image_aspect_ratio=..., ...)`` on the toy data."""

    def make(**changes):
        settings = SampleSettings(str(toy_data / "images"), processor, image_aspect_ratio="pad")
        settings = dataclasses.replace(settings, **changes)
        return LazySupervisedDataset(str(toy_data / "data.json"), tokenizer, settings, template_of("v1"))

    return make


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_images_are_prepared_as_for_answering(dataset, toy_data, processor, aspect):
    sample = dataset(image_aspect_ratio=aspect)[1]
    image = Image.open(toy_data / "images" / "1.png")
    expected = process_images([image], processor, SimpleNamespace(image_aspect_ratio=aspect))[0]
    assert torch.equal(sample["image"], expected)
    assert sample["input_ids"].tolist().count(IMAGE_TOKEN_INDEX) == 1


@pytest.mark.parametrize("turn", [False, True])
def test_images_are_turned_upright_where_the_flag_says_so(dataset, toy_data, processor, turn):
    path = toy_data / "images" / "1.png"
    stored = Image.effect_noise((24, 10), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    stored.save(path, exif=exif)
    seen = stored.transpose(Image.Transpose.ROTATE_270) if turn else stored
    sample = dataset(exif_orientation=turn)[1]
    assert sample["image_size"] == seen.size
    assert torch.equal(sample["image"], process_images([seen], processor, SimpleNamespace(image_aspect_ratio="pad"))[0])


def test_samples_are_in_the_order_of_the_file(dataset, tokenizer):
    samples = dataset()
    assert len(samples) == 12
    for number in range(12):
        answer = [token for token in samples[number]["labels"].tolist() if token != IGNORE_INDEX]
        expected = " ".join(f"w{5 + (number + step) % 9}" for step in range(1 + number % 4))
        assert answer == [*tokenizer(expected).input_ids[1:], tokenizer.eos_token_id]


def test_text_only_record_of_a_multimodal_model_gets_a_black_image(dataset):
    sample = dataset()[0]
    assert torch.equal(sample["image"], torch.zeros(3, SIDE, SIDE))
    assert IMAGE_TOKEN_INDEX not in sample["input_ids"]
    assert "image" not in dataset(image_processor=None)[0]


def test_missing_image_is_an_error(dataset, tmp_path):
    with pytest.raises(ImageError, match=r"1\.png"):
        dataset(image_folder=str(tmp_path))[1]


def test_sample_names():
    assert sample_name({"id": "x"}, 3) == "3 (id 'x')"
    assert sample_name({}, 3) == sample_name(["x"], 3) == "3"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'[{"id": 1},]', "is not JSON"),
        ('[{"id": 1}]'.encode("utf-16"), "is not UTF-8 text"),
        (b"{}", "holds no records"),
        (b"[]", "holds no records"),
        (None, "No such file"),
    ],
)
def test_files_that_are_none(tmp_path, content, complaint):
    path = tmp_path / "data.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        read_records(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n "],
)
def test_a_byte_order_mark_is_read_over(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_bytes(content + b'[{"id": 1}]')
    assert read_records(str(path)) == [{"id": 1}]


UNUSABLE = {
    "text": ("w5", "'w5' is not an object"),
    "null": (None, "None is not an object"),
    "no turns": ({"id": "x", "conversations": None}, "'conversations' is None"),
    "number as text": ({"conversations": [{"from": "human", "value": 5}]}, "message 1 .*'value' is 5"),
    "no image": ({"image": None, "conversations": []}, "'image' is None"),
    "video": ({"video": "a.mp4", "conversations": []}, "'video' is 'a.mp4', which would not be seen"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_record_that_makes_no_sample_is_named_unchecked(dataset, case):
    record, complaint = UNUSABLE[case]
    samples = dataset()
    samples.list_data_dict = [*samples.list_data_dict[:2], record]
    name = r"record 2 \(id 'x'\)" if case == "no turns" else "record 2"
    with pytest.raises(DataError, match=f"{name}: .*{complaint}"):
        samples[2]
    for lengths in ("lengths", "modality_lengths"):
        with pytest.raises(DataError, match=name):
            getattr(samples, lengths)


def test_samples_are_cut_where_the_image_counts(dataset, tokenizer, caplog):
    """Of 4 positions: each sample's labels are those within the limit, and the loss of some is reported once."""
    full = dataset()
    for limit in (8, 12, 16, 64):
        tokenizer.model_max_length = 64
        expected = [full[number] for number in range(12)]
        tokenizer.model_max_length = limit
        cut = LazySupervisedDataset.__new__(LazySupervisedDataset)
        cut.__dict__.update(full.__dict__, image_positions=lambda size: 4, _has_warned=False)
        caplog.clear()
        for number in range(12):
            sample = cut[number]
            if IMAGE_TOKEN_INDEX in expected[number]["input_ids"]:
                spread = [
                    label
                    for token, label in zip(
                        expected[number]["input_ids"], expected[number]["labels"].tolist(), strict=True
                    )
                    for label in [label] * (4 if token == IMAGE_TOKEN_INDEX else 1)
                ]
                kept = [label for label in spread[:limit] if label != IGNORE_INDEX]
                assert sample["labels"][sample["labels"] != IGNORE_INDEX].tolist() == kept
            assert len(sample["input_ids"]) == len(sample["labels"]) <= limit
        warned = [line for line in caplog.messages if "of its answers'" in line]
        assert len(warned) == (limit < 64)


def sample(*ids, labels=None, image=None):
    tokens = torch.tensor(ids)
    found = {"input_ids": tokens, "labels": tokens.clone() if labels is None else torch.tensor(labels)}
    return found if image is None else {**found, "image": image}


def test_batches_are_padded_by_length(tokenizer):
    """The padding token is <unk>, which a text may hold: it counts there."""
    tokenizer.model_max_length = 4
    batch = DataCollatorForSupervisedDataset(tokenizer)(
        [sample(1, 0, 5, labels=[IGNORE_INDEX, 0, 5]), sample(1), sample(1, 2, 3, 4, 5)]
    )
    assert batch["input_ids"].tolist() == [[1, 0, 5, 0], [1, 0, 0, 0], [1, 2, 3, 4]]
    assert batch["labels"].tolist() == [
        [IGNORE_INDEX, 0, 5, IGNORE_INDEX],
        [1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX],
        [1, 2, 3, 4],
    ]
    assert batch["attention_mask"].int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert "images" not in batch


def test_images_of_one_size_are_stacked(tokenizer):
    small, large = torch.zeros(3, 2, 2), torch.ones(3, 4, 4)
    collate = DataCollatorForSupervisedDataset(tokenizer)
    assert collate([sample(1, image=small), sample(2, image=small + 1)])["images"].shape == (2, 3, 2, 2)
    several = collate([sample(1, image=small), sample(2, image=large)])["images"]
    assert [image.shape[-1] for image in several] == [2, 4]


def test_a_batch_of_the_data_set(dataset, tokenizer):
    samples = dataset()
    batch = DataCollatorForSupervisedDataset(tokenizer)([samples[number] for number in range(4)])
    assert batch["images"].shape == (4, 3, SIDE, SIDE)
    lengths = [len(samples[number]["input_ids"]) for number in range(4)]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert torch.equal(batch["labels"][1, : lengths[1]], samples[1]["labels"])
