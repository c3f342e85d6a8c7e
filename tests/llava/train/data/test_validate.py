"""The pre-flight check: each fault with its record, all of them at once, before anything is trained."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from llava.errors import DataError
from llava.train import train as program
from llava.train.data.preprocessing import preprocess, template_of
from llava.train.data.validate import check_data, record_faults


def turns(*texts):
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


SEEN = turns("<image>\nwhat?", "this")
# Record -> what is said of it, one pattern a fault.
FAULTY = {
    "not an object": ("text", ["not an object with a list 'conversations'"]),
    "no turns": ({"conversations": []}, ["no question"]),
    "only a greeting": ({"conversations": [{"from": "gpt", "value": "hello"}]}, ["no question"]),
    "odd messages": (
        {"conversations": [{"from": "human"}, {"from": "gpt", "value": 3}, "x"]},
        ["message 1 is not an object", "message 2 is not an object", "message 3 is not an object"],
    ),
    "two questions": ({"conversations": [*turns("a"), *turns("b", "c")]}, ["message 2 is from 'human'"]),
    "unknown role": ({"conversations": [{"from": "system", "value": "a"}, *turns("b", "c")]}, ["from 'system'"]),
    "question at the end": ({"conversations": turns("a", "b", "c")}, ["last question has no answer"]),
    "empty answers": (
        {"conversations": turns("a", "", "b", " \n")},
        ["message 2 is an empty answer", "message 4 is an empty answer"],
    ),
    "separator": ({"conversations": turns("a", "b ASSISTANT: c")}, ["message 2 holds ' ASSISTANT: '"]),
    "end": ({"conversations": turns("a</s>", "b")}, ["message 1 holds '</s>'"]),
    "tag without image": ({"conversations": SEEN}, ["1 <image> for 0 image"]),
    "image without tag": ({"image": "good.png", "conversations": turns("a", "b")}, ["0 <image> for 1 image"]),
    "two tags": ({"image": "good.png", "conversations": turns("<image> <image>", "b")}, ["2 <image> for 1 image"]),
    "tag in answer": ({"image": "good.png", "conversations": turns("a", "<image>")}, ["message 2 is an answer that"]),
    "missing": ({"image": "none.png", "conversations": SEEN}, ["no image at .*none.png"]),
    "truncated png": ({"image": "cut.png", "conversations": SEEN}, ["cut.png.* cut short or damaged"]),
    "truncated jpeg": ({"image": "cut.jpg", "conversations": SEEN}, ["cut.jpg.* cut short or damaged"]),
    "no picture": ({"image": "text.png", "conversations": SEEN}, ["text.png.* not an image"]),
    "folder": ({"image": ".", "conversations": SEEN}, ["is a folder"]),
    "empty path": ({"image": "", "conversations": SEEN}, ["'image' is '', expected a path; a record without"]),
    "blank path": ({"image": " ", "conversations": SEEN}, ["'image' is ' ', expected a path; a record without"]),
    "empty question": ({"conversations": turns("a", "b", "", "d")}, ["message 3 is an empty question"]),
    "too large": ({"image": "huge.png", "conversations": SEEN}, ["huge.png.* 100,000,000 pixels"]),
    "no path": ({"image": ["good.png"], "conversations": SEEN}, ["expected a path"]),
    "images key": ({"images": ["a.png"], "conversations": turns("a", "b")}, ["'images' is .*would not be seen"]),
    "video key": ({"video": "a.mp4", "conversations": turns("<video> a", "b")}, ["'video' is 'a.mp4', which would"]),
    "image_url key": ({"image_url": "http://a/b.png", "conversations": turns("a", "b")}, ["'image_url' is"]),
    "Image key": ({"Image": "a.png", "conversations": turns("a", "b")}, ["'Image' is"]),
    "image in a message": (
        {"conversations": [{"from": "human", "value": "a", "image": "a.png"}, *turns("a", "b")[1:]]},
        ["message 1: 'image' is 'a.png', which would not be seen"],
    ),
    "videos in a message": (
        {"conversations": [*turns("a"), {"from": "gpt", "value": "b", "video_url": ["a.mp4"], "image": None}]},
        ["message 2: 'video_url' is "],
    ),
    "audio next to image": (
        {"image": "good.png", "audio": "a.wav", "conversations": SEEN},
        ["'audio' is 'a.wav', which would not be seen"],
    ),
    "no image": ({"image": None, "conversations": SEEN}, ["'image' is None, expected a path"]),
    "image by number": ({"image": 7, "conversations": SEEN}, ["'image' is 7, expected a path"]),
    "two images": ({"image": ["a.png", "b.png"], "conversations": SEEN}, ["a record has one image"]),
    "null turns": ({"conversations": None}, ["list 'conversations': 'conversations' is None"]),
    "no conversations": ({"text": "a"}, ["list 'conversations': it has no 'conversations'"]),
    "turns as text": ({"conversations": "a"}, ["'conversations' is 'a'"]),
    "null message": ({"conversations": [None, *turns("a", "b")[1:]]}, ["message 1 .*but None"]),
    "null text": (
        {"conversations": [{"from": "human", "value": None}, {"from": None, "value": "b"}]},
        ["message 1 .*: 'value' is None", "message 2 .*: 'from' is None"],
    ),
    "null byte": ({"image": "a\0b", "conversations": SEEN}, [r"'image' is 'a\\x00b', which no path can hold"]),
    "long path": ({"image": "a" * 5000, "conversations": SEEN}, ["too long"]),
    "long text": ({"image": {"a": "b" * 5000}, "conversations": SEEN}, ["'image' is .*bbb[.]{3}, expected a path"]),
    "several": ({"image": "none.jpg", "conversations": turns("a", "", "b")}, ["empty", "no answer", "<image>", "none"]),
}
GOOD = [
    {"id": "one", "image": "good.png", "conversations": SEEN},
    {"id": "two", "image": "good.jpg", "conversations": turns("a <image>", "b", "c", "d")},
    {"id": "three", "conversations": [{"from": "gpt", "value": "Welcome"}, *turns("a", "b")]},
    {"conversations": turns("a", "b")},
]
# What only describes a record, and what is empty, is no fault.
DESCRIBED = [
    {"id": None, "image": "good.png", "image_id": 3, "image_url": "http://a/b.png", "conversations": SEEN},
    {"image_id": "b", "images": [], "video": None, "audio": "", "video_fps": 2.5, "conversations": turns("a", "b")},
    {"images": 0, "media_type": "text", "model": "x", "conversations": turns("<video> is an HTML tag", "b")},
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    noise = Image.effect_noise((64, 48), 80).convert("RGB")
    for name in ("good.png", "good.jpg"):
        noise.save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name.replace("good", "cut")).write_bytes(content[: len(content) * 3 // 4])
    (folder / "text.png").write_text("no picture")
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    return folder


@pytest.fixture
def written(tmp_path):
    def write(records):
        path = tmp_path / "data.json"
        path.write_text(json.dumps(records))
        return str(path)

    return write


def faults_of(path, images, version="v1"):
    with pytest.raises(DataError) as error:
        check_data(path, str(images), template_of(version))
    return str(error.value).splitlines()


@pytest.mark.parametrize("version", ["v1", "llava_llama_2", "llava_v0"])
def test_good_data(written, images, version):
    assert check_data(written(GOOD), str(images), template_of(version)) == 4


def test_fields_that_describe_a_record_are_no_fault(written, images):
    assert check_data(written(DESCRIBED), str(images), template_of("v1")) == 3


@pytest.mark.parametrize("fault", FAULTY)
def test_each_fault(written, images, fault):
    record, patterns = FAULTY[fault]
    if isinstance(record, dict):
        record = {"id": "bad", **record}
    _, *lines = faults_of(written([*GOOD, record]), images)
    assert all(line.startswith("record 4 (id 'bad'): " if record != "text" else "record 4: ") for line in lines)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in lines), pattern
    assert len(lines) >= len(patterns)


def test_texts_and_paths_with_half_of_a_surrogate_pair_are_faults(images):
    """Where the reader of the file lets them pass."""
    for record, fault in (
        ({"conversations": turns("a \ud83d", "b")}, "message 1 holds half of a surrogate pair"),
        ({"image": "\ud83d", "conversations": SEEN}, r"'image' is '\ud83d', which no path can hold"),
    ):
        (found,) = record_faults(record, str(images), template_of("v1"))
        assert found.startswith(fault)
    assert not list(record_faults({"conversations": turns("a \U0001f600", "b")}, None, template_of("v1")))


def test_every_fault_is_reported(written, images):
    records = [*GOOD, *(record for record, _ in FAULTY.values()), *GOOD]
    head, *lines = faults_of(written(records * 3), images)
    expected = sum(len(patterns) for _, patterns in FAULTY.values())
    assert f"{len(lines)} fault(s) in {len(records) * 3} records" in head
    assert len(lines) >= 3 * expected
    named = {int(line.split()[1].strip(":")) for line in lines}
    bad = range(len(GOOD), len(GOOD) + len(FAULTY))
    assert named == {index + len(records) * time for index in bad for time in range(3)}


def test_plain_template(written, images):
    check_data(written(GOOD[:1]), str(images), template_of("plain"))
    lines = "\n".join(faults_of(written(GOOD), images, "plain"))
    assert "record 1 (id 'two'): the plain template takes one question and one answer, this record has 4" in lines
    assert "record 3: the plain template needs <image>" in lines


def test_marks_are_the_templates_own(written, images):
    records = [{"conversations": turns("a [/INST] b", "c ASSISTANT: d")}]
    assert "message 2 holds" in faults_of(written(records), images, "v1")[1]
    assert "message 1 holds" in faults_of(written(records), images, "llava_llama_2")[1]
    check_data(written(records), str(images), template_of("llava_v0"))


ODD = ["", " ", "\n", "a", "</s>", "b ASSISTANT: c", "[/INST] d", "<|im_end|>", "###", "<s>"]


@pytest.mark.parametrize("version", ["v1", "llava_llama_2", "mpt", "qwen_1_5", "llava_v0"])
def test_what_training_would_stop_at_is_a_fault(version, tiny_tokenizer):
    """In any message, short records too, whose tokens are not counted one by one."""
    template, tokenizer = template_of(version), tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.model_max_length = 1000
    stopped = 0
    for odd in ODD:
        for index in range(4):
            messages = turns(*(odd if number == index else f"w{number + 5}" for number in range(4)))
            faults = list(record_faults({"conversations": messages}, None, template))
            try:
                preprocess([messages], tokenizer, False, template)
            except DataError:
                stopped += 1
                assert faults, (odd, index)
    assert stopped > 2 or version == "llava_v0"


def test_good_data_ends_the_program_well(written, images, monkeypatch, caplog):
    flags = ["--check_data_only", "True", "--data_path", written(GOOD), "--image_folder", str(images)]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--version", "v1", "--use_cpu", "True"])
    with caplog.at_level("INFO", logger="llava.train"):
        assert program.main() == 0
    assert "4 records, none with a fault" in caplog.text


def test_bad_data_ends_the_program_with_the_list(written, images, root, tmp_path):
    records = [record for record, _ in FAULTY.values()]
    flags = ["--check_data_only", "True", "--data_path", written(records), "--image_folder", str(images)]
    command = [sys.executable, str(root / "llava" / "train" / "train.py"), *flags, "--use_cpu", "True"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    for index in range(len(records)):
        assert f"record {index}: " in run.stderr
