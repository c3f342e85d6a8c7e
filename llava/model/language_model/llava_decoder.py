"""Implements what every LLaVA does, whatever its decoder: config, forward, generation, saving.

A family is a module next to this one: a config, a decoder and a model class, and the line that registers them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Cache, StoppingCriteriaList

from llava.errors import OptionError
from llava.model.answer_logits import forward_answers
from llava.model.int8_linear import is_int8, refuse_saving
from llava.model.llava_arch import LlavaMetaForCausalLM
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.image_spans import image_spans
from llava.model.multimodal.merge_inputs import images_per_row
from llava.model.multimodal_encoder.tower_files import SAVED_FOLDER
from llava.protocols import Images, ImageSizes
from llava.token_clock import TokenClock

if TYPE_CHECKING:  # what the classes below are mixed into
    from transformers import PreTrainedConfig, PreTrainedModel
else:
    PreTrainedConfig = PreTrainedModel = object


class LlavaFields(PreTrainedConfig):  # type: ignore[misc]
    """Mixed in before a decoder's config, which keeps LLaVA's ``mm_*`` keys as they are found."""

    def to_dict(self) -> dict[str, Any]:
        """Return what transformers 5 writes, and the keys that older releases, and upstream with them, look for."""
        return with_old_names(super().to_dict())


def with_old_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers 5 writes of a decoder's config, and the keys that older releases look for."""
    rope = fields.get("rope_parameters") or {}
    added: dict[str, Any] = {}
    if "rope_theta" in rope:
        added["rope_theta"] = rope["rope_theta"]
        added["rope_scaling"] = _old_rope_scaling(rope)
    if fields.get("dtype") is not None:
        added["torch_dtype"] = fields["dtype"]
    return {**fields, **added}


def _old_rope_scaling(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``rope_parameters`` as older releases read them; None where nothing is scaled."""
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    plain = kind in ("linear", "dynamic") and rope.keys() <= {"rope_type", "type", "rope_theta", "factor"}
    if plain and isinstance(factor, int | float):
        return {"type": kind, "factor": float(factor)}  # upstream's transformers refuses a third field, and a factor 2
    return None if kind == "default" else {"type": kind, **rope}


class LlavaCausalLM(LlavaMetaForCausalLM, PreTrainedModel):  # type: ignore[misc]
    """Mixed in before a causal language model, whose decoder becomes ``build``'s; it answers about images.

    ``generate`` returns the new tokens only: the prompt goes in as embeddings.
    """

    # The vision tower reads its own weights, from here or elsewhere, when it is asked to.
    _keys_to_ignore_on_load_unexpected = (r"model\.vision_tower\.",)

    never_quantised: tuple[str, ...] = ("model.mm_projector", "lm_head")  # matched from the start of a name

    def build(self, decoder: nn.Module) -> None:
        """Complete a model that has nothing but its config yet: decoder and output layer."""
        config = self.config
        setattr(self, self.base_model_prefix, decoder)  # the name that its tensors have in checkpoints
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        *,
        answers_only: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder on token ids (B, t) whose image tags stand for ``images``.

        image_sizes: each image's (width, height). answers_only: make the logits (1, n, V) of the n positions alone that
        predict a label, in the rows' order, as the loss needs no others. Other keywords reach every decoder layer.
        """
        if inputs_embeds is None and input_ids is not None:
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes
                )
            )
        wanted = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": return_dict,
        }
        kwargs.update({name: value for name, value in wanted.items() if value is not None})
        others: dict[str, Any] = {
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": use_cache,
        }
        if answers_only and labels is not None:
            return forward_answers(self, labels, inputs_embeds=inputs_embeds, **others, **kwargs)
        if isinstance(logits_to_keep, int) and logits_to_keep == 1:
            # As an index: transformers slices otherwise, and on a slice of one position torch's CPU product first
            # copies the whole output matrix, which at 7B takes as long as two decoder layers of a prefill.
            prompt = input_ids if inputs_embeds is None else inputs_embeds
            logits_to_keep = torch.tensor([-1], device=None if prompt is None else prompt.device)
        return super().forward(
            input_ids=input_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **others,
            **kwargs,
        )

    def embed(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
    ) -> EmbeddedBatch:
        """Embed token ids (B, t) whose image tags stand for ``images``: what enters the decoder, (B, T, D).

        images, image_sizes: as ``forward`` takes them. Raises ImageError where tags and images do not fit.
        """
        _, position_ids, mask, _, embeds, labels = self.prepare_inputs_labels_for_multimodal(
            input_ids, position_ids, attention_mask, None, labels, images, image_sizes
        )
        if embeds is None:  # text only
            embeds = self.get_input_embeddings()(input_ids)
        seen = images if self.get_vision_tower() else None
        num_images = images_per_row(input_ids, attention_mask, seen)
        lengths = [] if seen is None else self.image_lengths(seen, image_sizes)
        spans = None
        if lengths is not None:
            cut = labels is not None
            spans = image_spans(input_ids, attention_mask, lengths, mask, embeds.shape[1], cut)
        return EmbeddedBatch(embeds, mask, position_ids, labels, num_images, spans)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        *,
        clock: TokenClock | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue the prompts ``inputs`` (B, t); what is returned holds the new tokens only.

        Rows may be padded on either side, as ``attention_mask`` (B, t) says; they are padded on the left for
        generation. clock: stamps every token. ``modalities`` may say, as for LLaVA-NeXT, that each tag is an "image".
        Other keywords are transformers'. Raises OptionError for ``inputs_embeds``, which are made here, and for videos.
        """
        _refuse_videos(kwargs.pop("modalities", None))
        if clock is not None:
            clock.called = time.perf_counter()
        if kwargs.pop("inputs_embeds", None) is not None:
            raise OptionError("generate() makes inputs_embeds from token ids and images; give it those")
        if inputs is None:
            inputs = kwargs.pop("input_ids", None)
        if inputs is None:
            raise OptionError("generate() needs the prompt's token ids, as inputs")
        kwargs.pop("position_ids", None)  # they follow from the mask
        mask = kwargs.pop("attention_mask", None)
        batch = self.embed(inputs, mask, images=images, image_sizes=image_sizes, **self.embedding_options(kwargs))
        return self.generate_from_embeds(batch.padded_left(), clock=clock, **kwargs)

    def embedding_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what ``embed`` also takes, of the keywords of ``generate``: nothing, for a class that adds nothing."""
        return {}

    def generate_from_embeds(self, batch: EmbeddedBatch, clock: TokenClock | None = None, **kwargs: Any) -> Any:
        """Continue prompts that are embedded and padded on the left; the part of ``generate`` to extend."""
        if clock is not None:
            kwargs["stopping_criteria"] = StoppingCriteriaList([clock, *(kwargs.get("stopping_criteria") or ())])
        if batch.position_ids is not None:  # otherwise they follow from the mask
            kwargs["position_ids"] = batch.position_ids
        return super().generate(inputs_embeds=batch.embeds, attention_mask=batch.attention_mask, **kwargs)

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save as transformers does, with config and processor of a vision tower whose weights are among the model's.

        A tower that an absolute path names is named by its folder in the checkpoint instead, which may then move.
        Raises OptionError for weights that were rounded to 8 bits on load.
        """
        if is_int8(self):
            refuse_saving()
        tower, name = self.get_vision_tower(), getattr(self.config, "mm_vision_tower", None)
        if tower is None or not tower.is_loaded:
            super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
            return
        if name and Path(name).is_absolute():
            self.config.mm_vision_tower = SAVED_FOLDER
        try:
            super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        finally:
            self.config.mm_vision_tower = name
        if is_main_process:
            tower.save_description(Path(save_directory))

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return one step's inputs, and the images for callers that generate from token ids."""
        step: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, past_key_values=past_key_values, inputs_embeds=inputs_embeds, **kwargs
        )
        if images is not None:
            step["images"] = images
        if image_sizes is not None:
            step["image_sizes"] = image_sizes
        return step


def _refuse_videos(modalities: Sequence[str] | None) -> None:
    """Raise OptionError unless every one of LLaVA-NeXT's ``modalities`` is one that can be answered."""
    others = sorted(set(modalities or ()) - {"image", "text"})
    if others:
        raise OptionError(
            f"modalities has {', '.join(map(repr, others))}; expected 'image' for each image. Videos are not "
            "supported; give some of the video's frames as images"
        )


def register(config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]) -> None:
    """Register a family with transformers' Auto classes."""
    AutoConfig.register(config_class.model_type, config_class)
    AutoModelForCausalLM.register(config_class, model_class)
