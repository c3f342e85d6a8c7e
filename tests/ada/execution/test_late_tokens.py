"""Later layers that read fewer image tokens: against a loop without cache, and rows of a batch against each alone."""

import pytest
import torch

from ada.execution.column_masks import masked_columns, sliced_mask
from ada.execution.late_tokens import JoinedLateTokens, Slices
from ada.execution.mixed_batch import mixed_plan_batch
from ada.image_tokens.late_selectors import FastV
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.kv_cache import join_rows, take_row

NEW = 5
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

LAYERS, FIRST = 5, 2  # FastV's first layer that reads fewer
PROMPT = [1, 5, IMAGE_TOKEN_INDEX, 6, 7]
IMAGE = slice(2, 6)  # its columns


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def plain(request, make_plain):
    model = make_plain(LAYERS)
    model.set_attn_implementation(request.param)
    return model


def images_of(count):
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def logits_by_hand(model, embeds, left_out):
    """The last position's logits of one row (1, T, D), whose ``left_out`` columns layers from FIRST on do not read."""
    stays = torch.tensor([column for column in range(embeds.shape[1]) if column not in left_out])
    positions, hidden = torch.arange(embeds.shape[1])[None], embeds
    for index, layer in enumerate(model.model.layers):
        if index == FIRST:
            positions, hidden = positions[:, stays], hidden[:, stays]
        width = hidden.shape[1]
        hidden = layer(
            hidden,
            attention_mask=torch.full((1, 1, width, width), -torch.inf).triu(1),
            position_ids=positions,
            position_embeddings=model.model.rotary_emb(hidden, position_ids=positions),
        )
    return model.lm_head(model.model.norm(hidden[:, -1]))


def attention_of_last(model, embeds):
    """What transformers' eager attention says: the last position's, of the layer before FIRST, mean over heads."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        outputs = model.model(inputs_embeds=embeds, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(before)
    return outputs.attentions[FIRST - 1][0].mean(dim=0)[-1]


@pytest.mark.parametrize("keep", [1, 2, 3])
@torch.no_grad()
def test_generate_late_tokens_equals_a_loop_without_cache(plain, keep):
    ids, pixels = torch.tensor([PROMPT]), images_of(1)
    embeds = plain.embed(ids, images=pixels).embeds
    best = attention_of_last(plain, embeds)[IMAGE].topk(keep).indices.tolist()
    left_out = {IMAGE.start + token for token in range(4) if token not in best}
    expected = []
    for _ in range(NEW):
        expected.append(int(logits_by_hand(plain, embeds, left_out).argmax()))
        embeds = torch.cat([embeds, plain.get_input_embeddings()(torch.tensor([[expected[-1]]]))], dim=1)
    found = plain.generate(ids, images=pixels, image_tokens=f"all/{keep}", token_selector="fastv", **GREEDY)
    assert found[0].tolist() == expected
    alone = plain.generate(ids, images=pixels, image_tokens=keep, token_selector="fastv", **GREEDY)
    assert alone[0].tolist() == expected, "an amount with a late selector alone is of later layers"


@torch.no_grad()
def test_forward_late_tokens_gives_the_same_last_logits_at_the_prompts_width(plain):
    ids, pixels = torch.tensor([PROMPT]), images_of(1)
    embeds = plain.embed(ids, images=pixels).embeds
    best = attention_of_last(plain, embeds)[IMAGE].topk(2).indices.tolist()
    left_out = {IMAGE.start + token for token in range(4) if token not in best}
    outputs = plain(
        ids, images=pixels, image_tokens="all/2", token_selector="fastv", latency_budget=1.0, planner="even"
    )
    assert outputs.logits.shape[1] == embeds.shape[1]
    torch.testing.assert_close(outputs.logits[:, -1], logits_by_hand(plain, embeds, left_out))


@torch.no_grad()
def test_fastv_scores_are_transformers_attention_also_of_padded_rows(plain):
    embeds = torch.randn(2, 7, plain.config.hidden_size, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1] * 7, [0, 0] + [1] * 5])
    seen = {}

    def record(layer, inputs, keywords):
        seen.setdefault("scores", FastV(0).scores(layer, inputs[0], keywords))

    hook = plain.model.layers[1].register_forward_pre_hook(record, with_kwargs=True)
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    try:
        attentions = plain.model(inputs_embeds=embeds, attention_mask=mask, output_attentions=True).attentions
    finally:
        plain.set_attn_implementation(before)
        hook.remove()
    torch.testing.assert_close(seen["scores"], attentions[1].mean(dim=1)[:, -1])


@pytest.mark.parametrize("kind", ["H", "L"])
def test_generate_rows_of_different_late_amounts_and_budgets_answer_as_alone(make_llava, kind):
    model = make_llava(kind)
    tag = IMAGE_TOKEN_INDEX
    words = [[1, tag, 5], [1, 6, 7, 8, tag], [1, tag, 9, tag], [1, 5, 6]]
    amounts, budgets = ["all/1", "75%/50%", "3/2", "all"], [1.0, 0.7, 0.5, 0.8]
    width = max(map(len, words))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in words])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in words])
    pixels = images_of(4)
    others = {"token_selector": "fastv", **GREEDY}
    batch = model.generate(
        ids, images=pixels, attention_mask=mask, image_tokens=amounts, latency_budget=budgets, **others
    )
    first = 0
    for row, amount, budget, found in zip(words, amounts, budgets, batch, strict=True):
        count = row.count(tag)
        own = {"images": pixels[first : first + count]} if count else {}
        first += count
        alone = model.generate(torch.tensor([row]), image_tokens=amount, latency_budget=budget, **own, **others)
        assert found.tolist() == alone[0].tolist()


@pytest.mark.parametrize("kind", ["H", "L"])
def test_generate_late_tokens_with_beams_runs_as_with_the_masked_plan(make_llava, kind):
    model = make_llava(kind)
    settings = {**GREEDY, "num_beams": 3, "image_tokens": "all/2", "token_selector": "fastv", "latency_budget": 0.7}
    ids, pixels = torch.tensor([PROMPT]), images_of(1)
    once = model.generate(ids, images=pixels, **settings)
    twice = model.generate(ids.repeat(2, 1), images=pixels.repeat(2, 1, 1, 1), **settings)
    assert twice.tolist() == once.tolist() * 2


def test_report_states_the_image_tokens(make_llava):
    model = make_llava("H")
    output = model.generate(
        torch.tensor([PROMPT]),
        images=images_of(1),
        image_tokens="75%/2",
        token_selector="salient/fastv",
        latency_budget=0.7,
        return_dict_in_generate=True,
        **GREEDY,
    )
    assert output.report.to_json()["image_tokens"] == {"all": 4, "kept": 3, "late": 2}
    assert "image tokens 3/4, 2 in later layers" in output.report.summary()
    assert output.report.prompt_tokens == len(PROMPT) - 1 + 3 + 1  # and the latency token


def test_generate_learned_without_a_scorer_is_refused(make_llava):
    with pytest.raises(OptionError, match="'learned', and this checkpoint has no token scorer"):
        make_llava("H").generate(
            torch.tensor([PROMPT]), images=images_of(1), image_tokens="all/2", token_selector="learned", **GREEDY
        )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["H", "L"])
def test_rows_with_late_tokens_decode_in_a_joined_batch_as_alone(make_llava, kind):
    model = make_llava(kind)
    prompts = [[1, IMAGE_TOKEN_INDEX, 5], PROMPT, [1, 6, 7]]
    amounts, budgets = ["all/1", "all/3", None], [0.7, 1.0, 0.6]
    pixels = [images_of(1), images_of(1), None]

    def ask(row, new):
        settings = {**GREEDY, "max_new_tokens": new, "return_dict_in_generate": True, "output_logits": True}
        settings |= {"image_tokens": amounts[row], "token_selector": "fastv", "latency_budget": budgets[row]}
        settings["engine"] = "transformers"  # whose cache goes on by hand
        return model.generate(torch.tensor([prompts[row]]), images=pixels[row], **settings)

    outputs = [ask(row, 1) for row in range(3)]
    lengths = [output.past_key_values.get_seq_length() for output in outputs]
    late = JoinedLateTokens([output.late_tokens for output in outputs], lengths)
    batch = mixed_plan_batch(model, [output.execution_plan for output in outputs], late)
    rows = []
    for output, length in zip(outputs, lengths, strict=True):
        own = mixed_plan_batch(model, [output.execution_plan]).heads
        rows.append(take_row(output.past_key_values, 0, length, own, own))
    cache = join_rows(rows, batch.heads, model.config.num_key_value_heads)
    width = max(lengths) + 1
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None] - 1
    step = model(
        input_ids=torch.tensor([output.sequences[0, -1:].tolist() for output in outputs]),
        attention_mask=mask.long(),
        position_ids=torch.tensor(lengths)[:, None],
        past_key_values=cache,
        **batch.forward_kwargs,
    )
    for row in range(3):
        alone = ask(row, 2).logits[1]
        torch.testing.assert_close(step.logits[row], alone)


@pytest.mark.parametrize("budgets", [[0.9, 0.6], None])
@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_forward_fastv_loss_of_padded_rows_with_answers_is_that_of_each_alone(make_llava, budgets, side):
    model, pixels, ignored = make_llava("H"), images_of(2), -100
    words = [[1, 5, IMAGE_TOKEN_INDEX, 6, 7, 11, 12], [1, IMAGE_TOKEN_INDEX, 8, 9]]
    labels, amounts, width = [[ignored] * 5 + [11, 12], [ignored] * 3 + [9]], ["all/1", "75%/2"], len(words[0])

    def padded(rows, value):
        fillers = [[value] * (width - len(row)) for row in rows]
        pairs = zip(rows, fillers, strict=True)
        return torch.tensor([row + filler if side == "right" else filler + row for row, filler in pairs])

    def loss(ids, rows, mask, targets):
        given = {} if budgets is None else {"latency_budget": budgets[rows]}
        others = {"image_tokens": amounts[rows], "token_selector": "fastv", **given}
        return model(ids, images=pixels[rows], attention_mask=mask, labels=targets, **others).loss

    mask = padded([[1] * len(row) for row in words], 0)
    found = loss(padded(words, 0), slice(0, 2), mask, padded(labels, ignored))
    alone = [loss(torch.tensor([words[row]]), slice(row, row + 1), None, torch.tensor([labels[row]])) for row in (0, 1)]
    torch.testing.assert_close(found, (2 * alone[0] + alone[1]) / 3)  # two answer tokens, and one


@torch.no_grad()
def test_forward_fastv_does_not_look_at_the_answer(plain):
    settings = {"images": images_of(1), "image_tokens": "all/1", "token_selector": "fastv"}
    prompt_end = len(PROMPT) + 2  # its last position, among 4 image tokens
    expected = plain(torch.tensor([PROMPT]), **settings).logits[:, prompt_end]
    for word in range(8, 40):
        ids, labels = torch.tensor([[*PROMPT, word]]), torch.tensor([[-100] * len(PROMPT) + [word]])
        found = plain(ids, labels=labels, **settings).logits[:, prompt_end]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stays", [[[1, 0, 1], [1, 0, 1]], [[1, 1, 1], [0, 0, 1]]], ids=["even", "ragged"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_what_stays_follows_layers_to_other_devices(plain, stays, kind):
    """Tokens were chosen on the first device; the meta device stands for the next one."""
    slices, layer = Slices.of(torch.tensor(stays).bool()), plain.model.layers[0]
    width = slices.columns.shape[1]
    there, here = torch.empty(2, 3, 8, device="meta"), torch.empty(2, 3, 8)
    mask = torch.ones(2, 1, 3, 3, device="meta").to(kind)
    found = [slices.take(there), slices.put(there[:, :width], here), slices.widened(there[:, None, :width])]
    found += [sliced_mask(layer, mask, slices, here), masked_columns(layer, mask, slices.stays, here, 3)]
    found += [masked_columns(layer, None, slices.stays, there, 3)]
    assert {states.device.type for states in found} == {"meta"}
    if slices.ragged:
        assert sliced_mask(layer, None, slices, there).is_meta
