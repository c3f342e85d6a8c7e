"""Which tokens are learned: exactly the answers and the token that ends each, by whatever tokenizer."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, SeparatorStyle, conv_templates
from llava.errors import DataError
from llava.train.data.preprocessing import preprocess, template_of

V1 = Conversation("S", ("USER", "ASSISTANT"), [], 0, SeparatorStyle.TWO, " ", "</s>", "v1")
WORDS = ["S", "USER", "ASSISTANT", ":", "a", "b", "c", "d", "e", "[", "INST", "]", "/", "<<", "SYS", ">>", "</"]


def toy_tokenizer(kind, knows_end=True, length=64):
    """words: one token a word, spaces lost; glued: a space belongs to the word after it; letters: one token each."""
    pieces = {
        "words": (WORDS, pre_tokenizers.Whitespace()),
        "glued": ([*WORDS, *(f" {word}" for word in WORDS)], pre_tokenizers.Split(Regex(r" ?\w+|[^\w\s]"), "isolated")),
        "letters": (sorted({*"".join(WORDS), " ", "\n"}), pre_tokenizers.Split("", "isolated")),
    }
    vocabulary, splitter = pieces[kind]
    marks = ["<unk>", "<s>", *(["</s>"] if knows_end else [])]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*marks, *vocabulary])}, "<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    ending = {"eos_token": "</s>"} if knows_end else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        pad_token="<unk>",
        model_max_length=length,
        **ending,
    )


def conversation(*texts):
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def labelled(messages, tokenizer, template=V1, has_image=False, sample="?"):
    """(tokens, learned): every token's text, and those that are learned, others as "-"."""
    found = preprocess([messages], tokenizer, has_image, template, sample)
    ids, labels = found["input_ids"][0].tolist(), found["labels"][0].tolist()
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))
    texts = ["<image>" if n == IMAGE_TOKEN_INDEX else tokenizer.convert_ids_to_tokens(n) for n in ids]
    return texts, [t if label != IGNORE_INDEX else "-" for t, label in zip(texts, labels, strict=True)]


def test_words():
    tokens, learned = labelled(conversation("a b", "c", "d", "e a"), toy_tokenizer("words"))
    assert tokens == "<s> S USER : a b ASSISTANT : c </s> USER : d ASSISTANT : e a </s>".split()
    assert learned == "-   - -    - - - -         - c </s> -    - - -         - e a </s>".split()


def test_a_space_that_belongs_to_the_answer_is_learned_with_it():
    tokens, learned = labelled(conversation("a", "b c"), toy_tokenizer("glued"))
    assert tokens == ["<s>", "S", " USER", ":", " a", " ASSISTANT", ":", " b", " c", "</s>"]
    assert learned == ["-"] * 7 + [" b", " c", "</s>"]


def test_image_tag_is_one_token_without_label():
    tokens, learned = labelled(conversation("<image>\na", "b"), toy_tokenizer("words"), has_image=True)
    assert tokens == "<s> S USER : <image> a ASSISTANT : b </s>".split()
    assert learned == ["-"] * 8 + ["b", "</s>"]


def test_a_greeting_in_front_is_left_out():
    greeting = [{"from": "gpt", "value": "e"}]
    words = toy_tokenizer("words")
    assert labelled(greeting + conversation("a", "b"), words) == labelled(conversation("a", "b"), words)


def test_plain_template_trains_on_all_after_the_image():
    plain = template_of("plain")
    tokens, learned = labelled(conversation("a <image>", "b c"), toy_tokenizer("letters"), plain, has_image=True)
    assert tokens == ["<s>", "<image>", "b", " ", "c", "\n"]
    assert learned == ["-", "-", "b", " ", "c", "\n"]


def test_text_is_cut_at_the_model_length():
    messages = conversation("a b", "c", "d", "e a")
    full = labelled(messages, toy_tokenizer("words"))
    for length in range(4, 18):
        assert labelled(messages, toy_tokenizer("words", length=length)) == tuple(part[:length] for part in full)


texts = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4).map(" ".join)
TOKENIZERS = {kind: toy_tokenizer(kind, length=1000) for kind in ("words", "glued", "letters")}


@settings(deadline=None, max_examples=60)
@given(
    turns=st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    kind=st.sampled_from(sorted(TOKENIZERS)),
    template=st.sampled_from([V1, conv_templates["v1"], conv_templates["llava_llama_2"], conv_templates["llava_v1"]]),
)
def test_labels_by_place_in_the_text(turns, kind, template):
    """A slow, independent way: by each token's place in the prompt's text."""
    tokenizer, messages = TOKENIZERS[kind], conversation(*(text for turn in turns for text in turn))
    prompt = template.copy()
    prompt.messages = [[template.roles[index % 2], message["value"]] for index, message in enumerate(messages)]
    opening = re.escape("[/INST]" if template.sep_style is SeparatorStyle.LLAMA_2 else "ASSISTANT:")
    answers = [match.span(1) for match in re.finditer(rf"{opening}(.*?</s>)", prompt.get_prompt(), re.DOTALL)]
    assert len(answers) == len(turns)
    encoded = tokenizer(prompt.get_prompt(), return_offsets_mapping=True)
    expected = [
        token if any(start <= first and last <= stop for start, stop in answers) and first < last else IGNORE_INDEX
        for token, (first, last) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    ]
    found = preprocess([messages], tokenizer, False, template)
    assert found["input_ids"][0].tolist() == encoded.input_ids
    assert found["labels"][0].tolist() == expected


def test_lengths_that_do_not_add_up_name_the_sample_and_both():
    # "</s>" is "</", "s", ">" here: three tokens where the template counts on one.
    with pytest.raises(DataError, match=r"sample 7 \(id 'x'\).*10 tokens.*12.*'</s>' as one token"):
        labelled(conversation("a b", "c"), toy_tokenizer("words", knows_end=False), sample="7 (id 'x')")


@pytest.mark.parametrize(
    "messages",
    [
        conversation("a", ""),
        conversation("a", "b </s> c"),
        conversation("a", "b ASSISTANT: c"),
        conversation("a USER: b ASSISTANT: c", "d"),
        conversation("a", "b", "c"),
    ],
    ids=["empty answer", "end in answer", "separator in answer", "separator in question", "no answer"],
)
def test_turns_that_do_not_split_are_refused(messages):
    with pytest.raises(DataError, match=r"sample 7.*one question and one answer at ' ASSISTANT: '"):
        labelled(messages, toy_tokenizer("words"), sample="7")


@pytest.mark.parametrize(
    "messages",
    [
        [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}],
        [{"from": "system", "value": "a"}, {"from": "human", "value": "b"}, {"from": "gpt", "value": "c"}],
        [{"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}],
    ],
)
def test_roles_out_of_turn(messages):
    with pytest.raises(DataError, match=r"sample 7: message \d is from .* must take turns"):
        labelled(messages, toy_tokenizer("words"), sample="7")


@pytest.mark.parametrize("messages", [conversation("<image>", "a", "b", "c"), conversation("a", "b")])
def test_plain_template_takes_one_image_and_one_answer(messages):
    with pytest.raises(DataError, match="sample 7: the plain template"):
        labelled(messages, toy_tokenizer("words"), template_of("plain"), has_image=True, sample="7")


def test_template_names():
    assert template_of("v0") is template_of("nobody-knows") is conv_templates["vicuna_v1"]
    assert template_of("llava_v0") is conv_templates["llava_v0"]
    assert template_of("mpt") is conv_templates["mpt"]


@pytest.mark.parametrize("has_image", [False, True])
def test_text_after_the_limit_is_cut_off_unchecked(has_image):
    """16 tokens fit; the third round has no answer, which is an error only before the limit."""
    first = "<image>\na" if has_image else "a"
    rounds = conversation(first, "b", "c", "d", "e", "")
    found, learned = labelled(rounds, toy_tokenizer("words", length=16), has_image=has_image)
    assert learned.count("</s>") == 2, found
    with pytest.raises(DataError, match="turn 3"):
        labelled(rounds, toy_tokenizer("words", length=64), has_image=has_image)


@pytest.mark.parametrize("version", ["llava_llama_2", "v1", "mpt", "qwen_1_5"])
def test_empty_question_is_refused_where_its_turn_would_be_left_out(version):
    for number, texts in ((1, ("", "b", "c", "d")), (3, ("a", "b", "", "d"))):
        with pytest.raises(DataError, match=f"sample 7: message {number} is an empty question"):
            labelled(conversation(*texts), toy_tokenizer("words"), conv_templates[version], sample="7")


def qwen_tokenizer():
    """A character a token, but for the marks of a turn; no token at the beginning, as Qwen's."""
    letters = {chr(code): code for code in range(10, 127)}
    tokenizer = Tokenizer(models.WordLevel({**letters, "<unk>": 0}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", model_max_length=1000)
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return fast


@settings(deadline=None, max_examples=40)
@given(turns=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_qwen_labels_are_the_answers_and_their_end_marks(turns):
    tokenizer, template = qwen_tokenizer(), conv_templates["qwen_1_5"]
    messages = conversation(*(text for turn in turns for text in turn))
    tokens, learned = labelled(messages, tokenizer, template)
    prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + "".join(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        for question, answer in turns
    )
    assert "".join(tokens) == prompt
    assert "".join(token for token in learned if token != "-") == "".join(f"{answer}<|im_end|>" for _, answer in turns)
    cut = prompt.rindex("assistant\n") + len("assistant\n")
    before = len(tokenizer(prompt[:cut]).input_ids)
    assert learned[before:] == [*turns[-1][1], "<|im_end|>", "-"], "in their places"


def test_qwen_answer_that_holds_the_end_mark_is_refused():
    with pytest.raises(DataError, match="sample 7: message 2"):
        labelled(conversation("a", "b<|im_end|>c"), qwen_tokenizer(), conv_templates["qwen_1_5"], sample="7")
