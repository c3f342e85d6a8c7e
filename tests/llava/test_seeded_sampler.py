"""Seeded draws: the distribution that is asked for, the same again for a seed, and nobody else disturbed."""

import pytest
import torch

from llava.errors import OptionError
from llava.generation import SamplingParams, answer
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.seeded_sampler import SeededSampler

SCORES = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def drawn(choice: SeededSampler, scores: torch.Tensor) -> list[int]:
    left = choice(torch.zeros(len(scores), 1, dtype=torch.long), scores)
    assert left.shape == scores.shape and ((left == 0).sum(-1) == 1).all() and left.isinf().sum(-1).min() == 5
    return left.argmax(-1).tolist()


def slow_distribution(temperature: float, top_p: float, top_k: int, min_p: float = 0.0) -> list[float]:
    """Probabilities by the definitions: the likeliest ``top_k``, of them the fewest that reach ``top_p``, of them those
    with ``min_p`` of the likeliest one's."""
    weights = [float(torch.exp(score / temperature)) for score in SCORES.double()]
    kept = sorted(range(len(weights)), key=lambda token: -weights[token])[: top_k or None]
    total, enough, reached = sum(weights[token] for token in kept), [], 0.0
    for token in kept:
        if reached >= top_p:
            break
        enough.append(token)
        reached += weights[token] / total
    enough = [token for token in enough if weights[token] >= min_p * max(weights)]
    total = sum(weights[token] for token in enough)
    return [weights[token] / total if token in enough else 0.0 for token in range(len(weights))]


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k", "min_p"),
    [
        (1, 1, 50, 0),
        (0.5, 1, 50, 0),
        (2, 0.7, 50, 0),
        (1, 0.9, 3, 0),
        (1, 1, 0, 0.2),
        (2, 1, 0, 0.5),
        (1, 0.95, 5, 0.1),
        (1, 1, 50, 1),
    ],
)
def test_sampler_draws_follow_the_distribution(temperature, top_p, top_k, min_p) -> None:
    rows = 20_000
    tokens = drawn(SeededSampler(0, temperature, top_p, top_k, min_p), SCORES.expand(rows, -1))
    for token, expected in enumerate(slow_distribution(temperature, top_p, top_k, min_p)):
        share, deviation = tokens.count(token) / rows, (expected * (1 - expected) / rows) ** 0.5
        assert abs(share - expected) <= 4.5 * deviation, token


def test_samplers_in_turn_draw_what_each_draws_alone() -> None:
    scores = SCORES.expand(1, -1)
    alone = [[drawn(choice, scores) for _ in range(30)] for choice in (SeededSampler(1, 1), SeededSampler(2, 1))]
    first, second = SeededSampler(1, 1), SeededSampler(2, 1)
    both = [(drawn(first, scores), drawn(second, scores)) for _ in range(30)]
    assert [list(tokens) for tokens in zip(*both, strict=True)] == alone and alone[0] != alone[1]


def test_generate_with_one_seed_repeats_its_answer(tiny_checkpoint) -> None:
    path = str(tiny_checkpoint)
    tokenizer, model, processor, _ = load_pretrained_model(path, None, get_model_name_from_path(path), device="cpu")

    def ask(seed: int | None) -> list[int]:
        sampling = SamplingParams(temperature=1.5, top_p=0.95, max_new_tokens=12, seed=seed)
        return answer(model, tokenizer, processor, "w5 w6", sampling=sampling).token_ids

    state = torch.get_rng_state()
    first = ask(7)
    assert torch.equal(torch.get_rng_state(), state), "the process's own generator is left alone"
    torch.manual_seed(123)
    assert ask(7) == first and any(ask(seed) != first for seed in (8, 9, 10))


def test_seed_with_beams_raises() -> None:
    with pytest.raises(OptionError, match="seed is 3"):
        SamplingParams(temperature=1, num_beams=2, seed=3).keywords()
    assert "logits_processor" not in SamplingParams(temperature=0, seed=3).keywords(), "greedy answers need none"
