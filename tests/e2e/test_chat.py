"""The chat: answers, commands, report line, several images, interruption."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import torch

from llava.conversation import conv_templates
from llava.mm_utils import load_image, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

REPORT = re.compile(
    r"^\[budget (?P<requested>\S+), granted (?P<granted>\S+).*\| layers (\d+)/(\d+), heads (\d+)/(\d+), "
    r"neurons (\d+)/(\d+) \| prefill (\S+) GFLOPs \| first token (\d+) ms \| (\S+) tokens/s\]$",
    re.MULTILINE,
)


def expected_answer(folder, image_file, prompt: str, budget: float, tokens: int) -> tuple[str, int]:
    """The answer through ``generate`` alone, and its number of tokens: random weights may end it early."""
    tokenizer, model, processor, _ = load_pretrained_model(str(folder), None, "tiny", device="cpu")
    ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")[None]
    pixels = process_images([load_image(str(image_file))], processor, model.config).to(model.dtype)
    new = model.generate(
        ids, images=pixels, latency_budget=budget, do_sample=False, max_new_tokens=tokens, pad_token_id=0
    )
    return tokenizer.decode(new[0], skip_special_tokens=True).strip(), new.shape[1]


def test_two_turns_answer_as_generate_does(run_cli, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--max-new-tokens", 6)
    ran = run_cli(*flags, "--latency-budget", "0.75", typed=["w5 w6", "", "w7"])
    assert ran.code == 0
    answers = re.findall(r"^ASSISTANT: (.*)$", ran.out, re.MULTILINE)
    conversation = conv_templates["llava_v1"].copy()
    for turn, question in enumerate(("<image>\nw5 w6", "w7")):
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        expected, _ = expected_answer(adaptive_checkpoint, image_file, conversation.get_prompt(), 0.75, 6)
        assert answers[turn].strip() == expected and expected
        conversation.messages[-1][1] = expected
    reports = list(REPORT.finditer(ran.out))
    assert len(reports) == 2
    assert reports[0]["requested"] == "0.75" and float(reports[0]["granted"]) == 0.75


def test_commands_act_on_the_next_answer(run_cli, adaptive_checkpoint, image_file) -> None:
    typed = [
        "w5",
        "/plan",
        "/budget 50%",
        "/budget",
        "/reset",
        "w5",
        f"/image {image_file}",
        "w5",
        "/help",
        "/quit",
        "w5",
    ]
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--max-new-tokens", 3)
    ran = run_cli(*flags, "--latency-budget", "1", typed=typed)
    assert ran.code == 0, ran.err
    reports = [match["granted"] for match in REPORT.finditer(ran.out)]
    assert reports == ["1", "0.5", "0.5"], "/quit ends the chat; the fourth question is not asked"
    assert ran.out.count("████") == 8, "four layers, heads and neuron groups, all on"
    assert "budget: 0.5" in ran.out or "budget: 50%" in ran.out
    for command in ("/image PATH", "/budget VALUE", "/plan", "/reset"):
        assert command in ran.out


def test_image_tokens_command_acts_on_the_next_answer(run_cli, adaptive_checkpoint, image_file) -> None:
    typed = ["w5", "/plan", "/image-tokens 50%", "w5", "/plan", "/image-tokens", "/help"]
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--max-new-tokens", 3)
    ran = run_cli(*flags, "--image-tokens", "1", "--token-selector", "grid", typed=typed)
    assert ran.code == 0, ran.err
    assert [ran.out.count(f"image tokens: {said}") for said in ("1 of 4", "2 of 4", "50%")] == [1, 1, 2]
    assert "/image-tokens VALUE read so many tokens" in ran.out


def test_a_wrong_command_is_named_and_the_chat_goes_on(run_cli, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--max-new-tokens", 3)
    ran = run_cli(*flags, typed=["/nope", "/budget 7", "/image missing.png", "/image", "w5"])
    assert ran.code == 2, "a pipe learns that something went wrong"
    assert len(REPORT.findall(ran.out)) == 1
    for text in ("/nope is not a command", "'7'", "missing.png", "/image needs a path"):
        assert text in ran.err


def test_several_images_at_once(run_cli, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--max-new-tokens", 3, "--debug", "--image-file")
    one = run_cli(*flags, image_file, typed=["w5"])
    two = run_cli(*flags, image_file, "--image-file", image_file, typed=["w5"])
    counts = [ran.out.count("<image>") for ran in (one, two)]
    lengths = [int(re.search(r"'prompt_tokens': (\d+)", ran.out)[1]) for ran in (one, two)]
    assert counts == [1, 2]
    assert lengths[1] - lengths[0] == 4, "patches of the second picture"


def test_run_llava_reports_json_on_its_last_line(run_once, run_cli, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--latency-budget", "0.75")
    ran = run_once(*flags, "--query", "w5 w6", "--max_new_tokens", 6, "--report", "json")
    chat = run_cli(*flags, "--max-new-tokens", 6, typed=["w5 w6"])
    *text, last = ran.out.strip().splitlines()
    metadata = json.loads(last)
    assert "\n".join(text) == metadata["answer"] == re.search(r"^ASSISTANT: (.*)$", chat.out, re.MULTILINE)[1].strip()
    assert metadata["requested"] == metadata["granted"] == 0.75 and metadata["budget_met"]
    conversation = conv_templates["llava_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nw5 w6")
    conversation.append_message(conversation.roles[1], None)
    expected, tokens = expected_answer(adaptive_checkpoint, image_file, conversation.get_prompt(), 0.75, 6)
    assert (metadata["answer"], metadata["new_tokens"]) == (expected, tokens)
    assert metadata["time_to_first_token_ms"] > 0 and metadata["tokens_per_second"] > 0
    assert sum(metadata["prefill_flops"].values()) == pytest.approx(metadata["prefill_gflops"] * 1e9)
    heads = sum(len(layer["heads"]) for layer in metadata["plan"]["layers"])
    assert metadata["heads"] == [heads, 16] == [12, 16]
    assert metadata["neurons"][0] / metadata["neurons"][1] == pytest.approx(0.75)


def test_eval_model_takes_upstreams_arguments(adaptive_checkpoint, image_file, capsys) -> None:
    """Called from Python, with an object that holds upstream's fields and no more."""
    from llava.eval.run_llava import eval_model

    fields = {
        "model_path": str(adaptive_checkpoint),
        "model_base": None,
        "model_name": "tiny",
        "query": "w5",
        "conv_mode": None,
        "image_file": str(image_file),
        "sep": ",",
        "temperature": 0,
        "top_p": None,
        "num_beams": 1,
        "max_new_tokens": 4,
    }
    answer = eval_model(type("Args", (), fields)())
    assert capsys.readouterr().out.strip() == answer.text and answer.metadata["granted"] == 1
    published = {**fields, "latency": 0.75, "hardware": "nvidia_V100"}  # as the published code has it
    assert eval_model(type("Args", (), published)()).metadata["granted"] == 0.75
    assert eval_model(type("Args", (), {**fields, "latency_budget": 0.75})()).metadata["granted"] == 0.75


def test_sampling_is_repeatable_and_greedy_is_the_default(run_once, adaptive_checkpoint, image_file) -> None:
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--query", "w5", "--max_new_tokens", 8)
    torch.manual_seed(0)
    greedy = {run_once(*flags).out for _ in range(2)}
    sampled = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        sampled.append(run_once(*flags, "--temperature", 5).out)
    assert len(greedy) == 1 and sampled[0] == sampled[1] != sampled[2]


def test_ctrl_c_stops_the_answer_and_not_the_program(adaptive_checkpoint, image_file, root) -> None:
    terminal, inside = pty.openpty()
    flags = ["--model-path", str(adaptive_checkpoint), "--image-file", str(image_file), "--max-new-tokens", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "llava.serve.cli", *flags],
        stdin=inside,
        stdout=inside,
        stderr=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""},
    )
    os.close(inside)
    try:
        read_until(terminal, b"USER: ")
        os.write(terminal, b"w5\n")
        read_until(terminal, b"ASSISTANT: w")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        shown = read_until(terminal, b"USER: ")
        assert b"tokens/s]" in shown, "what was said until then is reported"
        os.write(terminal, b"/budget\n/quit\n")
        assert process.wait(timeout=60) == 0, process.stderr.read().decode()
    finally:
        process.kill()
        process.stderr.close()
        os.close(terminal)


def read_until(terminal: int, wanted: bytes, seconds: float = 120) -> bytes:
    """What the terminal shows until ``wanted`` is there."""
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"{wanted!r} did not come within {seconds} s; there was {shown[-2000:]!r}"
        shown += os.read(terminal, 65536)
    return shown


def test_questions_beyond_the_context_are_refused_with_both_numbers(run_cli, run_once, make_checkpoint, image_file):
    """And those between the training cut-off and the context's end are answered."""
    folder = make_checkpoint(max_position_embeddings=256, tokenizer_model_max_length=24)
    flags = ("--model-path", folder, "--image-file", image_file, "--device", "cpu")
    typed = ["w5", "w5 " * 300, "w6 " * 60, "w7"]
    ran = run_cli(*flags, "--max-new-tokens", 3, typed=typed)
    assert ran.code == 2 and len(re.findall(r"first token \d+ ms", ran.out)) == 3
    refused = re.findall(r"error: the prompt has (\d+) tokens, image tokens included; the maximum is (\d+)", ran.err)
    assert len(refused) == 1 and int(refused[0][0]) > 300 and refused[0][1] == "255"
    assert "longer than the specified maximum sequence length" not in ran.err
    once = run_once(*flags, "--query", "w5 " * 300)
    assert once.code == 2 and "the maximum is 255" in once.err and "Traceback" not in once.err
    capped = run_once(*flags, "--query", "w5 " * 200, "--max_new_tokens", 500, "--report", "json")
    assert capped.code == 0 and json.loads(capped.out.splitlines()[-1])["new_tokens"] < 60
