"""The batch benchmark: both ways compute the same, and its program prints every case."""

import json

import torch

from ada.bench import batching
from ada.bench.__main__ import main
from ada.bench.models import Models


@torch.inference_mode()
def test_steps_together_and_apart_give_the_same_hidden_states(small_shapes) -> None:
    model = Models.make(8).ada["H"].float()
    prompts = [torch.randn(1, 12, 64) for _ in batching.OWN]
    requests = [batching.Request(model, *pair) for pair in zip(prompts, batching.OWN, strict=True)]
    assert len({request.plan for request in requests}) == len(requests)
    ways = batching.steps(model, requests)
    batched = ways["together"]().last_hidden_state
    for row, request in enumerate(requests):
        alone = model.model(
            input_ids=torch.zeros(1, 1, dtype=torch.long),
            past_key_values=request.output.past_key_values,
            execution=request.execution,
            use_cache=True,
        ).last_hidden_state
        torch.testing.assert_close(batched[row], alone[0], atol=1e-4, rtol=1e-4)


def test_batch_program_prints_every_case(small_shapes, capsys) -> None:
    sizes = ["--layers", "4", "--positions", "8", "--rounds", "1", "--rows", "1", "3", "--decode-steps", "1"]
    assert main(["batch", *sizes]) == 0
    lines = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["batches"]
    cases = [(line["rows"], line["plans"]) for line in lines]
    assert cases == [(count, case) for count in (1, 3) for case in batching.CASES]
    assert all(line["decode"]["times_faster"] > 0 for line in lines)
