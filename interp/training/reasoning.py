"""How often a model that reasons on its own, by sampling, ends at the right answer."""

from __future__ import annotations

import random

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models import Model
from interp.tasks.coin_flip import ANSWER, THINKING, CoinFlip
from interp.training.vocabulary import all_words

TOP_P = 0.95


def sampled_accuracy(
    model: Model, *, flips: int, temperature: float, n: int, seed: int = 0
) -> Float[Tensor, " prompts"]:
    """1 where one sampled rationale and answer to a coin-flip question end right, else 0.

    The model is given the question and the words that open a rationale, and writes the rest itself.
    """
    task, rng = CoinFlip(flips=flips), random.Random(f"reasoning {seed}")
    examples = [task.draw(rng, all_words(task), "test") for _ in range(n)]
    prompts = [task.question(example) + THINKING for example in examples]
    tokens = torch.tensor([[model.bos_id, *model.encode(prompt)] for prompt in prompts])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        written = model.hf.generate(
            tokens.to(model.device),
            attention_mask=torch.ones_like(tokens).to(model.device),
            do_sample=True,
            temperature=temperature,
            top_p=TOP_P,
            max_new_tokens=4 * flips + 10,
            pad_token_id=model.pad_id,
        )
    texts = model.tokenizer.batch_decode(written[:, tokens.shape[1] :])
    answers = [text.partition(ANSWER)[2].strip().partition(".")[0] for text in texts]
    return torch.tensor(
        [
            float(answer == example.answer[0].strip())
            for answer, example in zip(answers, examples, strict=True)
        ]
    )
