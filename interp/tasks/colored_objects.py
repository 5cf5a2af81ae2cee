"""Coloured objects: what colour has the thing that is asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from interp.tasks.task import Example, Task, is_held_out
from interp.tasks.template import fill
from interp.tasks.words import Group, Words, read

QUESTION = "\nQ: color of the {QUERY}\nA:"


@dataclass(frozen=True)
class Scene:
    """Objects with their colours, and the wording that states them."""

    things: tuple[tuple[str, str], ...]
    template: int

    @property
    def key(self) -> str:
        """The objects with their colours in combination, in whatever order they are told."""
        return "colored " + ", ".join(sorted(f"{color} {thing}" for thing, color in self.things))

    def ask(self, query: str, target: str) -> tuple[str, dict[str, tuple[int, int]]]:
        """The prompt that asks for `query`; roles mark the object and colour of `target`."""
        wording = read("templates/colored_objects")[self.template]
        stated = [
            wording["thing"]
            .replace("{color}", "{COLOR}" if thing == target else color)
            .replace("{object}", "{OBJECT}" if thing == target else thing)
            for thing, color in self.things
        ]
        listed = ", ".join(stated[:-1]) + " and " + stated[-1]
        template = wording["scene"].replace("{things}", listed) + QUESTION
        return fill(
            template, {"COLOR": dict(self.things)[target], "OBJECT": target, "QUERY": query}
        )


@dataclass(frozen=True)
class ColoredObjects(Task):
    """On the table the pen is red and the cup is blue. Q: color of the cup A: -> blue.

    The counterfactual asks for another object of the same scene. Every other colour named is a
    wrong answer. After Merullo et al. 2024, whose wording has the colour first. Roles: OBJECT and
    COLOR of the thing that is asked for, QUERY in the question.

    Args:
        things: Number of objects, or None for 3 to 5.
        color_first: Say "a red pen" instead of "the pen is red".
    """

    name: ClassVar[str] = "colored_objects"
    description: ClassVar[str] = "the color of the object that is asked for"
    things: int | None = None
    color_first: bool = False

    def groups(self) -> dict[str, Group]:
        return {
            "colors": Group(read("words/colors"), at_least=self.things or 5),
            "objects": Group(read("words/objects"), at_least=self.things or 5),
        }

    def scene(self, rng: random.Random, words: Words, count: int) -> Scene:
        """A scene of `count` different objects in different colours."""
        things = zip(
            rng.sample(words["objects"], count), rng.sample(words["colors"], count), strict=True
        )
        wordings = read("templates/colored_objects")
        fitting = [i for i, w in enumerate(wordings) if w["color_first"] == self.color_first]
        return Scene(tuple(things), rng.choice(fitting))

    def example(self, rng: random.Random, words: Words) -> Example:
        scene = self.scene(rng, words, self.things or rng.randint(3, 5))
        (target, color), (other, _) = rng.sample(scene.things, 2)
        clean, roles = scene.ask(target, target)
        return Example(
            clean=clean,
            corrupt=scene.ask(other, target)[0],
            answer=(f" {color}",),
            wrong=tuple(f" {named}" for _, named in scene.things if named != color),
            roles=roles,
            key=scene.key,
            template=str(scene.template),
        )

    def document(self, rng: random.Random, words: Words) -> str:
        """A scene, colour first in one of four, and a question about each of its objects."""
        first = ColoredObjects(color_first=rng.random() < 0.25).draw_scene(rng, words)
        things = rng.sample(first.things, len(first.things))
        text = first.ask(things[0][0], things[0][0])[0] + f" {things[0][1]}"
        for thing, color in things[1:]:
            text += QUESTION.replace("{QUERY}", thing) + f" {color}"
        return text

    def draw_scene(self, rng: random.Random, words: Words) -> Scene:
        """A scene for training, of 2 to 5 objects."""
        while True:
            scene = self.scene(rng, words, rng.randint(2, 5))
            if not is_held_out(scene.key):
                return scene
