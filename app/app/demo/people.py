"""The drawn people: their names and looks."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from app.demo.canvas import Colour, rgb, seeded


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES: Final = _words(
    "ada bruno clara diego elena felix gaia hugo ines jonas kira leo lola milo nora oscar "
    "olga pablo rosa ravi tessa silas vera theo alma victor bella xavier dora anton emma boris "
    "fiona carlos greta dario hana emil iris franz julia gustav lena henri mira ivan nina jamal "
    "paula karim rita luca sara marco tilda nico uma otto wanda quentin yara remy zoe sven"
)
PEOPLE: Final = len(NAMES)

# values that appear twice in a list are drawn twice as often
SKINS: Final = _words("fbe0cb f6cda9 ebb68b d99f70 bd7f55 99643f 75492c 553524")
HAIRS: Final = _words("2c2424 50342a 7f4d2c a8602f cf6a2c e6b85a f2e2b4 b7b6b8 f3efe8 e58c8a 72a04e")
STYLES: Final = _words("fringe side curls spikes curtains buzz afro bun mohawk swoop bald scarf waves")
LENGTHS: Final = _words("short short bob long braids pigtails")
GLASSES: Final = _words("none none none round square half cat monocle")
FRAMES: Final = _words("2b2b33 c0392b e0a63a 5f8f3a f4f1ea 8a5a3b")
BEARDS: Final = _words("none none stubble full moustache goatee handlebar")
HATS: Final = _words("none none none none beanie cap straw beret sailor party crown headband flowers")
HAT_COLOURS: Final = _words("d1495b edae49 47703a 3a4a58 f2e8cf 8d5a97 dd6e42 4f6d3a")
PAINTS: Final = _words("none none freckles freckles stripes hearts stars dots whiskers plaster")
PAINT_COLOURS: Final = _words("fff6e0 ffd23f e4572e 7cb518 3a3238")
CLOTHES: Final = _words("e4572e f3a712 669bbc 3d5a80 81b29a e07a5f f2cc8f 6d597a bc4749 a7c957 2f3e46 f4f1de")
COLLARS: Final = _words("round vee shirt stripes roll")

_SEED: Final = 17  # of the seeds tried, the one whose two most similar people differ most


@dataclass(frozen=True, slots=True)
class Look:
    """The features of a person. Text fields name an entry of the list above, such as STYLES for `style`.

    Attributes:
        brow: thickness of the brows in units.
        width: relative width of the head.
        jaw: how much the head narrows towards the chin, 0 to 1.
        cheeks: opacity of the red on the cheeks, 0 to 1.
    """

    skin: Colour
    hair: Colour
    style: str
    length: str
    glasses: str
    frame: Colour
    beard: str
    hat: str
    hat_colour: Colour
    paint: str
    paint_colour: Colour
    clothes: Colour
    collar: str
    lashes: bool
    earrings: bool
    brow: float
    width: float
    jaw: float
    cheeks: float


def person_name(person: int) -> str:
    """Return the unique name of person 0 to PEOPLE - 1, in lower-case ASCII letters."""
    return NAMES[person]


def look_of(person: int) -> Look:
    """Return the look of person 0 to PEOPLE - 1."""
    return _looks()[person]


@lru_cache(maxsize=1)
def _looks() -> tuple[Look, ...]:
    """The looks of all people; each is the candidate least similar to those before."""
    looks: list[Look] = []
    for person in range(PEOPLE):
        rng = seeded("look", _SEED, person)
        candidates = [_random_look(rng, woman=person % 2 == 0) for _ in range(80)]
        looks.append(_least_similar(candidates, looks))
    return tuple(looks)


def _least_similar(candidates: list[Look], others: list[Look]) -> Look:
    """The candidate whose smallest difference to the others is largest."""
    chosen, farthest = candidates[0], 0.0
    if not others:
        return chosen
    for look in candidates:
        nearest = math.inf
        for other in others:
            nearest = min(nearest, _difference(look, other))
            if nearest <= farthest:  # most candidates fail at one of the first few
                break
        else:
            chosen, farthest = look, nearest
    return chosen


def _difference(one: Look, other: Look) -> float:
    """How much two faces differ from the forehead to the chin."""
    kinds = (("style", 1.0), ("glasses", 2.5), ("beard", 2.0), ("hat", 1.0), ("paint", 1.5))
    colours = [(one.skin, other.skin, 3.0), (one.hair, other.hair, 1.5)]
    if "none" not in (one.hat, other.hat):
        colours.append((one.hat_colour, other.hat_colour, 2.0))
    elif one.hat != other.hat:
        colours.append(((0, 0, 0), (255, 255, 255), 2.0))
    if "none" not in (one.glasses, other.glasses):
        colours.append((one.frame, other.frame, 1.0))
    return sum(weight for name, weight in kinds if getattr(one, name) != getattr(other, name)) + sum(
        weight * sum(abs(a - b) for a, b in zip(first, second, strict=True)) / 765 for first, second, weight in colours
    )


def _random_look(rng: random.Random, *, woman: bool) -> Look:
    hat = rng.choice(HATS)
    style = rng.choice(STYLES)
    if woman:
        style = {"bald": "waves", "mohawk": "curtains"}.get(style, style)
    elif style == "scarf":
        style = "buzz"
    if style == "scarf" or (hat != "none" and style in {"afro", "bun", "mohawk", "spikes", "swoop"}):
        hat = "none"
    long_hair = woman and style not in {"buzz", "scarf", "afro", "bald", "mohawk"}
    return Look(
        skin=rgb(rng.choice(SKINS)),
        hair=rgb(rng.choice(HAIRS)),
        style=style,
        length=rng.choice(LENGTHS) if long_hair else "short",
        glasses=rng.choice(GLASSES),
        frame=rgb(rng.choice(FRAMES)),
        beard="none" if woman else rng.choice(BEARDS),
        hat=hat,
        hat_colour=rgb(rng.choice(HAT_COLOURS)),
        paint=rng.choice(PAINTS),
        paint_colour=rgb(rng.choice(PAINT_COLOURS)),
        clothes=rgb(rng.choice(CLOTHES)),
        collar=rng.choice(COLLARS),
        lashes=woman,
        earrings=woman and rng.random() < 0.5,
        brow=rng.uniform(2.2, 4.4),
        width=rng.uniform(0.93, 1.05),
        jaw=rng.uniform(0.04, 0.2),
        cheeks=rng.choice((0.0, 0.25, 0.4)),
    )
