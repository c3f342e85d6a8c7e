"""Where the image tokens are that an answer has read, against the selectors' own choice and FastV's mask."""

import pytest
import torch

from ada import overlay
from ada.image_tokens.kept import kept_indices
from ada.image_tokens.selectors import SELECTORS, Candidates
from llava.constants import IMAGE_TOKEN_INDEX as TAG

SIDE = 2
GREEDY = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
CELLS = [[row, column] for row in range(SIDE) for column in range(SIDE)]


def described(model, words, pixels, **options):
    output = model.generate(torch.tensor([words]), images=pixels, **GREEDY, **options)
    return output, overlay.describe_generation(model=model, output=output, timing={"time_to_first_token_ms": 1.0})


@pytest.mark.parametrize("words", [[1, TAG, 5], [TAG, 6], [1, 5, TAG, TAG, 7], [TAG, 4, TAG]])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_kept_cells_are_those_that_the_selector_chose_of_each_image(make_llava, pixels, words, keep) -> None:
    model, count = make_llava("H"), words.count(TAG)
    _, metadata = described(model, words, pixels[:count], image_tokens=keep, token_selector="divprune")
    with torch.no_grad():
        features = model.encode_images(pixels[:count])
    chosen = [SELECTORS["divprune"](Candidates(image, torch.tensor(CELLS)), keep).tolist() for image in features]
    found = metadata["image_tokens"]
    assert found["kept_cells"] == [[CELLS[index] for index in own] for own in chosen] == found["late_cells"]
    assert found["grid"] == [[SIDE, SIDE]] * count and found["kept"] == keep * count


def test_kept_cells_of_later_layers_are_those_that_their_mask_leaves(make_llava, pixels) -> None:
    model, words = make_llava("H"), [1, TAG, 5, 6]
    output, metadata = described(model, words, pixels[:1], image_tokens="3/1", token_selector="grid/fastv")
    found = metadata["image_tokens"]
    assert len(found["kept_cells"][0]) == 3 and len(found["late_cells"][0]) == 1
    masked = output.late_tokens.stays[0, 1:4].tolist()  # the columns of the image's three tokens
    assert found["late_cells"][0] == [found["kept_cells"][0][masked.index(True)]]


@pytest.mark.parametrize("words", [[1, TAG, 5], [1, 5]])
def test_kept_cells_are_not_said_where_nothing_is_left_out(make_llava, pixels, words) -> None:
    images = pixels[: words.count(TAG)] if TAG in words else None
    _, metadata = described(make_llava("H"), words, images, image_tokens="all", latency_budget=0.7)
    assert set(metadata["image_tokens"]) == {"all", "kept", "late"}


def test_kept_indices_of_rows_in_a_padded_batch_are_those_of_each_alone(make_llava, pixels) -> None:
    model, rows = make_llava("H"), [[1, 5, 6, TAG, 7], [TAG, 8]]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    settings = {"image_tokens": [1, 3], "token_selector": "salient", **GREEDY}
    both = model.generate(ids, attention_mask=mask, images=pixels[:2], **settings).kept_indices
    for row, words in enumerate(rows):
        alone = {**settings, "image_tokens": settings["image_tokens"][row]}
        output = model.generate(torch.tensor([words]), images=pixels[row : row + 1], **alone)
        assert output.kept_indices == [both[row]] and len(both[row][0]) == settings["image_tokens"][row]


def test_kept_cells_of_a_second_image_are_those_of_the_first_where_both_are_alike(make_llava, pixels) -> None:
    """PruMerge gives an image one position more, that of the token for the rest."""
    same = torch.cat([pixels[:1], pixels[:1]])
    output, _ = described(make_llava("H"), [1, TAG, 5, TAG], same, token_selector="prumerge")
    first, second = output.kept_indices[0]
    assert first == second and first


def test_kept_indices_without_gaps_are_all(make_llava, pixels) -> None:
    batch = make_llava("H").embed(torch.tensor([[1, TAG, 5]]), images=pixels[:1])
    assert kept_indices(batch, [[4]]) == [[[0, 1, 2, 3]]]


def test_kept_cells_of_four_crops_are_not_those_of_a_square(make_llava, pixels) -> None:
    """Four crops of 2 x 2 patches: 16 tokens, of which the first four are those of the small full image."""
    model = make_llava("H", image_aspect_ratio="anyres", image_grid_pinpoints=[[28, 84], [84, 28]])
    given = {"images": [pixels, pixels[0]], "image_sizes": [(80, 20), (28, 28)]}
    output = model.generate(torch.tensor([[1, TAG, 5, TAG]]), **given, image_tokens="50%", **GREEDY)
    metadata = overlay.describe_generation(model=model, output=output, timing={"time_to_first_token_ms": 1.0})
    found = metadata["image_tokens"]
    assert output.report.image_tokens.all == (16, 4) and output.report.image_tokens.front == (8, 2)
    assert found["grid"] == [None, [SIDE, SIDE]]
    assert found["kept_cells"][0] == [] and len(found["kept_cells"][1]) == 2


@pytest.mark.parametrize(("aspect", "fit"), [("pad", "pad"), (None, "crop"), ("square", "crop")])
def test_kept_cells_say_how_the_image_becomes_a_square(make_llava, pixels, monkeypatch, aspect, fit) -> None:
    model = make_llava("H")
    monkeypatch.setattr(model.config, "image_aspect_ratio", aspect, raising=False)
    _, metadata = described(model, [1, TAG, 5], pixels[:1], image_tokens=1)
    assert metadata["image_tokens"]["fit"] == fit
