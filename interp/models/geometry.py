"""Geometry: the sizes of a model, read from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interp.errors import UnsupportedModel

_UNLIMITED_CONTEXT = 2048  # ALiBi models state no maximum length; this is what they were trained on


@dataclass(frozen=True)
class Geometry:
    """Sizes of a decoder. `d_head` is read from the config: it is not always d_model / n_heads."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int

    @classmethod
    def from_config(cls, config: Any, architecture: str) -> Geometry:
        """Read a `transformers` config, or the text part of a multimodal one.

        Raises UnsupportedModel for a config without attention heads, such as Mamba's.
        """
        text = config.get_text_config(decoder=True)
        heads = getattr(text, "num_attention_heads", None)
        if not isinstance(heads, int):
            raise UnsupportedModel(
                f"{architecture} has no single number of attention heads in its config "
                f"(num_attention_heads is {heads!r}); pass a decoder-only attention model."
            )
        return cls(
            architecture=architecture,
            n_layers=text.num_hidden_layers,
            n_heads=heads,
            n_kv_heads=_kv_heads(text, heads),
            d_head=getattr(text, "head_dim", None) or text.hidden_size // heads,
            d_model=text.hidden_size,
            d_vocab=text.vocab_size,
            n_ctx=_context_length(text),
        )

    @classmethod
    def from_native(cls, config: Any) -> Geometry:
        """Read the `TransformerBridgeConfig` of a TransformerLens-native model."""
        return cls(
            architecture="TransformerLensNative",
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            n_kv_heads=config.n_key_value_heads or config.n_heads,
            d_head=config.d_head,
            d_model=config.d_model,
            d_vocab=config.d_vocab,
            n_ctx=config.n_ctx,
        )


def _kv_heads(text: Any, heads: int) -> int:
    # Falcon: the old decoder is multi-query or full, whatever num_kv_heads says.
    # GPT-BigCode has multi_query alone.
    if not getattr(text, "new_decoder_architecture", False) and hasattr(text, "multi_query"):
        return 1 if text.multi_query else heads
    for name in ("num_key_value_heads", "num_kv_heads"):
        if getattr(text, name, None):
            return getattr(text, name)
    return heads


def _context_length(text: Any) -> int:
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        if getattr(text, name, None):
            return getattr(text, name)
    return _UNLIMITED_CONTEXT
