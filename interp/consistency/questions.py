"""`Question`: what a model reasons about, and the rule that reads its answer off what it wrote."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import TaskError
from interp.models import Model
from interp.saved import register
from interp.tasks import Split
from interp.tasks.coin_flip import ANSWER, THINKING, CoinFlip
from interp.tasks.words import keep_single_tokens


@dataclass(frozen=True, eq=False)
class _Choice:
    """Labels, as what questions share: equal only to those of the same tuple.

    Without it each of many questions with many labels would go through all of them.
    """

    labels: tuple[str, ...]

    def __hash__(self) -> int:
        return id(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Choice) and self.labels is other.labels


@lru_cache(maxsize=8)
def _numbers(choice: _Choice) -> dict[str, int]:
    """The number of each label; of those that are given twice, the last."""
    return {label: number for number, label in enumerate(choice.labels)}


@lru_cache(maxsize=8)
def _small(choice: _Choice) -> dict[str, int]:
    """The number of each label in small letters; of those that are alike, the first."""
    numbered = [*enumerate(choice.labels)]
    return {label.lower(): number for number, label in reversed(numbered)}


@lru_cache(maxsize=8)
def _behind(conclusion: str, choice: _Choice) -> re.Pattern[str]:
    """Any label behind a conclusion; the longest that is there."""
    longest = sorted(map(re.escape, choice.labels), key=len, reverse=True)
    return re.compile(
        rf"{re.escape(conclusion.strip())}\s*({'|'.join(longest)})(?!\w)", re.IGNORECASE
    )


@register
@dataclass(frozen=True)
class Question:
    """A question with a closed list of answers.

    >>> question = Question("Is ice cold?\\nA:", answer="yes", labels=("yes", "no"))
    >>> question.prompt(rationale=True)
    'Is ice cold?\\nA: Step by step:'
    >>> question.read(" Step by step: ice is frozen. The answer is yes.")
    (0, 44)

    Attributes:
        text: What the model is given, up to where it begins to answer.
        answer: The right label.
        labels: All answers there are, in an order that a set of questions shares.
        thinking: What opens a rationale.
        conclusion: What stands before an answer.
        rule: A regular expression whose first group is the answer; by default a label behind
            `conclusion`, in capitals or not. The first match counts.

    Raises:
        TaskError: Fewer than two labels, an answer that is none of them, or a rule that is no
            regular expression with a group.
    """

    text: str
    answer: str
    labels: tuple[str, ...]
    thinking: str = " Step by step:"
    conclusion: str = " The answer is"
    rule: str = ""

    def __post_init__(self) -> None:
        numbers = _numbers(_Choice(self.labels))
        if len(numbers) != len(self.labels) or len(numbers) < 2:
            raise TaskError(
                f"The labels {list(self.labels)} are no choice; give two or more different ones."
            )
        if self.answer not in numbers:
            raise TaskError(
                f"The answer {self.answer!r} is none of the labels {list(self.labels)}; add it."
            )
        try:
            groups = self.pattern.groups
        except re.error as error:
            raise TaskError(
                f"The rule {self.rule!r} is no regular expression ({error})."
            ) from error
        if groups < 1:
            raise TaskError(f"The rule {self.rule!r} has no group; put the answer in parentheses.")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The rule, compiled."""
        if self.rule:
            return re.compile(self.rule, re.IGNORECASE)
        return _behind(self.conclusion, _Choice(self.labels))

    @property
    def right(self) -> int:
        """The number of the right label."""
        return _numbers(_Choice(self.labels))[self.answer]

    @property
    def hash(self) -> str:
        """Of its text: 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def opening(self, *, rationale: bool) -> str:
        """The first words of an answer, which the model is given."""
        return self.thinking if rationale else self.conclusion

    def prompt(self, *, rationale: bool) -> str:
        """What the model continues: it thinks first, or answers at once."""
        return self.text + self.opening(rationale=rationale)

    def read(self, text: str, *, start: int = 0) -> tuple[int, int] | None:
        """The label that a text gives, and the character at which it begins.

        None if the rule finds no label that begins at character `start` or later.
        """
        known = _small(_Choice(self.labels))
        for match in self.pattern.finditer(text):
            if match.start(1) >= start and match[1].lower() in known:
                return known[match[1].lower()], match.start(1)
        return None


def coin_flips(
    model: Model, task: CoinFlip, n: int, *, seed: int = 0, split: Split = "test"
) -> list[Question]:
    """`n` different stories of a coin, in names that the tokenizer keeps.

    The task's own `rationale` plays no part: a question is asked with and without.

    Raises TaskError if there are too few names or stories.
    """
    words, _ = keep_single_tokens(model, task.groups(), task.name)
    rng = random.Random(f"questions {seed}")
    found: dict[str, Question] = {}
    for _ in range(20 * n + 100):
        if len(found) == n:
            return list(found.values())
        example = task.draw(rng, words, split)
        text, answer = task.question(example), example.answer[0].strip()
        found[text] = Question(
            text, answer, ("yes", "no"), thinking=THINKING, conclusion=f" {ANSWER}"
        )
    raise TaskError(
        f"There are {len(found)} different stories of {task.flips} flips in the split {split!r} "
        f"and {n} were asked for; ask for fewer, or for more flips."
    )


def labels_of(questions: Sequence[Question]) -> tuple[str, ...]:
    """The labels that all questions share.

    Raises TaskError if there are no questions, or if their labels differ.
    """
    if not questions:
        raise TaskError("There are no questions; give at least one.")
    shared = questions[0].labels
    for question in questions:
        if question.labels is not shared and question.labels != shared:
            raise TaskError(
                f"The labels {list(question.labels)} of {question.text[:60]!r} are not those of "
                f"the first question, {list(shared)}; measure each kind on its own."
            )
    return shared


def label_tokens(model: Model, question: Question) -> Int[Tensor, " labels"]:
    """The token with which each label begins behind the conclusion.

    Raises TaskError if two labels begin with the same token, or with one that is unknown.
    """
    written = [model.encode(f"{question.conclusion.strip()} {label}") for label in question.labels]
    bare = len(model.encode(question.conclusion.strip()))
    shared = 0
    while len({tuple(tokens[: shared + 1]) for tokens in written}) == 1:
        shared += 1
    first = [tokens[shared : shared + 1] for tokens in written]
    told_apart = len({tuple(token) for token in first}) == len(first) and all(first)
    begun = str(model.tokenizer.decode(written[0][bare:shared])).strip()
    if not told_apart or begun or [model.tokenizer.unk_token_id] in first:
        raise TaskError(
            f"The tokenizer of {model.id} does not tell the labels {list(question.labels)} apart "
            "by the token with which each begins; choose other labels."
        )
    return torch.tensor(first)[:, 0]


def questions_hash(hashes: Iterable[str]) -> str:
    """One hash of a set of questions, whatever their order."""
    return hashlib.sha256(" ".join(sorted(hashes)).encode()).hexdigest()[:16]


def require_fresh(questions: Iterable[Question], fitted_on: Collection[str], what: str) -> None:
    """Raise TaskError if a question is one of those that something was fitted on."""
    for question in questions:
        if question.hash in fitted_on:
            raise TaskError(
                f"{what} were fitted on the question {question.text[:60]!r}; score other questions "
                "than those of the calibration."
            )
