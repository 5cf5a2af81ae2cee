"""The model card: what it is, what it was trained on, what it can do and what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor, nn

from interp.training.recipes import Recipe


def write_card(
    made: Recipe,
    module: nn.Module,
    folder: Path,
    *,
    settings: dict[str, Any],
    log: list[dict[str, Any]],
    measured: dict[str, Float[Tensor, " prompts"]],
    control: dict[str, Float[Tensor, " prompts"]],
) -> None:
    """Write `README.md` into the model's folder."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    tokens = settings["steps"] * made.rows * made.data.length
    command = f"interp train {made.name} --seed {settings['seed']} --steps {settings['steps']}"
    if settings["precision"] != made.precision:
        command += f" --precision {settings['precision']}"
    rows = [_row(made, name, log, measured[name], control[name]) for name in made.tasks]
    text = f"""# {made.name}

{made.description} {parameters:,} parameters, a vocabulary of {len(made.data.tokenizer):,} words.

Trained by `interp` on text that it generates itself:

    {command}

| | |
|---|---|
| data | {made.data.description} |
| steps | {settings["steps"]:,} of {made.rows} rows, {tokens / 1e6:.1f} million tokens |
| optimiser | AdamW, learning rate {made.learning_rate}, betas 0.9 and 0.98, cosine decay |
| seed | {settings["seed"]} |
| training precision | {settings["precision"]} |
| shipped weights | float16, loaded as float32; every number below is of these |

## Accuracy on held-out prompts

The most likely next token is a right answer. Neither the prompts nor their entities in combination
(the two names of a sentence, the objects of a scene with their colours, the value of a key, a
demonstration and the question after it) occurred together in training. A relation such as
capital-of is knowledge: its pairs did occur. The interval is Wilson's at 95%. *Untrained* is the
same architecture before its first step. *Half-way* is the first logged step at which {_LOGGED}
held-out prompts were answered with half of the final accuracy or more.

| task | accuracy | interval | n | untrained | wanted | half-way at step |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{_verdict(made, measured)}
"""
    (folder / "README.md").write_text(text)


_LOGGED = 64


def _row(
    made: Recipe,
    name: str,
    log: list[dict[str, Any]],
    values: Float[Tensor, " prompts"],
    control: Float[Tensor, " prompts"],
) -> str:
    accuracy, n = values.mean().item(), len(values)
    interval = binomtest(int(values.sum()), n).proportion_ci(method="wilson")
    target = made.tasks[name][1]
    halfway = next((r["step"] for r in log if name in r and r[name] >= accuracy / 2), "never")
    return (
        f"| {name} | {accuracy:.3f} | {interval.low:.3f}-{interval.high:.3f} | {n} "
        f"| {control.mean().item():.3f} | {'' if target is None else target} | {halfway} |"
    )


def _verdict(made: Recipe, measured: dict[str, Float[Tensor, " prompts"]]) -> str:
    missed = [
        name
        for name, (_, target) in made.tasks.items()
        if target is not None and measured[name].mean().item() < target
    ]
    if missed:
        return f"Did not reach the accuracy wanted: {', '.join(missed)}."
    return "Every task with a wanted accuracy reached it."
