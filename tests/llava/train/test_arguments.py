"""Flags: LLaVA's own, those of older transformers, and what is said of others."""

import importlib.util

import pytest

from llava.errors import OptionError
from llava.train import arguments
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, check_logs, translate_flags
from llava.train.train import parse_arguments, train

# What LLaVA's launch lines say, in the words of the transformers of their time.
LAUNCH_LINE = """
    --model_name_or_path lmsys/vicuna-7b-v1.5 --version v1 --data_path mix.json --image_folder images
    --vision_tower openai/clip-vit-large-patch14-336 --pretrain_mm_mlp_adapter projector/mm_projector.bin
    --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False
    --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bf16 True
    --output_dir out --num_train_epochs 1 --per_device_train_batch_size 16 --per_device_eval_batch_size 4
    --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps --save_steps 50000
    --save_total_limit 1 --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
    --logging_steps 1 --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4
    --lazy_preprocess True --report_to none --mm_projector_lr 1e-5 --bits 16 --local_rank=0
    --overwrite_output_dir True --no_cuda True
""".split()


def test_a_launch_line():
    parsed = parse_arguments(LAUNCH_LINE)
    model, data, training = (parsed[kind] for kind in (ModelArguments, DataArguments, TrainingArguments))
    assert model.mm_vision_select_layer == -2
    assert model.mm_projector_type == "mlp2x_gelu"
    assert (model.mm_use_im_start_end, model.mm_use_im_patch_token, model.tune_mm_mlp_adapter) == (False, False, False)
    assert data.image_aspect_ratio == "pad"
    assert (training.eval_strategy, training.use_cpu, training.warmup_steps) == ("no", True, 0.03)
    assert training.get_warmup_steps(1000) == 30
    assert (training.group_by_modality_length, training.mm_projector_lr) == (True, 1e-5)
    assert (training.model_max_length, training.remove_unused_columns) == (2048, False)


# Upstream's documented lines, as its scripts word them; --deepspeed, which a launcher needs, is tested where it is.
COMMON = """
    --model_name_or_path ./checkpoints/vicuna-v1-3-7b --image_folder /path/to/images
    --vision_tower openai/clip-vit-large-patch14 --mm_vision_select_layer -2 --mm_use_im_start_end False
    --mm_use_im_patch_token False --bf16 True --num_train_epochs 1 --per_device_train_batch_size 16
    --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps
    --save_steps 50000 --save_total_limit 1 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine
    --logging_steps 1 --tf32 True --model_max_length 2048 --gradient_checkpointing True --dataloader_num_workers 4
    --lazy_preprocess True --report_to wandb
"""
LINES = {
    "pretrain": "--version plain --data_path blip_558k.json --tune_mm_mlp_adapter True --learning_rate 2e-3 "
    "--output_dir ./checkpoints/llava-pretrain",
    "finetune": "--version v1 --data_path llava_instruct_80k.json --learning_rate 2e-5 "
    "--pretrain_mm_mlp_adapter ./checkpoints/llava-pretrain/mm_projector.bin --output_dir ./checkpoints/llava-finetune",
    "finetune_full_schedule": "--version v1 --data_path llava_instruct_158k.json --learning_rate 2e-5 "
    "--pretrain_mm_mlp_adapter ./checkpoints/llava-pretrain/mm_projector.bin --output_dir ./checkpoints/llava-full",
    "finetune_lora": "--lora_enable True --version v1 --data_path llava_instruct_80k.json --learning_rate 2e-5 "
    "--pretrain_mm_mlp_adapter ./checkpoints/llava-pretrain/mm_projector.bin --output_dir ./checkpoints/llava-lora "
    "--dataloader_num_workers 4",
    "finetune_qlora": "--lora_enable True --bits 4 --double_quant True --quant_type nf4 --version v1 "
    "--data_path llava_instruct_80k.json --learning_rate 2e-5 --output_dir ./checkpoints/llava-qlora",
    "v1_5/pretrain": "--version plain --data_path blip_laion_cc_sbu_558k.json --mm_projector_type mlp2x_gelu "
    "--tune_mm_mlp_adapter True --per_device_train_batch_size 32 --save_steps 24000 --learning_rate 1e-3 "
    "--output_dir ./checkpoints/llava-v1.5-13b-pretrain",
    "v1_5/finetune": "--version v1 --data_path llava_v1_5_mix665k.json --mm_projector_type mlp2x_gelu "
    "--pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin --image_aspect_ratio pad "
    "--group_by_modality_length True --learning_rate 2e-5 --output_dir ./checkpoints/llava-v1.5-13b",
    "v1_5/finetune_task": "--model_name_or_path liuhaotian/llava-v1.5-13b --version v1 --image_aspect_ratio pad "
    "--data_path llava_v1_5_mix665k.json --mm_projector_type mlp2x_gelu --group_by_modality_length True "
    "--learning_rate 2e-5 --output_dir ./checkpoints/llava-v1.5-13b-task",
    "v1_5/finetune_task_lora": "--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --version v1 "
    "--model_name_or_path liuhaotian/llava-v1.5-13b --data_path llava_v1_5_mix665k.json --image_aspect_ratio pad "
    "--mm_projector_type mlp2x_gelu --group_by_modality_length True --learning_rate 2e-4 "
    "--output_dir ./checkpoints/llava-v1.5-13b-task-lora",
    "v1_5/finetune_lora": "--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --version v1 "
    "--data_path llava_v1_5_mix665k.json --mm_projector_type mlp2x_gelu --image_aspect_ratio pad "
    "--group_by_modality_length True --learning_rate 2e-4 --output_dir ./checkpoints/llava-v1.5-13b-lora",
    "fsdp": "--version v1 --data_path mix.json --fsdp_transformer_layer_cls_to_wrap LlamaDecoderLayer "
    "--learning_rate 2e-5 --output_dir out --save_safetensors False --overwrite_output_dir True",
    "mpt": "--version mpt --data_path mix.json --mpt_attn_impl triton --learning_rate 2e-5 --output_dir out",
}


@pytest.mark.parametrize("line", LINES)
def test_upstreams_own_lines_parse(line):
    arguments = parse_arguments([*COMMON.split(), *LINES[line].split(), "--use_cpu", "True"])
    model, training = arguments[ModelArguments], arguments[TrainingArguments]
    assert training.warmup_steps == 0.03 and training.report_to == ["wandb"] and model.mm_vision_select_layer == -2
    assert training.lora_enable == ("lora" in line)
    wide = "v1_5" in line and "lora" in line
    assert (training.bits, training.lora_r) == ((4, 64) if "qlora" in line else (16, 128 if wide else 64))
    assert training.mm_projector_lr == (2e-5 if wide else None)
    assert model.tune_mm_mlp_adapter == line.endswith("pretrain")


@pytest.mark.parametrize("config", ["zero2", "zero3", "zero3_offload"])
def test_deepspeed_lines_parse(root, monkeypatch, config):
    """As upstream writes them, in the checkout, after what its launcher adds."""
    pytest.importorskip("deepspeed")
    monkeypatch.chdir(root)
    flags = ["--local_rank=0", "--deepspeed", f"./scripts/{config}.json", *COMMON.split(), *LINES["finetune"].split()]
    training = parse_arguments([*flags, "--use_cpu", "True"])[TrainingArguments]
    assert training.hf_deepspeed_config.is_zero3() == (config != "zero2")
    assert training.hf_deepspeed_config.is_offload() == config.endswith("offload")


@pytest.mark.parametrize(("name", "extra"), [("wandb", "wandb"), ("tensorboard", "train")])
def test_a_log_that_nothing_can_write(monkeypatch, name, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find_spec(module))
    with pytest.raises(OptionError, match=rf"--report_to {name} needs the extra '{extra}': pip install"):
        check_logs(["codecarbon", name])
    check_logs([])


def test_stage_one_line():
    flags = "--tune_mm_mlp_adapter True --version plain --mm_vision_select_feature cls_patch --use_cpu True".split()
    model = parse_arguments(flags)[ModelArguments]
    assert model.tune_mm_mlp_adapter
    assert (model.version, model.mm_vision_select_feature) == ("plain", "cls_patch")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--evaluation_strategy steps", "--eval_strategy steps"),
        ("--warmup_ratio 0.03", "--warmup_steps 0.03"),
        ("--warmup_ratio=0.03", "--warmup_steps 0.03"),
        ("--no_cuda True", "--use_cpu True"),
        ("--overwrite_output_dir --bf16 True", "--bf16 True"),
        ("--bf16 True --group_by_length True", "--bf16 True"),
        ("--logging_dir somewhere", ""),
        ("--save_safetensors True", ""),
        ("--per_gpu_train_batch_size 4", "--per_device_train_batch_size 4"),
        ("--fsdp_transformer_layer_cls_to_wrap LlamaDecoderLayer", ""),
        ("--half_precision_backend auto --bf16 True", "--bf16 True"),
        ("--torchdynamo inductor", "--torch_compile_backend inductor"),
        ("--xpu_backend gloo", "--ddp_backend gloo"),
        ("--optim adamw_hf", "--optim adamw_torch"),
        ("--optim=adamw_apex_fused", "--optim adamw_torch_fused"),
        ("--include_tokens_per_second True", ""),
    ],
)
def test_translation(old, new):
    kept, notices = translate_flags(old.split())
    assert kept == new.split()
    assert len(notices) == 1
    assert next(word for word in old.replace("=", " ").split() if word != "--bf16" and word in notices[0])


# Every flag of transformers 4.37's TrainingArguments that today's lacks.
REMOVED = """
    dispatch_batches evaluation_strategy fp16_backend fp16_opt_level fsdp_min_num_params half_precision_backend
    fsdp_transformer_layer_cls_to_wrap group_by_length include_inputs_for_metrics include_tokens_per_second adafactor
    jit_mode_eval logging_dir mp_parameters no_cuda overwrite_output_dir past_index per_gpu_eval_batch_size
    per_gpu_train_batch_size push_to_hub_model_id push_to_hub_organization push_to_hub_token ray_scope
    save_safetensors split_batches torchdynamo tpu_metrics_debug tpu_num_cores use_ipex use_legacy_prediction_loop
    use_mps_device warmup_ratio
""".split()


@pytest.mark.parametrize("name", REMOVED)
def test_no_flag_of_upstreams_time_is_unknown(name):
    """Each is translated, or named with what replaces it."""
    kept, notices = translate_flags([f"--{name}", "1"])
    assert f"--{name}" not in kept
    assert len(notices) == 1 and notices[0].startswith(f"--{name} is ")


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ("--warmup_ratio 0.03 --warmup_steps 0", 0.03),
        ("--warmup_steps 0 --warmup_ratio=0.03", 0.03),
        ("--warmup_ratio 0.03 --warmup_steps 100", 100),
        ("--warmup_steps 100 --warmup_ratio 0.03", 100),
    ],
)
def test_warmup_ratio_and_steps_given_together_steps_count(flags, steps):
    """Steps count, unless there are none: as transformers read both flags at upstream's time."""
    assert parse_arguments([*flags.split(), "--use_cpu", "True"])[TrainingArguments].warmup_steps == steps


@pytest.mark.parametrize(
    ("names", "expected"), [("wandb tensorboard", ["wandb", "tensorboard"]), ("wandb", ["wandb"]), ("none", [])]
)
def test_several_logs(names, expected):
    flags = ["--report_to", *names.split(), "--use_cpu", "True"]
    assert parse_arguments(flags)[TrainingArguments].report_to == expected
    assert parse_arguments(["--use_cpu", "True"])[TrainingArguments].report_to == []


def test_a_log_that_nobody_knows():
    with pytest.raises(OptionError, match=r"--report_to has 'wandb,tensorboard'; expected none, all.*apart by spaces"):
        check_logs(["wandb,tensorboard"])


@pytest.mark.parametrize(
    ("flags", "is_ampere", "kept"),
    [
        (["--tf32", "True"], True, True),
        (["--tf32", "True"], False, False),  # V100, T4: transformers would refuse the flag
        (["--tf32", "True", "--use_cpu", "True"], True, False),
        (["--tf32", "True", "--no_cuda"], True, False),
        (["--tf32", "True", "--use_cpu", "False"], True, True),
    ],
)
def test_tf32_is_for_gpus_that_have_it(monkeypatch, flags, is_ampere, kept):
    monkeypatch.setattr(arguments, "device_available", lambda device: True)
    monkeypatch.setattr(arguments, "is_torch_tf32_available", lambda: is_ampere)
    translated, notices = translate_flags(flags)
    assert ("--tf32" in translated) == kept == (not [x for x in notices if x.startswith("--tf32 is for")])


def test_todays_flags_are_left_alone():
    flags = ["word", "--learning_rate", "2e-5", "--mm_vision_select_layer", "-2", "--a", "x=y", "--bf16"]
    assert translate_flags(flags) == (flags, [])
    assert translate_flags([]) == ([], [])


def test_notices_are_logged(caplog):
    with caplog.at_level("WARNING"):
        parse_arguments(["--warmup_ratio", "0.1", "--use_cpu", "True"])
    assert "--warmup_ratio is --warmup_steps now" in caplog.text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--warmup_ration 0.1", "unknown: --warmup_ration 0.1"),
        ("--learning 0.1", "unknown: --learning"),
        ("word --bf16 True", "unknown: word"),
        ("--bf16 True --fp16 True", "At most one of fp16 and bf16"),
    ],
)
def test_flags_that_cannot_be_used(flags, complaint):
    with pytest.raises(OptionError, match=complaint):
        parse_arguments([*flags.split(), "--use_cpu", "True"])


def test_what_the_program_sets_is_no_flag():
    with pytest.raises(OptionError, match="--image_processor"):
        parse_arguments(["--image_processor", "x"])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("resume_from_checkpoint", "runs/checkpoint-4", "by itself"),
        ("eval_strategy", "steps", "no evaluation data"),
        ("remove_unused_columns", True, "images would be removed"),
    ],
)
def test_flag_that_would_do_harm_or_nothing_is_refused_before_anything_is_read(trained, tmp_path, name, value, reason):
    with pytest.raises(OptionError, match=rf"--{name} is {value}: .*{reason}"):
        trained(tmp_path / "out", data="nowhere.json", **{name: value})
    assert not (tmp_path / "out").exists()


def test_one_process_that_sees_several_gpus_is_refused_before_anything_is_read(flags_of, monkeypatch, tmp_path):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda args: 2))
    with pytest.raises(OptionError, match=r"one process, and it sees 2 GPUs; .*CUDA_VISIBLE_DEVICES=0"):
        train(flags=flags_of(tmp_path / "out", data="nowhere.json"))
    train(flags=flags_of(tmp_path / "out", check_data_only=True))  # which needs no GPU
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("version", "warned"), [("v1", False), ("v0", False), ("plain", False), ("qwen1.5", True)])
def test_version_without_a_template_is_a_warning(flags_of, caplog, tmp_path, version, warned):
    with caplog.at_level("WARNING", logger="llava.train"):
        train(flags=flags_of(tmp_path, "captions.json", check_data_only=True, version=version))
    assert ("names no template" in caplog.text) is warned
