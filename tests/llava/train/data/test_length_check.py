"""The check of lengths, against the samples that training makes, and on the runs that used to learn nothing."""

import json
import logging

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.errors import DataError, OptionError
from llava.files.images import load_image
from llava.train.data.length_check import ImageTags, LengthCheck
from llava.train.data.preprocessing import preprocess
from llava.train.data.sample_length import count_labels, starts_of

V1 = conv_templates["v1"]


def record(question, answer, image=None, **more):
    """A conversation of so many words a message."""
    tag = "<image>\n" if image else ""
    turns = [("human", f"{tag}{' '.join(['w9'] * question)}"), ("gpt", " ".join(["w7"] * answer))]
    found = {"conversations": [{"from": role, "value": text} for role, text in turns], **more}
    return {**found, "image": image} if image else found


@pytest.fixture(scope="session")
def uncut(tiny_tokenizer):
    """The tiny tokenizer, which cuts nothing."""
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 1 << 40
    return tokenizer


def checked(uncut, records, limit, image=4):
    check = LengthCheck(uncut, V1, limit, ImageTags(True), lambda size: image)
    for number, one in enumerate(records):
        check.add(one, str(number), None)
    return check


@pytest.mark.parametrize(("image", "limit"), [(576, 512), (36, 48), (2880, 2048)])
def test_report_of_images_that_leave_nothing_raises_with_the_limit_that_would_do(uncut, image, limit):
    """LLaVA-1.5's image under the default limit; the bundled one's under 48; LLaVA-1.6's under 2048."""
    check = checked(uncut, [record(3, 5, "a.png"), record(20, 2, "b.png")], limit, image)
    with pytest.raises(
        DataError, match=rf"nothing would be trained: all 2 records .*--model_max_length {limit}"
    ) as error:
        check.report()
    assert f"--model_max_length {check.longest} holds" in str(error.value)
    checked(uncut, [record(3, 5, "a.png"), record(20, 2, "b.png")], check.longest, image).report()


def test_report_of_cut_records_warns_with_their_names_and_numbers(uncut, caplog):
    records = [record(2, 3), record(2, 30), record(2, 3, "a.png"), record(200, 3), record(2, 40, "b.png")]
    fits = int(starts_of(*sample_of(uncut, records[2], [4]))[-1])
    check = checked(uncut, records, fits)
    with caplog.at_level(logging.WARNING, logger="llava.train"):
        check.report()
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "3 of 5 records are longer" in line and "(record 1, 3, 4)" in line
    assert "Nothing is trained of 1 (record 3)" in line
    # 31 + 4 + 41 trained tokens, of which those before the limit are kept.
    kept = sum(count_labels(cut_labels(uncut, records[number], fits)) for number in (1, 3, 4))
    assert f"{76 - kept} of their answers' 76 tokens" in line


def sample_of(uncut, one, images):
    made = preprocess([one["conversations"]], uncut, "image" in one, V1)
    return made["input_ids"][0], images if "image" in one else []


def cut_labels(uncut, one, limit):
    """Position by position."""
    made = preprocess([one["conversations"]], uncut, "image" in one, V1)
    spread = []
    for token, label in zip(made["input_ids"][0], made["labels"][0], strict=True):
        spread += [label] * (4 if token < 0 else 1)
    return made["labels"][0].new_tensor(spread[:limit])


def test_report_of_records_that_fit_says_nothing(uncut, caplog):
    check = checked(uncut, [record(2, 3), record(2, 3, "a.png")], 512)
    check.report()
    assert not caplog.records and not check.cut


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_add_reads_the_size_that_training_turns_an_image_to(uncut, tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (64, 16)).save(tmp_path / "a.jpg", exif=exif)
    seen = []
    check = LengthCheck(uncut, V1, 9, ImageTags(True), lambda size: seen.append(size) or 4, True, turn)
    check.add(record(2, 3, "a.jpg"), "0", str(tmp_path))
    assert seen == [load_image(str(tmp_path / "a.jpg"), turn_by_exif=turn).size]


@pytest.mark.parametrize("aspect", [(64, 16), (16, 16), (16, 64)])
def test_add_reads_an_images_size_from_its_file_where_it_matters(uncut, tmp_path, aspect):
    Image.new("RGB", aspect).save(tmp_path / "a.png")
    seen = []

    def positions(size):
        seen.append(size)
        return size[0] * size[1]

    check = LengthCheck(uncut, V1, 100, ImageTags(True), positions, needs_sizes=True)
    check.add(record(2, 3, "a.png"), "0", str(tmp_path))
    assert seen == [aspect] and len(check.cut) == 1


def test_training_on_images_without_a_vision_tower_is_refused_before_the_model_is_read(trained, plain_base, tmp_path):
    with pytest.raises(
        OptionError, match=r"record 1 \(id 'r1'\) has an image, .* --vision_tower is not given; name one"
    ):
        trained(tmp_path / "out", model_name_or_path=plain_base)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def data(tmp_path, toy_data):
    """``data(*records)``: a training file."""

    def write(*records):
        path = tmp_path / "data.json"
        path.write_text(json.dumps(records))
        return path

    return write


@pytest.mark.parametrize("flags", [{"model_max_length": 8}, {"model_max_length": 8, "mm_use_im_start_end": True}])
def test_training_that_would_learn_nothing_is_refused_before_the_model_is_read(trained, tmp_path, flags):
    with pytest.raises(DataError, match=r"nothing would be trained: all 12 records .*--model_max_length 8"):
        trained(tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", ["v1", "plain"])
def test_training_that_learns_nothing_unchecked_ends_with_an_error_and_saves_no_model(trained, tmp_path, version):
    flags = {"model_max_length": 5, "check_data": False, "version": version}
    if version == "plain":
        flags |= {"tune_mm_mlp_adapter": True, "data": "captions.json", "model_max_length": 4}
    with pytest.raises(DataError, match=r"nothing was trained: 2 step\(s\) had no token of an answer"):
        trained(tmp_path / "out", **flags)
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list((tmp_path / "out").glob("mm_projector*"))


def test_training_warns_of_cut_records_and_goes_on(trained, data, caplog, tmp_path):
    path = data(record(2, 3, "1.png", id="fits"), record(2, 60, "1.png", id="cut"), record(90, 2, "1.png", id="none"))
    flags = {"data_path": path, "per_device_train_batch_size": 1, "max_steps": 3, "save_strategy": "no"}
    with caplog.at_level(logging.WARNING, logger="llava.train"):
        out = trained(tmp_path / "out", **flags)
    said = [entry.getMessage() for entry in caplog.records if "--model_max_length" in entry.getMessage()]
    assert "2 of 3 records are longer" in said[0] and "1 (id 'cut'), 2 (id 'none')" in said[0]
    assert "Nothing is trained of 1 (record 2 (id 'none'))" in said[0]
    assert any("has no trained token" in line for line in said)
    state = json.loads((out / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 3 and sorted(loss > 0 for loss in losses) == [False, True, True]


def test_check_of_data_alone_counts_lengths_where_a_model_is_named(flags_of, caplog, tmp_path):
    from llava.train.train import train

    with pytest.raises(DataError, match="nothing would be trained"):
        train(flags=flags_of(tmp_path, check_data_only=True, model_max_length=8))
    with caplog.at_level(logging.WARNING, logger="llava.train"):
        train(flags=flags_of(tmp_path, check_data_only=True, model_max_length=8, model_name_or_path=""))
    assert "lengths are not checked" in caplog.text


@pytest.mark.parametrize(("limit", "warned"), [(256, False), (257, True), (2048, True)])
def test_limit_beyond_the_models_context_is_a_warning(flags_of, caplog, tmp_path, limit, warned):
    """The tiny LLaVA has 256 positions."""
    from llava.train.train import train

    with caplog.at_level(logging.WARNING, logger="llava.train"):
        train(flags=flags_of(tmp_path, check_data_only=True, model_max_length=limit))
    assert (f"--model_max_length {limit} is more than the 256 positions" in caplog.text) is warned


CROPS = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[[16,32],[32,32]]"}


@pytest.mark.parametrize(
    ("changes", "merge", "expected"),
    [({}, "flat", [4, 4, 4]), (CROPS, "flat", [12, 20, 12]), (CROPS, "spatial_unpad", [10, 14, 8])],
)
def test_positions_counted_before_the_model_is_read_are_the_models(
    flags_of, make_checkpoint, tmp_path, changes, merge, expected
):
    from llava.train.preflight import image_counter
    from llava.train.train import make_trainer, parse_arguments

    base = make_checkpoint(mm_patch_merge_type=merge)
    arguments = parse_arguments(flags_of(tmp_path, model_name_or_path=base, mm_patch_merge_type=merge, **changes))
    counter, model = image_counter(arguments), make_trainer(arguments).model
    for size, positions in zip(((16, 16), (40, 10), (9, 50)), expected, strict=True):
        assert counter.max_image_tokens(size) == model.max_image_tokens(size) == positions
    assert counter.needs_sizes is bool(changes)
