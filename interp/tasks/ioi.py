"""Indirect objects: who was given the thing."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import ClassVar

from interp.tasks.task import Example, Task
from interp.tasks.template import fill
from interp.tasks.words import Group, Words, read


@dataclass(frozen=True)
class IndirectObject(Task):
    """When Mary and John went to the store, John gave a drink to -> Mary (Wang et al. 2022).

    Half of the prompts name the indirect object first (ABBA) and half second (BABA). The
    counterfactual has three other names (ABC), so that nothing is repeated. Roles: IO, S1, S2, and
    S1+1, the token after S1.
    """

    name: ClassVar[str] = "ioi"
    description: ClassVar[str] = "indirect objects: the name that was mentioned once"

    def groups(self) -> dict[str, Group]:
        return {
            "names": Group(read("words/names"), at_least=5),
            "places": Group(read("words/places")),
            "gifts": Group(read("words/gifts")),
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        index = rng.randrange(len(read("templates/ioi")))
        template, order = read("templates/ioi")[index], rng.choice(["ABBA", "BABA"])
        if order == "BABA":
            template = (
                template.replace("{IO}", "{_}").replace("{S1}", "{IO}").replace("{_}", "{S1}")
            )
        giver, receiver, *others = rng.sample(words["names"], 5)
        scene = {"place": rng.choice(words["places"]), "gift": rng.choice(words["gifts"])}
        clean, roles = fill(template, {"IO": receiver, "S1": giver, "S2": giver, **scene})
        corrupt, _ = fill(template, dict(zip(["IO", "S1", "S2"], others, strict=True), **scene))
        return Example(
            clean=clean,
            corrupt=corrupt,
            answer=(f" {receiver}",),
            wrong=(f" {giver}",),
            roles=_with_next_word(clean, roles),
            key="ioi " + " ".join(sorted([giver, receiver])),
            template=f"{order} {index}",
        )


def _with_next_word(text: str, roles: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    after = re.compile(r"\S+").search(text, roles["S1"][1])
    return {**roles, "S1+1": after.span()} if after else roles
