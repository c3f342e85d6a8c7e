"""The prefill-decode benchmark: its cases do what their names say, and its program prints them."""

import json

import torch

from ada.bench import prefill_decode
from ada.bench.__main__ import main
from ada.bench.models import Models
from ada.bench.selection import time_selection


@torch.inference_mode()
def test_cases_run_the_share_that_they_report(small_shapes) -> None:
    models = Models.make(8)
    embeds = torch.randn(1, 20, 64, dtype=torch.bfloat16)
    token = torch.zeros(1, 1, dtype=torch.long)
    plain = prefill_decode.plain_case(models.plain)
    expected = plain.prefill(embeds).last_hidden_state[:, -1]
    for case in prefill_decode.overlay_cases(models, (0.85, 0.6)):
        kind, budget = case.name.split()
        state = case.prefill(embeds)
        case.decode(state, token)
        units = models.ada[kind].units.total
        assert case.share() == int(units * float(budget)) / units
        lengths = [layer.get_seq_length() for layer in state.past_key_values.layers]
        assert max(lengths) == 20 + 1 + 1, "prompt, latency token, one decoded token"
        assert not torch.equal(state.last_hidden_state[:, -1], expected), "the latency token's position is read"


def test_program_prints_a_table_and_json(small_shapes, monkeypatch, capsys) -> None:
    sizes = ["prefill-decode", "--layers", "8", "--positions", "16", "--rounds", "2", "--decode-steps", "2"]
    few = {"layers": 2, "switches": 16, "rounds": 1}
    monkeypatch.setattr(prefill_decode, "time_selection", lambda **given: time_selection(**{**given, **few}))
    assert main(sizes) == 0
    shown = capsys.readouterr().out
    figures = json.loads(shown.strip().splitlines()[-1])
    names = [row["case"] for row in figures["cases"]]
    assert names == ["plain", *(f"{kind} {budget:g}" for kind in "LH" for budget in (1, 0.85, 0.75, 0.6, 0.5))]
    assert all(row[phase]["ratio"] > 0 for row in figures["cases"] for phase in prefill_decode.PHASES)
    assert figures["cases"][0]["prefill"]["ratio"] < 10, "the plain model against itself"
    assert all(name in shown for name in names)
