"""The model card: what it is, what it was trained on, what it can do and what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from interp.training.reasoning import TOP_P
from interp.training.recipes import Recipe


def write_card(
    made: Recipe,
    folder: Path,
    *,
    parameters: int,
    settings: dict[str, Any],
    log: list[dict[str, Any]],
    measured: dict[str, Float[Tensor, " _"]],
    control: dict[str, Float[Tensor, " _"]],
    sampled: dict[tuple[int, float], Float[Tensor, " _"]],
) -> None:
    """Write `README.md` into the model's folder."""
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
{_reasoning(sampled)}"""
    (folder / "README.md").write_text(text)


_LOGGED = 64


def _row(
    made: Recipe,
    name: str,
    log: list[dict[str, Any]],
    values: Float[Tensor, " _"],
    control: Float[Tensor, " _"],
) -> str:
    accuracy = values.mean().item()
    halfway = next((r["step"] for r in log if name in r and r[name] >= accuracy / 2), "never")
    return (
        f"| {name} | {_accuracy(values)} | {control.mean().item():.3f} "
        f"| {made.wanted.get(name, '')} | {halfway} |"
    )


def _accuracy(values: Float[Tensor, " _"]) -> str:
    """Three cells: the accuracy, its interval, the number of prompts."""
    interval = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return f"{values.mean():.3f} | {interval.low:.3f}-{interval.high:.3f} | {len(values)}"


def _verdict(made: Recipe, measured: dict[str, Float[Tensor, " _"]]) -> str:
    missed = [name for name, target in made.wanted.items() if measured[name].mean().item() < target]
    if missed:
        return f"Did not reach the accuracy wanted: {', '.join(missed)}."
    return "Every task with a wanted accuracy reached it."


def _reasoning(sampled: dict[tuple[int, float], Float[Tensor, " _"]]) -> str:
    if not sampled:
        return ""
    rows = "\n".join(
        f"| {flips} flips at {temperature} | {_accuracy(values)} |"
        for (flips, temperature), values in sampled.items()
    )
    return f"""
## Reasoning on its own

Coin flips where the model writes the rationale and the answer itself, one sample a question at
this temperature and top-p {TOP_P}. Training had 1 to 6 flips, so more are longer than anything it
saw.

| flips and temperature | accuracy | interval | n |
|---|---|---|---|
{rows}
"""
