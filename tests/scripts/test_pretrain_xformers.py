"""Stage 1 of the first LLaVA on GPUs without bfloat16: pretrain.sh with other attention, numbers and batches."""

import shlex

import pytest

from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.train import parse_arguments


@pytest.fixture
def launched(run_script):
    """``launched(recipe, *flags, **variables)``: the words that a recipe would start."""

    def run(recipe, *flags, **variables):
        ran = run_script(f"scripts/{recipe}.sh", *flags, DRY_RUN="1", **variables)
        assert ran.returncode == 0, ran.stderr
        return shlex.split(ran.stdout)

    return run


def parsed(words):
    """Model and training arguments, without DeepSpeed and CUDA, which this machine may lack."""
    flags = words[words.index("--model_name_or_path") :]
    found = parse_arguments([*flags, "--use_cpu", "True", "--report_to", "none"])
    return found[ModelArguments], found[TrainingArguments]


def test_recipe_trains_as_pretrain_in_32_bits_with_pytorchs_attention(launched):
    plain, words = launched("pretrain"), launched("pretrain_xformers")
    assert words[: len(plain)] == plain, "later flags take precedence"
    (model, training), (_, usual) = parsed(words), parsed(plain)
    assert model.version == "plain" and model.tune_mm_mlp_adapter
    assert (model.attn_implementation, training.bf16, usual.bf16) == ("sdpa", False, True)
    assert words[words.index("--tf32", len(plain)) + 1] == "False"
    batches = [one.per_device_train_batch_size * one.gradient_accumulation_steps for one in (training, usual)]
    assert (training.per_device_train_batch_size, *batches) == (4, 16, 16)
    assert training.output_dir == usual.output_dir and training.learning_rate == usual.learning_rate


def test_flags_of_the_command_line_take_precedence_and_a_preset_is_left_as_it_is(launched):
    words = launched("pretrain_xformers", "--per_device_train_batch_size", "2")
    assert parsed(words)[1].per_device_train_batch_size == 2
    assert launched("pretrain_xformers", PRESET="shapes") == launched("pretrain", PRESET="shapes")
