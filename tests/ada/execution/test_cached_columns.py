"""Caches of layers that read fewer columns: sliding windows against a loop without cache; others are refused."""

import pytest
import torch

from ada.image_tokens import late_selectors
from ada.model.families import make_adaptive
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model import LlavaMistralForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralConfig

NEW, FIRST = 6, 2
PROMPT = [1, 5, IMAGE_TOKEN_INDEX, 6, 7]
LEFT_OUT = (2, 4, 5)  # columns: the image's are 2 to 5
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}


class KeepsSecond:
    """Gives each image's second token the highest score."""

    reads = FIRST

    def scores(self, layer, hidden, keywords):
        return (torch.arange(hidden.shape[1]) == 3).float().expand(len(hidden), -1)


def sliding(tower_folder, window, attention):
    torch.manual_seed(1)
    config = LlavaMistralConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        sliding_window=window,
        mm_vision_tower=str(tower_folder),
        mm_hidden_size=24,
        mm_projector_type="linear",
        mm_vision_select_layer=-2,
        attn_implementation=attention,
    )
    model = LlavaMistralForCausalLM(config).eval()
    model.get_vision_tower().load_model()
    model.generation_config.eos_token_id = None
    make_adaptive(model)
    return model


def next_by_hand(model, embeds, window):
    """The next token of a row (1, T, D): layers from FIRST on do not read LEFT_OUT; each sees ``window`` columns."""
    columns, hidden = torch.arange(embeds.shape[1]), embeds
    for index, layer in enumerate(model.model.layers):
        if index == FIRST:
            stays = torch.tensor([column for column in columns.tolist() if column not in LEFT_OUT])
            columns, hidden = columns[stays], hidden[:, stays]
        back = columns[:, None] - columns[None]
        mask = torch.zeros(back.shape).masked_fill((back < 0) | (back >= window), -torch.inf)
        turns = model.model.rotary_emb(hidden, position_ids=columns[None])
        hidden = layer(hidden, attention_mask=mask[None, None], position_ids=columns[None], position_embeddings=turns)
    return int(model.lm_head(model.model.norm(hidden[:, -1])).argmax())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [2, 4, 6, 8, 9, 11, 64])  # the prompt has 8 positions, with its answer 13
@torch.no_grad()
def test_generate_late_tokens_under_a_sliding_window_equals_a_loop_without_cache(
    tower_folder, pixels, monkeypatch, window, attention
):
    model = sliding(tower_folder, window, attention)
    ids = torch.tensor([PROMPT])
    side = model.get_vision_tower().config.image_size
    pixels = pixels[:1, :, :side, :side]
    embeds, expected = model.embed(ids, images=pixels).embeds, []
    for _ in range(NEW):
        expected.append(next_by_hand(model, embeds, window))
        embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor([[expected[-1]]]))], dim=1)
    monkeypatch.setattr(late_selectors, "FastV", lambda reads, asks: KeepsSecond())
    settings = {"images": pixels, "image_tokens": "all/1", "token_selector": "fastv", **GREEDY}
    assert model.generate(ids, **settings)[0].tolist() == expected
    both = {**settings, "images": pixels.repeat(2, 1, 1, 1)}
    rows = model.generate(torch.tensor([PROMPT, [*PROMPT[:3], 9, 8]]), **both)
    assert rows[0].tolist() == expected


def test_generate_late_tokens_with_a_static_cache_is_refused(make_llava, pixels):
    model = make_llava("H")
    settings = {"images": pixels[:1], "token_selector": "fastv", "cache_implementation": "static", **GREEDY}
    with pytest.raises(OptionError, match=r"layers of StaticLayer.*leave cache_implementation out"):
        model.generate(torch.tensor([PROMPT]), image_tokens="all/2", latency_budget=0.7, **settings)
