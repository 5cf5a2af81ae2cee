"""Which models are decoder-only language models that can be hooked."""

from __future__ import annotations

from typing import Any

from interp.errors import UnsupportedModel

_WAY_OUT = "pass a decoder-only (causal) language model such as 'gpt2'"


def require_decoder_config(config: Any, name: str) -> None:
    """Raise UnsupportedModel for encoders, encoder-decoders and models without a language head."""
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    if config.is_encoder_decoder:
        raise UnsupportedModel(
            f"{name!r} ({kind}) is an encoder-decoder model, whose heads attend to a second "
            f"sequence; {_WAY_OUT}."
        )
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and not getattr(config, "is_decoder", False):
        raise UnsupportedModel(
            f"{name!r} ({kind}) is an encoder-only model, which attends in both directions and "
            f"predicts no next token; {_WAY_OUT}."
        )
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not causal and "AutoModelForCausalLM" not in (getattr(config, "auto_map", None) or {}):
        raise UnsupportedModel(f"{name!r} ({kind}) is not a causal language model; {_WAY_OUT}.")


def require_decoder(module: Any) -> None:
    """The same for a module in memory, which must also be the one that makes logits."""
    name = type(module).__name__
    if name == "NativeModel":
        return
    if any("transformer_lens" in type(part).__module__ for part in module.modules()):
        raise UnsupportedModel(
            f"{name} has already been rewired by TransformerLens; pass the transformers model as "
            f"it was before, or its name."
        )
    if not hasattr(module, "config") or not hasattr(module, "get_output_embeddings"):
        raise UnsupportedModel(
            f"{name} is neither a transformers model nor a TransformerLens NativeModel; {_WAY_OUT}."
        )
    require_decoder_config(module.config, name)
    if module.get_output_embeddings() is None:
        raise UnsupportedModel(
            f"{name} has no unembedding, so it makes no logits; load it with AutoModelForCausalLM."
        )
