"""The tokens that random text is made of."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models import Model


def ordinary_tokens(model: Model) -> Int[Tensor, " tokens"]:
    """Ids that the tokenizer knows and does not call special; no padding of the vocabulary."""
    known = min(len(model.tokenizer), model.geometry.d_vocab)
    special = {*model.tokenizer.all_special_ids, model.bos_id}
    return torch.tensor([token for token in range(known) if token not in special])
