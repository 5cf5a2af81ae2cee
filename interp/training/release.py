"""From a trained module to the folder that is shipped: small weights, tokenizer, card, log."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from interp.models import load, native
from interp.training.card import write_card
from interp.training.evaluate import accuracies
from interp.training.reasoning import sampled_accuracy
from interp.training.recipes import Recipe, untrained

PROMPTS = 1_000
"""Held-out prompts a task for the accuracies of the card, where there are as many."""

SAMPLES = 200
"""Questions for each line of its table of reasoning."""


def release(
    made: Recipe,
    module: Any,  # a NativeModel or a transformers model
    folder: Path,
    *,
    settings: dict[str, Any],
    log: list[dict[str, Any]],
) -> None:
    """Write the model, measured as it is shipped: with weights rounded to half precision."""
    rounded = copy.deepcopy(module).cpu().half()
    if native.is_native(module):
        native.save(rounded, made.data.tokenizer, folder)
    else:
        module.save_pretrained(folder, state_dict=rounded.state_dict())
        made.data.tokenizer.save_pretrained(folder)
    model = load(rounded.float(), made.data.tokenizer, check=False)
    control = load(untrained(made, seed=settings["seed"]), made.data.tokenizer, check=False)
    (folder / "training.json").write_text(
        json.dumps({"settings": settings, "log": log}, indent=1) + "\n"
    )
    write_card(
        made,
        folder,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        settings=settings,
        log=log,
        measured=accuracies(model, made.tasks, n=PROMPTS, scarce=made.scarce),
        control=accuracies(control, made.tasks, n=PROMPTS, scarce=made.scarce),
        sampled={
            (flips, temperature): sampled_accuracy(
                model, flips=flips, temperature=temperature, n=SAMPLES
            )
            for flips, temperature in made.reasoning
        },
    )


def save_checkpoint(module: nn.Module, folder: Path, step: int) -> None:
    """The weights after a step, in half precision, as `interp.load(..., revision=)` finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / f"step-{step:06}.safetensors")
