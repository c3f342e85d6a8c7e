"""The recipes of scripts/v1_5: what they would launch, by each launcher, on one machine and on many."""

import json
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from ada.train.arguments import AdaArguments
from llava.model import LlavaConfig
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.train import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ["pretrain", "finetune", "finetune_lora", "finetune_task", "finetune_task_lora"]
RECIPES += ["finetune_ada_heads", "finetune_ada_layers", "finetune_token_scorer"]
FIRST = ["pretrain", "finetune", "finetune_full_schedule", "finetune_lora", "finetune_qlora", "finetune_sqa"]
SETTINGS = {"PRESET", "LAUNCHER", "NPROC", "HOSTFILE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "DEEPSPEED"}
SETTINGS |= {"MODEL", "DATA", "IMAGES", "OUT", "TOWER", "PROJECTOR", "PROJECTOR_TYPE", "REPORT_TO", "STEPS", "BATCH"}
SETTINGS |= {"DRY_RUN", "SCHEDULER", "PREFIX", "RANK", "BUDGETS", "LAYER", "MODEL_VERSION", "PROMPT_VERSION"}


def run(script, *flags, path=None, **settings):
    """The script in its own process, as in a shell that has none of its variables but these."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    kept |= {"PATH": f"{path}:{kept['PATH']}"} if path else {}
    command = ["bash", script, *flags]
    return subprocess.run(command, cwd=ROOT, env={**kept, **settings}, capture_output=True, text=True)


def launched(recipe, *flags, folder="scripts/v1_5", **settings):
    """The words of the line that a recipe would start: those of the launcher, and the flags after the program."""
    ran = run(f"{folder}/{recipe}.sh", *flags, DRY_RUN="1", **settings)
    assert ran.returncode == 0, ran.stderr
    words = shlex.split(ran.stdout)
    index = words.index("llava/train/train_mem.py")
    return words[:index], words[index + 1 :]


def value_of(flags, name):
    """What holds: the last one."""
    return flags[len(flags) - flags[::-1].index(f"--{name}")]


@pytest.mark.parametrize(("has_gpu", "attention"), [(1, "sdpa"), (0, "eager")])
def test_preset_smol_needs_no_flash_attention_on_a_gpu(tmp_path, has_gpu, attention):
    asked = tmp_path / "python"  # whether torch sees a GPU
    asked.write_text(f"#!/bin/sh\nexit {has_gpu}\n")
    asked.chmod(0o755)
    _, flags = launched("finetune", PRESET="smol", path=tmp_path)
    assert value_of(flags, "attn_implementation") == attention
    assert ("--use_cpu" in flags) == (not has_gpu)


def test_preset_smol_keeps_results_apart_and_may_read_all_image_tokens():
    folders = {
        value_of(launched("finetune", PRESET="smol", **given)[1], "output_dir") for given in ({}, {"SCHEDULER": "H"})
    }
    assert len(folders) == 2, "two results, two folders"
    assert value_of(launched("finetune", PRESET="smol")[1], "image_token_maximum") == "0.25"
    _, flags = launched("finetune", PRESET="smol", IMAGE_TOKEN_MAXIMUM="")
    assert "--image_token_maximum" not in flags and value_of(flags, "image_token_dropout") == "0.25"


def test_preset_smol_refuses_a_merge_of_earlier_adapters(tmp_path):
    """Everything is there; the language model is not fetched, as ``python`` only says where it would be."""
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$1" = -m ] && echo base\nexit 0\n')
    (tmp_path / "python").chmod(0o755)
    smol = tmp_path / "smol"
    made = ["llava/model.safetensors", "llava-lora/adapter_model.safetensors", "chat.json", "data/test.jsonl"]
    for age, name in enumerate([*made, "tower/model.safetensors", "projector/mm_projector.bin"]):
        (smol / name).parent.mkdir(parents=True, exist_ok=True)
        (smol / name).touch()
        os.utime(smol / name, (1000 + age, 1000 + age))
    settings = {"PRESET": "smol", "SMOL": str(smol), "VIRTUAL_ENV": str(tmp_path), "EXTRAS": ""}
    ran = run("scripts/v1_5/finetune_ada_heads.sh", path=tmp_path, **settings)
    assert ran.returncode == 1 and f"{smol}/llava was merged before" in ran.stderr, ran.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").rglob("*.s[bh]*")), ids=lambda path: path.name)
def test_shell_syntax(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_deepspeed_configs(name):
    config = json.loads((ROOT / "scripts" / f"{name}.json").read_text())
    zero = config["zero_optimization"]
    assert zero["stage"] == int(name[4])
    assert "optimizer" not in config, "it would make the trainer's parameter groups ignored"
    assert config["bf16"] == {"enabled": "auto"} and config["train_batch_size"] == "auto"
    if zero["stage"] == 3:
        assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    offloaded = {part for part in ("optimizer", "param") if zero.get(f"offload_{part}", {}).get("device") == "cpu"}
    assert offloaded == ({"optimizer", "param"} if name.endswith("offload") else set())
    pytest.importorskip("deepspeed")
    flags = ["--deepspeed", str(ROOT / "scripts" / f"{name}.json"), "--use_cpu", "True", "--bf16", "True"]
    assert parse_arguments(flags)[TrainingArguments].hf_deepspeed_config.is_zero3() == (zero["stage"] == 3)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("preset", ["", "shapes"])
def test_a_recipes_flags_parse(recipe, preset):
    launcher, flags = launched(recipe, "--seed", "7", PRESET=preset)
    assert launcher == (["python"] if preset else ["deepspeed"])
    if "--deepspeed" in flags:
        index = flags.index("--deepspeed")
        few = recipe in ("pretrain", "finetune_token_scorer")  # of the parameters learn
        assert flags[index + 1] == ("scripts/zero2.json" if few else "scripts/zero3.json")
        del flags[index : index + 2]
    parsed = parse_arguments([*flags, "--use_cpu", "True", "--report_to", "none"])
    model, data, training = (parsed[kind] for kind in (ModelArguments, DataArguments, TrainingArguments))
    assert training.seed == 7
    assert model.version == ("plain" if recipe == "pretrain" else "v1")
    assert model.tune_mm_mlp_adapter == (recipe == "pretrain")
    assert data.image_aspect_ratio == ("square" if recipe == "pretrain" else "pad")
    assert training.lora_enable == recipe.endswith("_lora")
    assert parsed[AdaArguments].scheduler_type == {"finetune_ada_heads": "H", "finetune_ada_layers": "L"}.get(recipe)
    scores = recipe == "finetune_token_scorer"
    assert parsed[AdaArguments].token_scorer_layer == ("P" if scores else None)
    assert model.model_name_or_path == f"ada/checkpoints/shapes-{'H' if scores else 'base'}" or not preset


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("pretrain", {"learning_rate": "1e-3", "per_device_train_batch_size": "32", "save_steps": "24000"}),
        ("finetune", {"learning_rate": "2e-5", "per_device_train_batch_size": "16", "save_steps": "50000"}),
        ("finetune_lora", {"learning_rate": "2e-4", "mm_projector_lr": "2e-5", "lora_r": "128", "lora_alpha": "256"}),
        ("finetune_task", {"learning_rate": "2e-5", "model_name_or_path": "liuhaotian/llava-v1.5-7b"}),
        ("finetune_task_lora", {"learning_rate": "2e-4", "lora_r": "128", "per_device_train_batch_size": "16"}),
        ("finetune_ada_heads", {"learning_rate": "1e-5", "latency_budget": "0.5:1.0"}),
        ("finetune_ada_layers", {"per_device_train_batch_size": "8", "gradient_accumulation_steps": "2"}),
        ("finetune_token_scorer", {"max_steps": "60", "per_device_train_batch_size": "4", "learning_rate": "2e-4"}),
    ],
)
def test_published_settings(recipe, expected):
    _, flags = launched(recipe)
    always = {"warmup_ratio": "0.03", "lr_scheduler_type": "cosine", "model_max_length": "2048", "bf16": "True"}
    for name, value in {**always, **expected}.items():
        assert value_of(flags, name) == value, name
    assert ("--pretrain_mm_mlp_adapter" in flags) == (recipe in ("finetune", "finetune_lora"))
    from_llava = {"--vision_tower", "--mm_vision_select_layer", "--mm_projector_type"}.isdisjoint(flags)
    assert from_llava == (recipe not in ("pretrain", "finetune", "finetune_lora")), "a LLaVA has its own"


def test_published_grid_is_the_default_for_a_model_of_7b():
    """16 layers that always run, and units of 8 heads; other models get half of their layers."""
    for layers, prefix, given in ((32, 16, {}), (40, 20, {}), (40, 16, {"PREFIX": "16"})):
        _, flags = launched("finetune_ada_heads", DEEPSPEED="", **given)
        config = LlavaConfig(num_hidden_layers=layers)
        parse_arguments([*flags, "--use_cpu", "True", "--report_to", "none"])[AdaArguments].apply(config)
        assert (config.num_prefix_layers, config.scheduler_rank) == (prefix, 8)


def test_a_tower_that_is_given_comes_with_its_layer_and_a_type_of_projector():
    for recipe in ("finetune", "finetune_task"):
        _, flags = launched(recipe, TOWER="clip")
        found = [value_of(flags, name) for name in ("vision_tower", "mm_vision_select_layer", "mm_projector_type")]
        assert found == ["clip", "-2", "mlp2x_gelu"]
    _, flags = launched("finetune_task", PROJECTOR_TYPE="linear")
    assert value_of(flags, "mm_projector_type") == "linear" and "--vision_tower" not in flags


@pytest.mark.parametrize("recipe", FIRST)
@pytest.mark.parametrize("preset", ["", "shapes"])
def test_first_llavas_flags_parse(recipe, preset):
    launcher, flags = launched(recipe, folder="scripts", PRESET=preset)
    assert launcher == (["python"] if preset else ["deepspeed"])
    if not preset:
        index = flags.index("--deepspeed")
        assert flags[index : index + 2] == ["--deepspeed", "scripts/zero2.json"]
        del flags[index : index + 2]
    parsed = parse_arguments([*flags, "--use_cpu", "True", "--report_to", "none"])
    model, data, training = (parsed[kind] for kind in (ModelArguments, DataArguments, TrainingArguments))
    assert model.version == ("plain" if recipe == "pretrain" else "v1")
    assert model.mm_projector_type == ("mlp2x_gelu" if preset else "linear")
    assert data.image_aspect_ratio == "square"
    assert training.lora_enable == recipe.endswith("lora") and training.bits == (
        4 if recipe == "finetune_qlora" else 16
    )
    assert parsed[AdaArguments].scheduler_type is None


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("pretrain", {"learning_rate": "2e-3", "save_steps": "24000", "tune_mm_mlp_adapter": "True"}),
        ("finetune", {"data_path": "playground/data/llava_instruct_80k.json", "num_train_epochs": "1"}),
        ("finetune_full_schedule", {"data_path": "playground/data/llava_instruct_158k.json", "num_train_epochs": "3"}),
        ("finetune_sqa", {"model_name_or_path": "lmsys/vicuna-13b-v1.3", "num_train_epochs": "12"}),
        ("finetune_lora", {"output_dir": "checkpoints/llava-vicuna-v1-3-7b-finetune_lora", "learning_rate": "2e-5"}),
    ],
)
def test_first_llavas_published_settings(recipe, expected):
    _, flags = launched(recipe, folder="scripts")
    always = {"vision_tower": "openai/clip-vit-large-patch14", "per_device_train_batch_size": "16", "bf16": "True"}
    for name, value in {**always, **expected}.items():
        assert value_of(flags, name) == value, name


def test_first_llava_on_llama_2():
    settings = {"MODEL_VERSION": "llama-2-7b-chat", "PROMPT_VERSION": "llava_llama_2"}
    _, flags = launched("finetune", folder="scripts", **settings)
    assert value_of(flags, "version") == "llava_llama_2" and value_of(flags, "model_name_or_path").endswith("7b-chat")
    assert value_of(flags, "pretrain_mm_mlp_adapter") == "checkpoints/llava-llama-2-7b-chat-pretrain/mm_projector.bin"


@pytest.mark.parametrize("recipe", ["finetune", "finetune_lora", "finetune_task", "finetune_task_lora"])
def test_scheduler_can_be_added_to_any_recipe_of_stage_2(recipe):
    settings = {"SCHEDULER": "L", "PREFIX": "12", "RANK": "4", "BUDGETS": "0.3:1.0"}
    plain, adaptive = launched(recipe)[1], launched(recipe, **settings)[1]
    assert value_of(adaptive, "output_dir") == value_of(plain, "output_dir") + "-ada-L", "two results, two folders"
    assert value_of(adaptive, "scheduler_type") == "L" and value_of(adaptive, "num_prefix_layers") == "12"
    assert value_of(adaptive, "scheduler_rank") == "4" and value_of(adaptive, "latency_budget") == "0.3:1.0"


@pytest.mark.parametrize("script", ["scripts/pretrain.sh", "scripts/v1_5/pretrain.sh"])
def test_stage_1_refuses_a_scheduler(script):
    ran = run(script, DRY_RUN="1", SCHEDULER="H")
    assert ran.returncode == 1 and "trains the projector alone" in ran.stderr and not ran.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_small_setting_takes_what_each_recipe_learns_from(recipe):
    _, flags = launched(recipe, PRESET="shapes")
    adaptive = recipe.startswith("finetune_ada_")
    short = adaptive or recipe == "finetune_token_scorer"
    part = "captions" if recipe == "pretrain" else "short" if short else "conversations"
    assert value_of(flags, "data_path") == f"playground/data/shapes/{part}.json"
    assert value_of(flags, "image_folder") == "playground/data/shapes/images"
    assert ("--num_prefix_layers" in flags) == adaptive, "flags that need a scheduler"
    if adaptive:
        assert value_of(flags, "num_prefix_layers") == "2"


def test_token_scorer_is_trained_on_the_model_that_is_named():
    _, flags = launched("finetune_token_scorer", MODEL="runs/mine/", LAYER="2", BUDGETS="0.3:1.0")
    assert value_of(flags, "output_dir") == "runs/mine-scored"
    assert (value_of(flags, "token_scorer_layer"), value_of(flags, "latency_budget")) == ("2", "0.3:1.0")
    _, flags = launched("finetune_token_scorer", PRESET="shapes", MODEL="runs/shapes-L")
    assert value_of(flags, "output_dir") == "runs/shapes-L-scored"
    found = [value_of(flags, name) for name in ("max_steps", "per_device_train_batch_size", "learning_rate")]
    assert found == ["60", "32", "3e-3"]


def test_image_token_dropout_passes_through_any_recipe():
    for recipe in ("finetune", "finetune_lora", "finetune_task", "finetune_ada_heads"):
        for preset in ("", "shapes"):
            _, flags = launched(recipe, "--image_token_dropout", "0.1", PRESET=preset)
            assert value_of(flags, "image_token_dropout") == "0.1"


def test_the_last_word_is_the_users():
    _, flags = launched("finetune", "--learning_rate", "5e-6", PRESET="shapes", MODEL="mine", STEPS="3", BATCH="2")
    assert value_of(flags, "learning_rate") == "5e-6"
    assert value_of(flags, "model_name_or_path") == "mine"
    assert (value_of(flags, "max_steps"), value_of(flags, "per_device_train_batch_size")) == ("3", "2")
    _, flags = launched("finetune_task", "--run_name", "two words", DATA="my data.json", TOWER="", DEEPSPEED="")
    assert value_of(flags, "run_name") == "two words" and value_of(flags, "data_path") == "my data.json"
    assert "--vision_tower" not in flags and "--deepspeed" not in flags


def test_one_machine():
    assert launched("finetune")[0] == ["deepspeed"]
    assert launched("finetune", NPROC="4", MASTER_PORT="3000")[0] == shlex.split(
        "deepspeed --num_gpus 4 --master_port 3000"
    )
    assert launched("finetune", LAUNCHER="torchrun")[0] == shlex.split("torchrun --nproc-per-node gpu --standalone")
    assert launched("finetune", LAUNCHER="torchrun", NPROC="2", MASTER_PORT="3000")[0] == shlex.split(
        "torchrun --nproc-per-node 2 --master-port 3000"
    )
    assert launched("finetune", LAUNCHER="python", DEEPSPEED="")[0] == ["python"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_on_a_cpu(recipe):
    launcher, flags = launched(recipe, PRESET="shapes", NPROC="2")
    assert launcher == shlex.split("torchrun --nproc-per-node 2 --standalone")
    assert value_of(flags, "deepspeed") == "scripts/zero2.json"
    half = "16" if recipe == "finetune_token_scorer" else "24"
    assert value_of(flags, "per_device_train_batch_size") == half, "as many samples a step as one process has"
    launcher, flags = launched(recipe, PRESET="shapes", NPROC="2", LAUNCHER="deepspeed", DEEPSPEED="scripts/zero3.json")
    assert launcher == shlex.split("deepspeed --num_gpus 2")
    assert value_of(flags, "deepspeed") == "scripts/zero3.json"


def test_many_machines(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text(f"# the lab's\nfirst slots=8\n\n{socket.gethostname()} slots=8\nthird slots=8\n")
    assert launched("finetune", HOSTFILE=str(hosts))[0] == ["deepspeed", "--hostfile", str(hosts)]
    common = "torchrun --nproc-per-node 8 --nnodes 3 --node-rank {} --master-addr {} --master-port {}"
    torchrun = {"LAUNCHER": "torchrun", "NPROC": "8"}
    found, _ = launched("finetune", HOSTFILE=str(hosts), **torchrun)
    assert found == shlex.split(common.format(1, "first", 29500)), "this machine's line is the second"
    found, _ = launched("finetune", HOSTFILE=str(hosts), NODE_RANK="2", MASTER_PORT="3000", **torchrun)
    assert found == shlex.split(common.format(2, "first", 3000))
    found, _ = launched("finetune", NNODES="3", NODE_RANK="0", MASTER_ADDR="here", **torchrun)
    assert found == shlex.split(common.format(0, "here", 29500))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"PRESET": "shape"}, "PRESET is 'shape'; expected one of"),
        ({"SCHEDULER": "heads"}, "SCHEDULER is 'heads'; expected H (attention heads and neurons), L (layers)"),
        ({"LAUNCHER": "mpirun"}, "LAUNCHER is 'mpirun'; expected deepspeed, torchrun or python"),
        ({"LAUNCHER": "torchrun", "HOSTFILE": "nowhere"}, "HOSTFILE is 'nowhere', which is no file"),
        ({"LAUNCHER": "torchrun", "HOSTFILE": "README.md"}, "is not in README.md; name its line, from 0, in NODE_RANK"),
        ({"LAUNCHER": "torchrun", "NNODES": "2"}, "NNODES is 2; it needs NODE_RANK and MASTER_ADDR"),
        ({"LAUNCHER": "python", "NPROC": "2"}, "LAUNCHER is python, which starts one process, and NPROC is 2"),
        (
            {"LAUNCHER": "python"},
            "LAUNCHER is python, and --deepspeed is given, which needs a launcher's variables; set",
        ),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_used(settings, complaint):
    ran = run("scripts/v1_5/finetune.sh", DRY_RUN="1", **settings)
    assert ran.returncode == 1 and complaint in ran.stderr
    assert not ran.stdout


@pytest.mark.parametrize("recipe", ["finetune", "finetune_ada_heads"])
def test_machine_without_a_gpu_gets_a_hint_at_the_small_setting(recipe):
    ran = run(f"scripts/v1_5/{recipe}.sh", CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 1
    assert f"PRESET=shapes bash scripts/v1_5/{recipe}.sh" in ran.stderr


def test_python_without_torch_is_not_taken_for_a_machine_without_a_gpu(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    ran = run("scripts/v1_5/finetune.sh", path=tmp_path)
    assert ran.returncode == 1 and "'python' here has no torch" in ran.stderr and "CUDA" not in ran.stderr


@pytest.fixture
def cluster(tmp_path):
    """A folder with a ``scontrol`` that knows two hosts, and an ``srun`` that runs its command once for each."""
    tools = {
        "scontrol": '[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"',
        "srun": 'while [[ $1 == --* ]]; do shift; done\nfor place in 0 1; do SLURM_NODEID=$place "$@"; done',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


SLURM = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "41", "SLURM_GPUS_ON_NODE": "8"}


def test_slurm(cluster):
    recipe = ["scripts/v1_5/finetune_ada_heads.sh", "--run_name", "two words"]
    ran = run("scripts/slurm/train.sbatch", *recipe, path=cluster, DRY_RUN="1", **SLURM)
    assert ran.returncode == 0, ran.stderr
    lines = [shlex.split(line) for line in ran.stdout.splitlines()]
    assert len(lines) == 2
    for rank, words in enumerate(lines):
        expected = f"torchrun --nproc-per-node 8 --nnodes 2 --node-rank {rank} --master-addr node1 --master-port 20041"
        assert words[: words.index("llava/train/train_mem.py")] == shlex.split(expected)
        assert words[-2:] == ["--run_name", "two words"]
        assert value_of(words, "scheduler_type") == "H"


def test_slurm_without_a_recipe(cluster):
    ran = run("scripts/slurm/train.sbatch", "--learning_rate", "1", path=cluster, **SLURM)
    assert ran.returncode == 2 and "expected a recipe" in ran.stderr
    text = (ROOT / "scripts/slurm/train.sbatch").read_text().splitlines()
    asked = [line for line in text if line.startswith("#SBATCH ")]
    assert "#SBATCH --ntasks-per-node=1" in asked and text.index(asked[-1]) < text.index("set -euo pipefail")
