"""Coin flips: follow a state through a story, with or without writing it down."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from interp.errors import TaskError
from interp.tasks.task import Example, Task
from interp.tasks.words import Group, Words, read

SIDES = ("heads", "tails")
QUESTION = "\nQ: Is the coin heads up?\nA:"
THINKING = " Step by step:"
ANSWER = "The answer is"


@dataclass(frozen=True)
class CoinFlip(Task):
    """A coin is heads up. Mary flips the coin. Q: Is the coin heads up? A: -> no.

    With the rationale the prompt goes on "Step by step: Mary flips tails. The answer is", with what
    each person does and the side that is then up; without, "The answer is". After the CoinFlip data
    of Wei et al. 2022, in sentences of equal length, and with either side up at first. The
    counterfactual changes what the first person does (and the rationale that follows from it).
    Roles: START (the first side), ACTION (of the first person), and with a rationale LAST, the last
    side in it.

    Args:
        flips: Number of people; the embedded models were trained on 1 to 6.
        rationale: Whether the prompt contains the reasoning.
    """

    name: ClassVar[str] = "coin_flip"
    description: ClassVar[str] = "whether a coin is heads up after people flip or keep it"
    flips: int = 4
    rationale: bool = True

    def __post_init__(self) -> None:
        if self.flips < 1:
            raise TaskError(f"flips={self.flips} is no story; use 1 or more.")

    def groups(self) -> dict[str, Group]:
        return {
            "names": Group(read("words/names"), at_least=self.flips),
            "words": Group(["heads", "tails", "flips", "keeps", "yes", "no"], at_least=6),
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        people = rng.sample(words["names"], self.flips)
        actions = [rng.random() < 0.5 for _ in people]
        first = rng.choice(SIDES)
        clean, sides = _story(first, people, actions, self.rationale)
        changed = [not actions[0], *actions[1:]]
        corrupt, _ = _story(first, people, changed, self.rationale)
        answers = (" yes", " no") if sides[-1] == "heads" else (" no", " yes")
        start, action = len("A coin is "), clean.index(people[0]) + len(people[0]) + 1
        roles = {"START": (start, start + 5), "ACTION": (action, action + 5)}
        if self.rationale:
            last = len(clean) - len(f"{sides[-1]}. {ANSWER}")
            roles["LAST"] = (last, last + len(sides[-1]))
        return Example(
            clean=clean,
            corrupt=corrupt,
            answer=answers[:1],
            wrong=answers[1:],
            roles=roles,
            key=f"coin {first} "
            + " ".join(f"{p} {a}" for p, a in zip(people, actions, strict=True)),
            template=f"{self.flips} flips",
        )

    def question(self, example: Example) -> str:
        """The story and its question, up to "A:", for a model that reasons on its own."""
        return example.clean[: example.clean.index(QUESTION) + len(QUESTION)]

    def document(self, rng: random.Random, words: Words) -> str:
        """1 to 6 people; two in three documents have the rationale."""
        task = CoinFlip(flips=rng.randint(1, 6), rationale=rng.random() < 2 / 3)
        example = task.draw(rng, words, "train")
        return f"{example.clean}{example.answer[0]}."


def _story(
    first: str, people: list[str], actions: list[bool], rationale: bool
) -> tuple[str, list[str]]:
    """The prompt, and the side that is up after each person."""
    side, sides = SIDES.index(first), []
    for flipped in actions:
        side ^= int(flipped)
        sides.append(SIDES[side])
    told = " ".join(
        f"{person} {'flips' if flipped else 'keeps'} the coin."
        for person, flipped in zip(people, actions, strict=True)
    )
    steps = ", ".join(
        f"{person} {'flips' if flipped else 'keeps'} {up}"
        for person, flipped, up in zip(people, actions, sides, strict=True)
    )
    reasoning = f"{THINKING} {steps}." if rationale else ""
    return f"A coin is {first} up. {told}{QUESTION}{reasoning} {ANSWER}", sides
