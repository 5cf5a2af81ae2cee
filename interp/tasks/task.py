"""What a task is: word lists, a rule that makes examples of them, and a split."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from interp.errors import TaskError
from interp.models import Model
from interp.prompts import PromptSet
from interp.tasks.words import Group, Words, keep_single_tokens

Split = Literal["train", "test", "all"]
"""The examples that an embedded model may have been trained on, those held out, or both."""

HELD_OUT = 5
"""One combination of entities in this many is never seen in training."""


@dataclass(frozen=True)
class Example:
    """One prompt as text.

    Attributes:
        clean: The prompt; the answer follows it directly.
        corrupt: The counterfactual, with the same words but where the answer hangs on them.
        answer: Every word that is right, as it stands in the text (`" Mary"`).
        wrong: The words that it is compared with.
        roles: Spans of characters in `clean`, and in `corrupt` too.
        key: The entities that are asked for in combination; decides the split.
        context: Other combinations that the prompt states; training avoids held-out ones here too.
        template: Which wording it has.
    """

    clean: str
    corrupt: str
    answer: tuple[str, ...]
    wrong: tuple[str, ...]
    roles: dict[str, tuple[int, int]]
    key: str
    context: tuple[str, ...] = ()
    template: str = ""


def is_held_out(key: str) -> bool:
    """Whether a combination belongs to the test split. The same for ever, on every machine."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0


@dataclass(frozen=True)
class Task(ABC):
    """A behaviour to study, expressed in whatever words the model's tokenizer knows."""

    name: ClassVar[str]
    description: ClassVar[str]

    @abstractmethod
    def groups(self) -> dict[str, Group]:
        """The word lists that it draws from."""

    @abstractmethod
    def example(self, rng: random.Random, words: Words) -> Example:
        """One example, of either split."""

    def draw(self, rng: random.Random, words: Words, split: Split = "all") -> Example:
        """One example of a split.

        Raises:
            TaskError: The words that remain make no example of this split.
        """
        for _ in range(5_000):
            example = self.example(rng, words)
            held_out = is_held_out(example.key)
            if split == "all" or (split == "test" and held_out):
                return example
            if split == "train" and not held_out and not any(map(is_held_out, example.context)):
                return example
        raise TaskError(
            f"Task {self.name!r} makes no example of the split {split!r} from the words that this "
            "tokenizer keeps; use split='all'."
        )

    def document(self, rng: random.Random, words: Words) -> str:
        """A text to train on, of the training split."""
        example = self.draw(rng, words, "train")
        return example.clean + rng.choice(example.answer) + "."

    def sample(
        self, model: Model, n: int = 64, *, seed: int = 0, split: Split = "test"
    ) -> PromptSet:
        """`n` different prompts in words that are one token each for this model.

        Args:
            model: Whose tokenizer decides which words are kept; `notes["kept"]` says how many.
            n: Number of prompts.
            seed: The same seed gives the same prompts.
            split: "test" (the combinations that embedded models never saw in training), "train", or
                "all".

        Raises:
            TaskError: Too few words are single tokens, or fewer than `n` different prompts exist.
        """
        words, kept = keep_single_tokens(model, self.groups(), self.name)
        rng = random.Random(f"{self.name} {seed}")
        examples: dict[str, Example] = {}
        for _ in range(20 * n + 100):
            if len(examples) == n:
                break
            example = self.draw(rng, words, split)
            examples.setdefault(example.clean, example)
        if len(examples) < n:
            raise TaskError(
                f"Task {self.name!r} found {len(examples)} different prompts of the split "
                f"{split!r} and {n} were asked for; ask for fewer, or use split='all'."
            )
        drawn = list(examples.values())
        return PromptSet.from_strings(
            model,
            [example.clean for example in drawn],
            corrupt=[example.corrupt for example in drawn],
            answer=[example.answer for example in drawn],
            wrong=[example.wrong for example in drawn],
            roles={
                role: [example.roles.get(role) for example in drawn]
                for role in dict.fromkeys(role for example in drawn for role in example.roles)
            },
            task=self.name,
            notes={
                "seed": seed,
                "split": split,
                "kept": kept,
                "template": [example.template for example in drawn],
            },
        )
