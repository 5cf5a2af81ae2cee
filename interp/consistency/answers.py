"""Paths to an answer: sampled, read by rule, and seen from every layer."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.consistency.latent import latent_predictions
from interp.consistency.questions import Question, label_tokens, labels_of
from interp.generation.generate import generate
from interp.models import Model
from interp.saved import Saved


@dataclass(frozen=True, eq=False)
class Answers(Saved):
    """What a model answered, on several paths for each question.

    Attributes:
        questions: What was asked.
        texts: What was written on each path, question by question.
        given: The number of the label that each path gives; -1 where the rule found none.
        log_probs: Mean log probability of a token (nats), at temperature 1.
        lengths: Tokens that were written.
        read: Tokens of prompt and path up to the answer, which is predicted at the last of them;
            empty where the rule found none.
        seconds: What sampling all of them took.
    """

    questions: tuple[Question, ...]
    texts: tuple[str, ...]
    given: Int[Tensor, "questions paths"]
    log_probs: Float[Tensor, "questions paths"]
    lengths: Int[Tensor, "questions paths"]
    read: tuple[tuple[int, ...], ...]
    seconds: float

    @property
    def right(self) -> Bool[Tensor, "questions paths"]:
        """Whether each path gives the right label."""
        return self.given == torch.tensor([question.right for question in self.questions])[:, None]

    def latents(
        self, model: Model, *, progress: bool = False
    ) -> Float[Tensor, "questions paths layer labels"]:
        """Latent predictions of a model at the answer of each path; NaN where there is none.

        Another model of the same tokenizer may read them too.

        Raises TaskError if the tokenizer does not tell the labels apart.
        """
        words = label_tokens(model, self.questions[0])
        known = [row for row, tokens in enumerate(self.read) if tokens]
        shape = (len(self.read), model.geometry.n_layers + 1, len(words))
        found = torch.full(shape, torch.nan, dtype=torch.float64)
        if known:
            texts = [self.read[row] for row in known]
            found[known] = latent_predictions(model, texts, words, progress=progress)
        return found.unflatten(0, self.given.shape)


def answer(
    model: Model,
    questions: Sequence[Question],
    *,
    paths: int = 40,
    rationale: bool = True,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> Answers:
    """Let a model answer each question on several sampled paths.

    Args:
        model: In eval mode.
        questions: They share their labels.
        paths: Of each question.
        rationale: Whether the model is made to think before it answers, or to answer at once.
        temperature, top_p, max_new_tokens, seed: As of `interp.generation.generate`.
        progress: Show a bar.

    Raises:
        TaskError: Questions with different labels, or with labels that the tokenizer confuses.
        PromptError: A question that leaves no room in the context.
    """
    labels_of(questions)
    label_tokens(model, questions[0])
    start = time.perf_counter()
    prompts = [question.prompt(rationale=rationale) for question in questions]
    written = generate(
        model,
        prompts,
        n=paths,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        progress=progress,
    )
    seconds = time.perf_counter() - start
    bos = [] if model.bos_id is None else [model.bos_id]
    given, read = [], []
    for row, text in enumerate(written.texts):
        question = questions[row // paths]
        opening = question.opening(rationale=rationale)
        found = question.read(opening + text, start=len(opening))
        given.append(-1 if found is None else found[0])
        if found is None:
            read.append(())
            continue
        tokens = written.tokens[row, : int(written.lengths[row])].tolist()
        before = tokens_before(model, tokens, found[1] - len(opening))
        prompt = [*bos, *model.encode(prompts[row // paths])]
        read.append((*prompt, *tokens[:before]))
    shape = (len(questions), paths)
    lengths = written.lengths
    return Answers(
        questions=tuple(questions),
        texts=written.texts,
        given=torch.tensor(given).view(shape),
        log_probs=(written.log_probs.double().sum(dim=-1) / lengths).view(shape),
        lengths=lengths.view(shape),
        read=tuple(read),
        seconds=seconds,
    )


def tokens_before(model: Model, tokens: list[int], character: int) -> int:
    """How many of these tokens write what stands before a character of their text."""
    return (
        bisect_right(
            range(len(tokens) + 1),
            character,
            key=lambda count: len(model.tokenizer.decode(tokens[:count])),
        )
        - 1
    )
