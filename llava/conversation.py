"""Defines conversation templates: how turns become the prompt that a checkpoint was trained on.

The system texts, roles and separators are those of published checkpoints and must match them to the byte.
"""

from __future__ import annotations

from llava.dialogue import Conversation as Conversation
from llava.dialogue import SeparatorStyle as SeparatorStyle
from llava.dialogue import stop_text as stop_text

_CURIOUS_HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
_MMTAG = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks "
    "using natural language.The visual content will be provided with the following format: <Image>visual "
    "content</Image>."
)
_CURIOUS_USER = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
_LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
    "being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, "
    "dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive "
    "in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why "
    "instead of answering something not correct. If you don't know the answer to a question, please "
    "don't share false information."
)
_LLAVA_LLAMA_2 = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that "
    "the user provides, and assist the user with a variety of tasks using natural language."
)
_PRESET_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short amount "
    "of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the "
    "other hand, are finite and will eventually be depleted, such as coal, oil, and natural gas. Here "
    "are some key differences between renewable and non-renewable energy sources:\n1. Availability: "
    "Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite "
    "and will eventually run out.\n2. Environmental impact: Renewable energy sources have a much lower "
    "environmental impact than non-renewable sources, which can lead to air and water pollution, "
    "greenhouse gas emissions, and other negative effects.\n3. Cost: Renewable energy sources can be more "
    "expensive to initially set up, but they typically have lower operational costs than non-renewable "
    "sources.\n4. Reliability: Renewable energy sources are often more reliable and can be used in more "
    "remote locations than non-renewable sources.\n5. Flexibility: Renewable energy sources are often "
    "more flexible and can be adapted to different situations and needs, while non-renewable sources are "
    "more rigid and inflexible.\n6. Sustainability: Renewable energy sources are more sustainable over "
    "the long term, while non-renewable sources are not, and their depletion can lead to economic and "
    "social instability.\n"
)

conv_vicuna_v0 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("Human", "Assistant"),
    messages=[
        ["Human", "What are the key differences between renewable and non-renewable energy sources?"],
        ["Assistant", _PRESET_ANSWER],
    ],
    offset=2,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="Unknown",
)
conv_llava_v0 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("Human", "Assistant"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="Unknown",
)
conv_llava_v0_mmtag = Conversation(
    system=_MMTAG,
    roles=("Human", "Assistant"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.SINGLE,
    sep="###",
    version="v0_mmtag",
)
conv_vicuna_v1 = Conversation(
    system=_CURIOUS_USER,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1",
)
conv_llava_v1 = Conversation(
    system=_CURIOUS_HUMAN,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1",
)
conv_llava_v1_mmtag = Conversation(
    system=_MMTAG,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1_mmtag",
)
conv_llama_2 = Conversation(
    system=_LLAMA_2,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="<s>",
    sep2="</s>",
    version="llama_v2",
)
conv_llava_llama_2 = Conversation(
    system=_LLAVA_LLAMA_2,
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="<s>",
    sep2="</s>",
    version="llama_v2",
)
conv_mistral_instruct = Conversation(
    system="",
    roles=("USER", "ASSISTANT"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.LLAMA_2,
    sep="",
    sep2="</s>",
    version="llama_v2",
)
conv_chatml_direct = Conversation(
    system="<|im_start|>system\nAnswer the questions.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.MPT,
    sep="<|im_end|>",
    version="mpt",
)
conv_mpt = Conversation(
    system="<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.",
    roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.MPT,
    sep="<|im_end|>",
    version="mpt",
)
conv_qwen = Conversation(
    system="<|im_start|>system\nYou are a helpful assistant.",
    roles=("<|im_start|>user", "<|im_start|>assistant"),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.CHATML,
    sep="<|im_end|>",
    version="qwen",
)
conv_llava_plain = Conversation(
    system="",
    roles=("", ""),
    messages=[],
    offset=0,
    sep_style=SeparatorStyle.PLAIN,
    sep="\n",
    version="Unknown",
)

conv_templates = {
    "default": conv_vicuna_v0,
    "v0": conv_vicuna_v0,
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llama_2": conv_llama_2,
    "mistral_instruct": conv_mistral_instruct,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "llava_v0": conv_llava_v0,
    "v0_mmtag": conv_llava_v0_mmtag,
    "llava_v1": conv_llava_v1,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2": conv_llava_llama_2,
    "mpt": conv_mpt,
    "qwen_1_5": conv_qwen,
    "qwen_2": conv_qwen,
}
default_conversation = conv_vicuna_v1


def template_of_name(model_name: str) -> Conversation:
    """Return a copy of the template that upstream's command line takes for a model of this name.

    For a name that no rule knows it is LLaVA v1's, where upstream takes the first LLaVA's.
    """
    name = model_name.lower()
    rules = {
        "llama-2": "llava_llama_2",
        "mistral": "mistral_instruct",
        "v1.6-34b": "chatml_direct",
        "v1": "llava_v1",
        "mpt": "mpt",
        "v0": "llava_v0",
    }
    return conv_templates[next((mode for part, mode in rules.items() if part in name), "llava_v1")].copy()
