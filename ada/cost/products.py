"""Lists the matrix products of each part of a model under a plan, from shapes alone.

This is the only place that counts operations: ``flops.py`` adds up the products' FLOPs, ``roofline.py`` their times.
Norms, rotary embeddings, softmax and activations are left out, as torch's ``FlopCounterMode`` leaves them out.
Attention counts every query against every key, as the products run on a full matrix; a fused kernel that skips the
upper triangle does about half of that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import nn

from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.scheduling.latency_token import ENCODING_SIZE
from ada.scheduling.units import Units
from llava.protocols import DecoderConfig

ELEMENT_BYTES = 2  # bfloat16 or float16


class Product(NamedTuple):
    """One matrix product: FLOPs, two for each multiply-add, and elements read and written."""

    flops: int
    elements: int

    @property
    def bytes(self) -> int:
        """Bytes read and written, in 16 bits an element."""
        return self.elements * ELEMENT_BYTES


Products = dict[str, list[Product]]
"""Products by part: ``vision_tower, projector, prefix, tunable, lm_head, scheduler``, in this order."""


class VisionConfig(Protocol):
    """Kind and sizes of a vision tower, as transformers' ``CLIPVisionConfig`` and ``SiglipVisionConfig`` name them."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_channels: int
    image_size: int
    patch_size: int


def head_size(config: DecoderConfig) -> int:
    """Return the width of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def linear(rows: int, inner: int, outer: int) -> Product:
    """Return the product of (rows, inner) activations with (inner, outer) weights."""
    return Product(2 * rows * inner * outer, inner * outer + rows * (inner + outer))


def attention(queries: int, keys: int, query_width: int, key_width: int) -> Product:
    """Return queries by keys and scores by values as one product: fused, the scores stay on the chip.

    queries, keys: positions. query_width, key_width: elements of a position, over all heads.
    """
    return Product(4 * queries * keys * query_width, 2 * queries * query_width + 2 * keys * key_width)


def layer_products(config: DecoderConfig, plan: LayerPlan, num_switches: int, queries: int, keys: int) -> list[Product]:
    """List the products of one decoder layer under a plan: ``queries`` new positions that attend to ``keys``."""
    hidden = config.hidden_size
    key_width = len(plan.heads) * (config.num_key_value_heads // num_switches) * head_size(config)
    query_width = key_width * (config.num_attention_heads // config.num_key_value_heads)
    neurons = plan.neurons(config.intermediate_size, num_switches)
    products = []
    if plan.heads:
        products += [linear(queries, hidden, query_width), linear(queries, query_width, hidden)]
        products += [linear(queries, hidden, key_width)] * 2
        products.append(attention(queries, keys, query_width, key_width))
    if plan.neuron_groups:
        products += [linear(queries, hidden, neurons)] * 2 + [linear(queries, neurons, hidden)]
    return products


class LateReading(NamedTuple):
    """What layers from ``first_layer`` on read of a prompt: ``positions``, chosen by the products of ``selection``."""

    first_layer: int
    positions: int
    selection: Sequence[Product] = ()


def decoder_products(
    config: DecoderConfig,
    units: Units,
    plan: ExecutionPlan,
    queries: int,
    keys: int,
    scored: int = 1,
    late: LateReading | None = None,
) -> Products:
    """List the products of the decoder: its layers, split at layer P, and the output layer for ``scored`` positions.

    late: what later layers read, where that is less: positions of a prompt, or keys of a token.
    """
    layers = []
    for index, layer in enumerate(plan.layers):
        read = queries, keys
        if late is not None and index >= late.first_layer:
            read = min(queries, late.positions), late.positions
        layers.append(layer_products(config, layer, plan.num_switches, *read))
    return {
        "prefix": [product for layer in layers[: units.num_prefix_layers] for product in layer],
        "tunable": [product for layer in layers[units.num_prefix_layers :] for product in layer],
        "lm_head": [linear(scored, config.hidden_size, config.vocab_size)],
    }


class ImageEncoding(NamedTuple):
    """How a token selector has images encoded, where that is not as they are; None for what is as ever.

    sides: patches along a side of each crop. projected: positions that leave the projector. selection: the selector's
    own products.
    """

    sides: Sequence[int] | None = None
    projected: int | None = None
    selection: Sequence[Product] = ()


def vision_products(vision: VisionConfig, layers: int, side: int | None = None) -> list[Product]:
    """List the products of the patch embedding and the first ``layers`` layers of a vision tower on one image.

    side: patches along a side of the image, by default those of the tower's own size.
    """
    patches = (side or vision.image_size // vision.patch_size) ** 2
    tokens = patches + (vision.model_type != "siglip_vision_model")  # CLIP's have a class token
    width, inner = vision.hidden_size, vision.intermediate_size
    layer = [linear(tokens, width, width)] * 4 + [attention(tokens, tokens, width, width)]
    layer += [linear(tokens, width, inner), linear(tokens, inner, width)]
    return [linear(patches, vision.num_channels * vision.patch_size**2, width), *(layer * layers)]


def projector_products(projector: nn.Module, rows: int) -> list[Product]:
    """List the products of a projector's linear layers on ``rows`` image positions; none without images."""
    if not rows:
        return []
    layers: list[Any] = [module for module in projector.modules() if hasattr(module, "in_features")]
    return [linear(rows, layer.in_features, layer.out_features) for layer in layers]


def scheduler_products(config: DecoderConfig, units: Units) -> list[Product]:
    """List the products of the latency encoder and the scoring head, which run once a prompt."""
    width = config.hidden_size
    scores = units.num_tunable_layers * (1 if units.kind == "L" else 2 * units.num_switches)
    return [linear(1, ENCODING_SIZE, width), linear(1, width, width), linear(1, width, scores)]


def prefill_products(
    config: DecoderConfig,
    units: Units,
    plan: ExecutionPlan,
    prompt_tokens: int,
    *,
    num_images: int = 0,
    vision: VisionConfig | None = None,
    vision_layers: int = 0,
    projector: nn.Module | None = None,
    image_tokens: int = 0,
    has_scheduler: bool = True,
    scored: int = 1,
    late: LateReading | None = None,
    encoding: ImageEncoding | None = None,
) -> Products:
    """List all products of a prefill by part; one of ``token_selection`` is there where image tokens are chosen.

    prompt_tokens: positions that enter the decoder, image tokens and latency token included. vision: the tower's
    config, of which ``vision_layers`` layers run on each image. image_tokens: positions that leave the projector, over
    all images. scored: positions that get logits; generation needs those of the last one. late, encoding: of calls that
    leave image tokens out.
    """
    known = encoding or ImageEncoding()
    sides: Sequence[int | None] = [None] * num_images if known.sides is None else known.sides
    if known.projected is not None:
        image_tokens = known.projected
    tower = [] if vision is None else [vision_products(vision, vision_layers, side) for side in sides]
    selection = [*known.selection, *(() if late is None else late.selection)]
    products = {
        "vision_tower": [product for image in tower for product in image],
        "projector": [] if projector is None else projector_products(projector, image_tokens),
        **decoder_products(config, units, plan, prompt_tokens, prompt_tokens, scored, late),
        "scheduler": scheduler_products(config, units) if has_scheduler else [],
    }
    return {**products, "token_selection": selection} if selection or late is not None else products


def fastv_products(config: DecoderConfig, positions: int) -> list[Product]:
    """List the products of FastV's criterion: the last position's query against the keys of all ``positions``."""
    queries, keys = (heads * head_size(config) for heads in (config.num_attention_heads, config.num_key_value_heads))
    scores = Product(2 * positions * queries, positions * keys + queries)
    return [linear(1, config.hidden_size, queries), linear(positions, config.hidden_size, keys), scores]


def scorer_products(config: DecoderConfig, scorer: nn.Module, positions: int) -> list[Product]:
    """List the products of a learned token scorer: its projections of ``positions`` and of the latency token."""
    width: int = config.hidden_size
    images, latency = (getattr(scorer, name).out_features for name in ("image_proj", "latency_proj"))
    return [linear(positions, width, images), linear(1, width, latency), linear(positions, width, 1)]


def diversity_products(config: DecoderConfig, tokens: int) -> list[Product]:
    """List the products of DivPrune: the cosine of each of an image's ``tokens`` with each other one."""
    return [linear(tokens, config.hidden_size, tokens)]


def class_attention_products(width: int, keys: int, crops: int) -> list[Product]:
    """List the products of the class token's query with the ``keys`` of each crop, and of making both.

    width: of the vision tower.
    """
    return [linear(1, width, width), linear(keys, width, width), linear(1, width, keys)] * crops


def merging_products(width: int, kept: int, tokens: int) -> list[Product]:
    """List the products of PruMerge: of the ``kept`` tokens, all but the last are compared with all ``tokens``.

    width: of the vision tower.
    """
    return [linear(kept - 1, width, tokens)]
