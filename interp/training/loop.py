"""The training loop: deterministic, checkpointed, resumable."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.errors import TrainingError
from interp.models import load
from interp.progress import is_wanted
from interp.training.checkpoint import claim, load_newest, save_state
from interp.training.evaluate import accuracies
from interp.training.recipes import Precision, Recipe, recipe, untrained
from interp.training.release import release, save_checkpoint

WARMUP = 200
EVALUATE_EVERY = 250
SAVE_EVERY = 100
EVALUATION_PROMPTS = 64


def train_language_model(
    name: str,
    *,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> Path:
    """Train an embedded model from nothing; the same seed gives the same weights on one machine.

    A run that was killed goes on where it stopped when it is started again with the same settings.

    Args:
        name: "polymath", "polymath-llama" or "induction".
        steps: Optimiser steps; the recipe's own number by default.
        seed: Of the initial weights and of the data.
        out: Folder of the run; `runs/NAME-seed-SEED` by default. Ends up holding the model.
        device: Where to train: CUDA if there is one, else the CPU.
        precision: Of the forward and backward pass; the recipe's own by default.

    Returns:
        The folder, which `interp.load` loads.

    Raises:
        TrainingError: Unknown name, no steps, or the folder holds a run with other settings.
    """
    made = recipe(name)
    steps = made.steps if steps is None else steps
    if steps < 1:
        raise TrainingError(f"steps={steps} trains nothing; use 1 or more.")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(out) if out is not None else Path("runs") / f"{name}-seed-{seed}"
    precision = precision or made.precision
    settings = {"name": name, "steps": steps, "seed": seed, "precision": precision}
    claim(folder, settings)

    module = untrained(made, seed=seed).to(place)
    if place == "cpu" and isinstance(module, PreTrainedModel):
        module.set_attn_implementation("eager")  # for short rows, half the time of the fused kernel
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=made.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    done = load_newest(folder / "state", module, optimizer)
    log = Log(folder / "log.jsonl", upto=done)
    if done == 0:
        _keep(made, module, folder, log, step=0)

    module.train()
    with _progress_bar() as bar:
        task = bar.add_task(name, total=steps, completed=done, loss="")
        for step in range(done + 1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = made.learning_rate * _schedule(step, steps)
            tokens = made.data.batch(step, made.rows, seed=seed).to(place)
            with torch.autocast(
                place.split(":")[0], torch.bfloat16, enabled=precision == "bfloat16"
            ):
                loss = _loss(module, tokens)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            if step % 10 == 0:
                bar.update(task, completed=step, loss=f"loss {loss.item():.3f}")
            if step % 50 == 0 or step == steps:
                log.write(step=step, loss=loss.item())
            if step in made.shipped or step % EVALUATE_EVERY == 0 or step == steps:
                _keep(made, module, folder, log, step=step)
            if step % SAVE_EVERY == 0 or step == steps:
                save_state(folder / "state", step, module, optimizer)
        bar.update(task, completed=steps)
    release(made, module, folder, settings=settings, log=log.records())
    return folder


def _loss(module: nn.Module, tokens: Int[Tensor, "rows pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of each next token, in nats."""
    output = module(tokens)
    logits = output if isinstance(output, Tensor) else output.logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def _schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine down to a tenth."""
    warmup = min(WARMUP, max(1, steps // 10))
    if step <= warmup:
        return step / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * along))


def _keep(made: Recipe, module: nn.Module, folder: Path, log: Log, *, step: int) -> None:
    """Measure every task on a few held-out prompts, and keep the weights if they are shipped."""
    module.eval()
    model = load(module, made.data.tokenizer, check=False)
    measured = accuracies(model, made.tasks, n=EVALUATION_PROMPTS, scarce=made.scarce)
    log.write(step=step, **{task: values.mean().item() for task, values in measured.items()})
    if step in made.shipped:
        save_checkpoint(module, folder / "checkpoints", step)
    module.train()


class Log:
    """A file of JSON lines; what a killed run wrote after its last saved state is dropped."""

    def __init__(self, path: Path, *, upto: int) -> None:
        self.path = path
        kept = [record for record in self.records() if record["step"] <= upto and upto > 0]
        path.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def records(self) -> list[dict[str, Any]]:
        """What was written, in order; a line cut short by a kill is left out."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line[-1:] == "}"]

    def write(self, **record: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not is_wanted(console),
    )
