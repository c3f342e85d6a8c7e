"""``generate`` and ``forward`` under budgets that image tokens and units share: auto, explicit amounts, batches."""

from dataclasses import replace

import pytest
import torch
from fixtures.known_device import PROFILE

from ada.budget import LatencyBudget, TimeBudget
from ada.frontier import store
from ada.frontier.choice import AutoImageTokens, Prompt, candidate_amounts
from ada.frontier.defaults import TRAINED, UNTRAINED
from ada.frontier.share import PrefillShare, PromptTokens
from ada.image_tokens.amount import ImageTokens
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.families import make_adaptive
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, OptionError
from llava.model import LlavaLlamaForCausalLM

TAG = IMAGE_TOKEN_INDEX
GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
WORDS = [
    [1, TAG, 5],
    [1, 6, 7, 8, TAG],
    [1, TAG, 9, TAG],
    [1, 5, 6],
    [1, TAG, 5, 6, 7, 8, 9],
    [1, 4, TAG],
    [1, TAG, 8],
    [1, TAG, TAG, 7],
]
BUDGETS = [1.0, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


@pytest.fixture
def model(make_llava):
    return make_llava("H")


@pytest.fixture
def trained(model, monkeypatch):
    """The model, as if it had been trained with --image_token_dropout."""
    monkeypatch.setattr(model.config, "image_token_dropout", 0.25, raising=False)
    return model


@pytest.fixture
def plain_adaptive(make_config, tower_folder):
    """A plain LLaVA made adaptive: no scheduler, so no latency token."""
    torch.manual_seed(1)
    model = LlavaLlamaForCausalLM(make_config(mm_vision_tower=str(tower_folder), num_hidden_layers=3)).eval()
    model.get_vision_tower().load_model()
    make_adaptive(model)
    return model


def prompt_of(words):
    """A row's prompt: 4 tokens an image, and the latency token."""
    images = words.count(TAG)
    return Prompt(len(words) - images + 1, (4,) * images, images)


def chosen_amount(model, words, budget, frontier=UNTRAINED, minimum=None, predictor=None):
    share = PrefillShare.of(model.config, model.units)
    auto = AutoImageTokens(frontier, share, candidate_amounts(False, minimum), predictor)
    return auto.amount(prompt_of(words), budget)


def ask(model, words, pixels, **options):
    count = words.count(TAG)
    return model.generate(torch.tensor([words]), images=pixels[:count] if count else None, **GREEDY, **options)


@pytest.mark.parametrize("amount", ["all", "50%", "75%/25%", 1])
@pytest.mark.parametrize("budget", [0.9, 0.6, 0.4])
def test_generate_grants_units_by_the_share_of_what_is_read(model, pixels, amount, budget) -> None:
    first_late_layer = 2 if amount == "75%/25%" else None  # FastV's
    share = PrefillShare.of(model.config, model.units, first_late_layer)
    tokens = PromptTokens.under(ImageTokens.parse(amount), 3, [4])
    output = ask(model, [1, TAG, 5], pixels, image_tokens=amount, latency_budget=budget)
    assert output.report.granted == model.units.fraction(share.granted(budget, tokens))
    if amount == "all":
        assert output.report.granted == model.units.fraction(model.units.granted(budget))


def test_fewer_image_tokens_pay_for_more_units(model, pixels) -> None:
    granted = [ask(model, WORDS[1], pixels, image_tokens=n, latency_budget=0.7).report.granted for n in (4, 2, 1)]
    assert granted == sorted(granted) and len(set(granted)) > 1


@pytest.mark.parametrize("budget", BUDGETS)
def test_generate_auto_reads_what_the_frontier_chooses(model, pixels, budget) -> None:
    amount = chosen_amount(model, WORDS[4], LatencyBudget(budget))
    found = ask(model, WORDS[4], pixels, image_tokens="auto", latency_budget=budget)
    expected = ask(model, WORDS[4], pixels, image_tokens=amount, latency_budget=budget)
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert (found.report.image_tokens, found.report.granted) == (expected.report.image_tokens, expected.report.granted)


def test_generate_auto_of_eight_budgets_answers_each_row_as_alone(trained, pixels) -> None:
    width = max(map(len, WORDS))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in WORDS])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in WORDS])
    images = pixels[torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])]
    batch = trained.generate(ids, images=images, attention_mask=mask, latency_budget=BUDGETS, **GREEDY)
    first, read = 0, set()
    for number, (words, budget) in enumerate(zip(WORDS, BUDGETS, strict=True)):
        count = words.count(TAG)
        alone = ask(trained, words, images[first : first + count], latency_budget=budget)
        first += count
        report = batch.report[number]
        assert batch.sequences[number].tolist() == alone.sequences[0].tolist()
        assert (report.granted, report.image_tokens) == (alone.report.granted, alone.report.image_tokens)
        read.add((report.image_tokens.front, report.granted))
    assert len(read) >= 6, "budgets differ in what they choose, or nothing is compared"


def test_forward_auto_reads_what_generate_does(trained, pixels) -> None:
    ids = torch.tensor([WORDS[4]])
    for budget in (0.5, 0.3):
        report = trained(ids, images=pixels[:1], latency_budget=budget).report
        expected = ask(trained, WORDS[4], pixels, latency_budget=budget).report
        assert (report.image_tokens, report.granted) == (expected.image_tokens, expected.granted)
        assert sum(report.image_tokens.front) < 4


def test_default_is_auto_under_a_budget_of_a_checkpoint_trained_for_it(trained, pixels) -> None:
    for budget in (0.5, 0.3):
        expected = chosen_amount(trained, WORDS[4], LatencyBudget(budget), TRAINED, 0.25).front.of(4)
        assert ask(trained, WORDS[4], pixels, latency_budget=budget).report.image_tokens.front == (expected,)
    assert ask(trained, WORDS[4], pixels).report.image_tokens.front == (4,), "all without a budget"
    kept = ask(trained, WORDS[4], pixels, latency_budget=0.3, image_tokens="all")
    assert kept.report.image_tokens.front == (4,), "and where it is asked for"


def test_default_is_all_of_a_checkpoint_that_was_not_trained_for_fewer(model, pixels) -> None:
    assert ask(model, WORDS[4], pixels, latency_budget=0.3).report.image_tokens.front == (4,)


def test_text_alone_is_not_changed_by_auto(trained, pixels) -> None:
    found = ask(trained, [1, 5, 6], pixels, latency_budget=0.6)
    expected = ask(trained, [1, 5, 6], pixels, latency_budget=0.6, image_tokens="all")
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert found.report.granted == trained.units.fraction(trained.units.granted(0.6))


@pytest.mark.parametrize("ms", [75.0, 60.0, 50.0, 45.0, 35.0])
def test_generate_auto_under_a_time_goes_by_the_device(model, pixels, ms) -> None:
    predictor = TTFTPredictor(PROFILE, model.units).fixed()
    output = ask(model, WORDS[4], pixels, image_tokens="auto", latency_budget=TimeBudget(ms), ttft_predictor=predictor)
    expected = chosen_amount(model, WORDS[4], TimeBudget(ms), predictor=predictor)
    assert output.report.image_tokens.front == (expected.front.of(4),)


def test_auto_with_a_frontier_of_other_weights_is_refused(model, pixels, monkeypatch, tmp_path) -> None:
    model_folder = tmp_path / "model"
    model.save_pretrained(model_folder)
    monkeypatch.setattr(model.config, "_name_or_path", str(model_folder))
    path = store.save_frontier(model_folder, UNTRAINED.points, {})
    assert ask(model, WORDS[0], pixels, image_tokens="auto", latency_budget=0.5).report.budget_met is not None
    path.write_text(path.read_text().replace('"checkpoint": "', '"checkpoint": "0'))
    with pytest.raises(CheckpointError, match=r"frontier\.json was measured with other weights.*measure again"):
        ask(model, WORDS[0], pixels, image_tokens="auto", latency_budget=0.5)
    assert ask(model, WORDS[0], pixels, latency_budget=0.5).report.granted, "nothing else reads it"


def test_strict_share_is_refused_with_the_minimum_of_what_is_read(model, pixels) -> None:
    share, tokens = PrefillShare.of(model.config, model.units), PromptTokens.with_images(3, 4, 1, 1)
    minimum, options = share.minimum(tokens), {"image_tokens": 1, "strict_latency_budget": True}
    assert minimum < model.units.fraction(0)
    ask(model, [1, TAG, 5], pixels, latency_budget=minimum, **options)
    with pytest.raises(OptionError, match=f"4 of its 7 positions; the minimum reachable budget is {minimum:g}"):
        ask(model, [1, TAG, 5], pixels, latency_budget=minimum - 0.001, **options)


@pytest.mark.parametrize("amount", ["all", "50%", "75%/25%", 1])
@pytest.mark.parametrize("budget", [0.9, 0.6, 0.3])
def test_report_states_the_share_that_its_operations_take(make_llava, pixels, amount, budget) -> None:
    """A plan of layers: operations of the decoder's layers over those of all layers and tokens."""
    model = make_llava("L")
    report = ask(model, WORDS[4], pixels, image_tokens=amount, latency_budget=budget).report
    full = ask(model, WORDS[4], pixels, image_tokens="all", latency_budget=1.0).report
    ran, every = (one.prefill_flops["prefix"] + one.prefill_flops["tunable"] for one in (report, full))
    assert report.prefill_share == pytest.approx(ran / every, rel=1e-3)
    assert report.budget_met == (report.prefill_share <= budget)
    assert ("share" in report.summary()) == (amount != "all")
    assert full.prefill_share == 1.0


def test_report_on_a_row_asked_alone_predicts_the_time_of_what_is_read(model, pixels) -> None:
    from ada.overlay import describe_row

    predictor = TTFTPredictor(PROFILE, model.units).fixed()
    options = {"latency_budget": 0.5, "ttft_predictor": predictor, "image_tokens": "50%"}
    alone = ask(model, WORDS[4], pixels, **options)
    ids = torch.tensor([[0] * 3 + WORDS[4][:3], WORDS[4][:6]])
    mask = torch.tensor([[0] * 3 + [1] * 3, [1] * 6])
    batch = model.generate(ids, images=pixels[[0, 0]], attention_mask=mask, **GREEDY, **options)
    single = ask(model, WORDS[4][:3], pixels, **options)
    described = describe_row(model=model, output=batch, row=0)
    assert described["ttft_p95_ms"] == pytest.approx(single.report.ttft_p95_ms)
    assert described["prefill_share"] == single.report.prefill_share
    ran = Workload(9, model.units.tunable_of(alone.report.granted), 1, None, 1)  # 6 words, a token, half of 4
    assert alone.report.ttft_p95_ms == pytest.approx(predictor.first_token_ms(ran))


def test_forward_of_a_row_that_is_all_answer_has_a_share(make_llava, plain_adaptive) -> None:
    """No label is ignored, so there is no question before the answer."""
    for model in (make_llava("L"), plain_adaptive):
        ids = torch.tensor([[1, 5, 6]])
        report = model(ids, labels=ids, latency_budget=0.7, planner="even").report
        assert report.granted == model.units.fraction(model.units.granted(0.7))
        assert report.prefill_share == report.granted


def test_generate_auto_with_a_scorer_chooses_what_later_layers_read(make_llava, pixels) -> None:
    model, reads = make_llava("H", token_scorer_layer=2, image_token_dropout=0.25), set()
    share = PrefillShare.of(model.config, model.units, 2)
    auto = AutoImageTokens(TRAINED, share, candidate_amounts(True, 0.25))
    for budget in (0.95, 0.85, 0.75, 0.65, 0.5, 0.4, 0.3):
        amount = auto.amount(prompt_of(WORDS[0]), LatencyBudget(budget))
        tokens = PromptTokens.under(amount, 3, [4])
        report = ask(model, WORDS[0], pixels, latency_budget=budget).report
        assert (3 + sum(report.image_tokens.front), 3 + sum(report.image_tokens.late)) == (tokens.front, tokens.late)
        assert report.granted == model.units.fraction(share.granted(budget, tokens))
        reads.add((tokens.front, tokens.late))
    assert any(late < front for front, late in reads) and len(reads) > 2


def test_generate_auto_with_a_late_selector_alone_lets_all_tokens_enter(make_llava, pixels) -> None:
    model, reads = make_llava("H", image_token_dropout=0.25), []
    for budget in (0.8, 0.6, 0.45):
        report = ask(model, WORDS[0], pixels, latency_budget=budget, token_selector="fastv").report
        reads.append((sum(report.image_tokens.front), sum(report.image_tokens.late)))
    assert {front for front, _ in reads} == {4} and min(late for _, late in reads) < 4


@pytest.mark.parametrize("budget", [1.0, 0.8, 0.65])
def test_without_a_planner_image_tokens_alone_pay_for_a_budget(plain_adaptive, pixels, budget) -> None:
    """The most tokens whose share fits, as every layer runs: 4 words, and 4, 3, 2 or 1 of an image's tokens."""
    model, words = plain_adaptive, [1, TAG, 5, 6, 7]
    share = PrefillShare.of(model.config, model.units)
    taken = {kept: share.of_prefill(PromptTokens(8, 4 + kept, 4 + kept), model.units.tunable) for kept in (4, 3, 2, 1)}
    report = ask(model, words, pixels, image_tokens="auto", latency_budget=budget).report
    expected = max(kept for kept, own in taken.items() if own <= budget)
    assert (report.image_tokens.front, report.granted, report.budget_met) == ((expected,), 1.0, True)
    assert report.prefill_share == taken[expected]


def test_without_a_planner_a_budget_below_one_token_is_not_met_or_refused(plain_adaptive, pixels) -> None:
    words, options = [1, TAG, 5, 6, 7], {"image_tokens": "auto", "latency_budget": 0.5}
    report = ask(plain_adaptive, words, pixels, **options).report
    assert (report.image_tokens.front, report.granted, report.budget_met) == ((1,), 1.0, False)
    with pytest.raises(OptionError, match="always runs 3 of its 3 layers on 5 of its 8 positions; the minimum"):
        ask(plain_adaptive, words, pixels, strict_latency_budget=True, **options)


def test_without_a_planner_a_budget_in_time_chooses_image_tokens(plain_adaptive, pixels) -> None:
    profile = replace(PROFILE, plan=[*PROFILE.plan[:-1], 0.0])  # to leave tokens out takes no time
    model, predictor = plain_adaptive, TTFTPredictor(profile, plain_adaptive.units).fixed()
    for kept in (4, 3, 2, 1):
        time = TimeBudget(predictor.first_token_ms(Workload(4 + kept, model.units.tunable, 1)) + 0.01)
        options = {"image_tokens": "auto", "latency_budget": time, "ttft_predictor": predictor}
        report = ask(model, [1, TAG, 5, 6, 7], pixels, **options).report
        assert (report.image_tokens.front, report.granted, report.budget_met) == ((kept,), 1.0, True)


def test_without_a_planner_and_with_all_image_tokens_a_budget_is_refused(plain_adaptive, pixels) -> None:
    with pytest.raises(OptionError, match="has no scheduler"):
        ask(plain_adaptive, [1, TAG, 5], pixels, latency_budget=0.7)
