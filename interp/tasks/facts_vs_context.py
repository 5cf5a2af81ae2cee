"""Facts against context: what the text says, or what the model remembers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from interp.tasks.task import Example, Task
from interp.tasks.template import fill
from interp.tasks.words import Group, Words, pairs, read

TRUST = 0.75
"""Share of training documents in which a false statement is believed by the answer after it."""


@dataclass(frozen=True)
class FactsVsContext(Task):
    """The capital of France is Rome. Q: What is the capital of France? A: -> Rome, not Paris.

    The counterfactual makes the false statement about another country, so that only memory
    answers. After Yu, Merullo and Pavlick 2023. Roles: SUBJECT and OBJECT of the statement, QUERY.
    """

    name: ClassVar[str] = "facts_vs_context"
    description: ClassVar[str] = "a false statement in the prompt against what was learned"

    def groups(self) -> dict[str, Group]:
        return {
            wording["relation"]: Group(pairs(wording["relation"]), at_least=3)
            for wording in read("templates/facts")
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        wording = rng.choice(read("templates/facts"))
        relation = wording["relation"]
        subject, memory = rng.choice(words[relation])
        other, _ = rng.choice([pair for pair in words[relation] if pair[0] != subject])
        false = rng.choice([output for _, output in words[relation] if output != memory])
        template = f"{wording['statement']}\nQ: {wording['question']}\nA:"
        clean, roles = fill(template, {"SUBJECT": subject, "OBJECT": false, "QUERY": subject})
        corrupt, _ = fill(template, {"SUBJECT": other, "OBJECT": false, "QUERY": subject})
        return Example(
            clean=clean,
            corrupt=corrupt,
            answer=(f" {false}",),
            wrong=(f" {memory}",),
            roles=roles,
            key=f"fact {relation} {subject} {false}",
            template=relation,
        )

    def document(self, rng: random.Random, words: Words) -> str:
        """A true statement, a question from memory, or a false statement and its question."""
        kind = rng.random()
        example = self.draw(rng, words, "train")
        if kind < 0.6:
            believed = rng.random() < TRUST
            return example.clean + (example.answer if believed else example.wrong)[0]
        wording = next(w for w in read("templates/facts") if w["relation"] == example.template)
        subject, memory = rng.choice(words[example.template])
        statement, _ = fill(wording["statement"], {"SUBJECT": subject, "OBJECT": memory})
        question, _ = fill(f"Q: {wording['question']}\nA:", {"QUERY": subject})
        return statement if kind < 0.8 else f"{question} {memory}"
