"""Small films and stills with a true sentence each, drawn rather than filmed: a captioner must read all of it.

    a girl in a red coat walks to the left in the snow, then waves

The parts of a sentence are independent of each other, and two events happen in either order. The split of a scene
follows from what it shows: combinations that are held out never occur in training, though all of their parts do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from activity.errors import ActivityError
from activity.files import write_csv
from activity.video.writer import write_video

Colour: TypeAlias = tuple[int, ...]  # red, green, blue
Point: TypeAlias = tuple[float, float, float]  # ahead, to the side, up from the floor; in body heights

CANVAS_SCALE = 2  # drawn larger and shrunk: smoother edges than anti-aliased lines alone
SUBPIXEL_BITS = 4  # cv2 takes fixed-point coordinates; whole pixels would make slow motion jerky
SIDES = (-1, 1)
CENTRE = 0.48  # height of the point around which a body rolls
OUTLINE = 0.014  # in body heights; sets off the figure from any place
BLEND_FRAMES = 2  # from one event to the next


# === What happens ===


@dataclass(frozen=True)
class Pose:
    """How the figure stands: lengths in body heights, angles in radians.

    Attributes:
        x: how far it has come, in the distance that one event covers: -1 to the left, 1 to the right.
        turn: where it faces: 0 to the viewer, pi / 2 to the right and -pi / 2 to the left of the image.
        lift: height above the floor.
        roll: rotation of the whole body in the image, clockwise.
        stride: one leg is so far before the vertical, the other so far behind; the arms swing against them.
        sit: 0 stands, 1 sits on the floor.
        arms: how far each is raised, 0 hangs and pi points up; `(left, right)` in the image of who faces the viewer.
    """

    x: float = 0.0
    turn: float = 0.0
    lift: float = 0.0
    roll: float = 0.0
    stride: float = 0.0
    sit: float = 0.0
    arms: tuple[float, float] = (0.3, 0.3)


def _walk(phase: float, side: int) -> Pose:
    swing = math.sin(4 * math.pi * phase + 0.8)
    return Pose(side * phase, side * math.pi / 2, 0.04 * (1 - abs(swing)), stride=0.75 * swing)


def _roll(phase: float, side: int) -> Pose:
    return Pose(side * phase, side * math.pi / 2, roll=side * 2 * math.pi * phase, stride=0.5)


def _jump(phase: float) -> Pose:
    up = abs(math.sin(2 * math.pi * phase))
    return Pose(lift=0.23 * up, arms=(0.3 + 1.5 * up, 0.3 + 1.5 * up))


def _wave(phase: float) -> Pose:
    raised = min(6 * phase, 1, 6 * (1 - phase))
    return Pose(arms=(0.3, 0.3 + raised * (1.9 + 0.6 * math.sin(5 * math.pi * phase))))


def _spin(phase: float) -> Pose:
    return Pose(turn=2 * math.pi * phase, arms=(1.5, 1.5))


def _sit_down(phase: float) -> Pose:
    return Pose(sit=min(1, 2.5 * phase), arms=(0.5, 0.5))


# Verb phrase -> pose at a phase from 0 to 1.
EVENTS: dict[str, Callable[[float], Pose]] = {
    "walks to the left": lambda phase: _walk(phase, -1),
    "walks to the right": lambda phase: _walk(phase, 1),
    "rolls to the left": lambda phase: _roll(phase, -1),
    "rolls to the right": lambda phase: _roll(phase, 1),
    "jumps": _jump,
    "waves": _wave,
    "spins": _spin,
    "sits down": _sit_down,
}

BALLOON = "holds a balloon"

# Verb phrase of a still -> pose.
POSES: dict[str, Pose] = {
    "stands": Pose(),
    "sits": _sit_down(1),
    "lies": Pose(roll=math.pi / 2, lift=0.16 - CENTRE),
    "jumps": _jump(0.25),
    BALLOON: Pose(arms=(0.3, 1.8)),
}


# === Who ===


class Cone(NamedTuple):
    """A part of a body: looks the same from all sides around its axis, so its outline has four corners.

    Attributes:
        colour: key of the colours of the figure.
        start: one end of the axis.
        start_radius: in body heights.
        end: the other end.
        end_radius: in body heights.
        flat: its ends are cut off, not round.
    """

    colour: str
    start: Point
    start_radius: float
    end: Point
    end_radius: float
    flat: bool = False


def _ball(colour: str, centre: Point, radius: float) -> Cone:
    return Cone(colour, centre, radius, centre, radius)


def _flower(centre: Point, radius: float) -> list[Cone]:
    """Worn by all over one ear, so that who goes left shows another side than who goes right.

    Without it the two would be mirror images, which networks that learned photographs hardly tell apart.
    """
    ahead, side, up = centre
    angles = [2 * math.pi * petal / 5 for petal in range(5)]
    petals = [(ahead + 0.58 * radius * math.sin(angle), side, up + 0.58 * radius * math.cos(angle)) for angle in angles]
    return [
        *(_ball("petal", petal, 0.42 * radius) for petal in petals),
        _ball("lamp", (ahead, side + 0.03, up), 0.36 * radius),
    ]


def _leg(colour: str, hip: Point, length: float, angle: float, radius: float) -> list[Cone]:
    """A straight leg that is so far before the vertical, and its foot."""
    ahead, side, up = hip
    foot = (ahead + length * math.sin(angle), side, up - length * math.cos(angle))
    toes = (foot[0] + 0.08 * math.cos(angle), side, foot[2] + 0.08 * math.sin(angle))
    return [Cone(colour, hip, radius, foot, radius), Cone("shoe", foot, radius, toes, 0.8 * radius)]


def _two_legged(
    pose: Pose, *, legs: float, broad: float, waist: float, limb: float, flat: bool = False
) -> tuple[list[Cone], float]:
    """A body without its head, and the height of the neck.

    Args:
        pose: what it does.
        legs: their length.
        broad: half of the width of the chest.
        waist: half of the width of the coat at its hem.
        limb: radius of arms and legs.
        flat: the shoulders have corners.
    """
    straight = legs - limb
    hip = limb + straight * (1 - pose.sit)
    bend = math.acos(1 - pose.sit)
    neck = hip + 0.34
    cones = [Cone("coat", (0, 0, max(0.03, hip - 0.13)), waist, (0, 0, neck), broad, flat=True)]
    for side, arm in zip(SIDES, pose.arms, strict=True):
        cones += _leg("trousers", (0, 0.45 * broad * side, hip), straight, bend + pose.stride * side, limb)
        swing = -0.8 * pose.stride * side
        away = (math.cos(arm) * math.sin(swing), math.sin(arm) * side, -math.cos(arm) * math.cos(swing))
        shoulder = (0.0, (broad - 0.2 * limb) * side, neck - (0.8 if flat else 1.0) * limb)
        elbow, hand = (
            (length * away[0], shoulder[1] + length * away[1], shoulder[2] + length * away[2])
            for length in (0.23, 0.34)
        )
        cones += [Cone("coat", shoulder, limb, elbow, limb), Cone("skin", elbow, 0.8 * limb, hand, 0.9 * limb)]
    return cones, neck


def _man(pose: Pose) -> list[Cone]:
    cones, neck = _two_legged(pose, legs=0.4, broad=0.17, waist=0.18, limb=0.06)
    up = neck + 0.1
    return [
        *cones,
        _ball("skin", (0, 0, up), 0.125),
        *_flower((-0.01, 0.13, up), 0.13),
        Cone("skin", (0.1, 0, up), 0.03, (0.16, 0, up - 0.02), 0.03),  # the nose
        Cone("hair", (0.06, 0, up - 0.08), 0.07, (0.08, 0, up - 0.14), 0.04),  # the beard
        *(_ball("eye", (0.13, 0.045 * side, up + 0.03), 0.02) for side in SIDES),
        Cone("hat", (-0.16, 0, up + 0.08), 0.022, (0.16, 0, up + 0.08), 0.022),  # the brim from the side,
        Cone("hat", (0, -0.16, up + 0.08), 0.022, (0, 0.16, up + 0.08), 0.022),  # and from the front
        Cone("hat", (0, 0, up + 0.08), 0.1, (0, 0, up + 0.23), 0.11, flat=True),
    ]


def _girl(pose: Pose) -> list[Cone]:
    cones, neck = _two_legged(pose, legs=0.34, broad=0.12, waist=0.24, limb=0.05)
    up = neck + 0.13
    return [
        *cones,
        _ball("skin", (0, 0, up), 0.145),
        *_flower((-0.03, 0.17, up + 0.03), 0.16),
        _ball("skin", (0.15, 0, up - 0.02), 0.025),
        *(_ball("eye", (0.15, 0.06 * side, up), 0.024) for side in SIDES),
        _ball("hair", (-0.05, 0, up + 0.04), 0.155),
        *(Cone("hair", (-0.05, 0.15 * side, up + 0.05), 0.05, (-0.14, 0.28 * side, up - 0.16), 0.07) for side in SIDES),
    ]


def _dog(pose: Pose) -> list[Cone]:
    straight, thick = 0.3, 0.055
    chest = 0.36 - 0.04 * pose.sit
    rump = chest - 0.2 * pose.sit
    cones = [Cone("coat", (-0.16, 0, rump + 0.03), 0.14, (0.17, 0, chest + 0.05), 0.16)]
    for side, arm in zip(SIDES, pose.arms, strict=True):
        shoulder, angle = (0.22, 0.09 * side, chest), pose.stride * side + 0.7 * max(0, arm - 0.3)
        elbow = (0.22 + 0.14 * math.sin(angle), 0.09 * side, chest - 0.14 * math.cos(angle))
        cones += [
            *_leg("fur", shoulder, straight, angle, thick),
            Cone("coat", shoulder, 1.2 * thick, elbow, 1.2 * thick),
        ]
        cones += _leg("fur", (-0.24, 0.1 * side, rump), straight, -pose.stride * side + 1.2 * pose.sit, thick)
        cones += [Cone("ear", (0.3, 0.12 * side, chest + 0.42), 0.05, (0.27, 0.17 * side, chest + 0.24), 0.07)]
        cones += [_ball("eye", (0.45, 0.06 * side, chest + 0.36), 0.024)]
    return [
        *cones,
        Cone("coat", (0.2, 0, chest + 0.02), 0.16, (0.3, 0, chest + 0.2), 0.11),  # the neck
        _ball("fur", (0.34, 0, chest + 0.32), 0.14),
        *_flower((0.32, 0.22, chest + 0.32), 0.15),
        Cone("fur", (0.42, 0, chest + 0.28), 0.08, (0.58, 0, chest + 0.25), 0.06),
        _ball("eye", (0.64, 0, chest + 0.28), 0.035),  # the nose
        Cone("fur", (-0.28, 0, rump + 0.08), 0.04, (-0.44, 0, rump + 0.32), 0.03),  # the tail
    ]


def _robot(pose: Pose) -> list[Cone]:
    cones, neck = _two_legged(pose, legs=0.34, broad=0.2, waist=0.21, limb=0.05, flat=True)
    return [
        *cones,
        Cone("skin", (0, 0, neck - 0.03), 0.06, (0, 0, neck + 0.08), 0.06, flat=True),
        Cone("skin", (0, 0, neck + 0.05), 0.16, (0, 0, neck + 0.3), 0.16, flat=True),
        *_flower((-0.01, 0.18, neck + 0.17), 0.155),
        Cone("lamp", (0.15, -0.08, neck + 0.2), 0.035, (0.15, 0.08, neck + 0.2), 0.035),
        Cone("hat", (0.12, 0, neck + 0.1), 0.025, (0.2, 0, neck + 0.1), 0.025),
        Cone("hat", (-0.05, 0, neck + 0.3), 0.015, (-0.05, 0, neck + 0.4), 0.015),
        _ball("lamp", (-0.05, 0, neck + 0.42), 0.04),
    ]


FIGURES: dict[str, Callable[[Pose], list[Cone]]] = {"man": _man, "girl": _girl, "dog": _dog, "robot": _robot}


# === Where ===


def _blank(rng: np.random.Generator, height: int, width: int, sky: Colour, ground: Colour) -> tuple[np.ndarray, int]:
    """A sky over a ground, `(height, width, 3)` uint8, both uneven; and the row of the horizon."""
    horizon = int(rng.uniform(0.42, 0.56) * height)
    image = np.empty((height, width, 3), np.float32)
    image[:horizon], image[horizon:] = sky, ground
    cells = rng.normal(1, 0.05, (rng.integers(3, 9), rng.integers(3, 9))).astype(np.float32)
    image *= cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]  # (height, width, 1)
    return np.clip(image, 0, 255).astype(np.uint8), horizon


def _fill(image: np.ndarray, colour: Colour, *corners: tuple[float, float]) -> None:
    cv2.fillPoly(image, [np.array(corners, np.int32)], colour, cv2.LINE_AA)


def _snow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image, horizon = _blank(rng, height, width, (150, 165, 190), (238, 243, 252))
    for x in rng.uniform(0, width, rng.integers(4, 8)):  # firs
        tall = rng.uniform(0.25, 0.45) * height
        for part in range(3):
            foot, wide = horizon - 0.27 * part * tall, (0.32 - 0.08 * part) * tall
            _fill(image, (30, 74, 56), (x - wide, foot), (x + wide, foot), (x, foot - 0.45 * tall))
            _fill(image, (246, 249, 255), (x - 0.5 * wide, foot - 0.22 * tall), (x, foot - 0.45 * tall), (x, foot))
    for x, y, radius in rng.uniform((0, 0, 0.004), (width, height, 0.015), (rng.integers(100, 200), 3)):
        cv2.circle(image, (int(x), int(y)), round(radius * height), (255, 255, 255), -1, cv2.LINE_AA)
    return image


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image, horizon = _blank(rng, height, width, (120, 185, 245), (70, 165, 55))
    for x in rng.uniform(0, width, rng.integers(3, 7)):  # bushes
        radius = int(rng.uniform(0.07, 0.14) * height)
        cv2.ellipse(image, (int(x), horizon), (radius, radius), 0, 180, 360, (36, 105, 40), -1, cv2.LINE_AA)
    for x, y, up, lean in rng.uniform((0, horizon, 0.02, -0.02), (width, height, 0.06, 0.02), (350, 4)):
        colour = (40, 125, 35) if lean < 0 else (115, 205, 75)
        tip = (int(x + lean * height), int(y - up * height))
        cv2.line(image, (int(x), int(y)), tip, colour, max(1, height // 128), cv2.LINE_AA)
    for x, y in rng.uniform((0, horizon + 0.05 * height), (width, height), (rng.integers(5, 20), 2)):  # daisies
        cv2.circle(image, (int(x), int(y)), max(1, height // 80), (255, 255, 255), -1, cv2.LINE_AA)
    return image


def _beach(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image, horizon = _blank(rng, height, width, (175, 225, 250), (236, 205, 148))
    sea = int(horizon - rng.uniform(0.14, 0.22) * height)
    image[sea:horizon] = (0.3 * image[sea:horizon] + 0.7 * np.array((0, 125, 175))).astype(np.uint8)
    for x, y in rng.uniform((0, sea), (width, horizon), (rng.integers(15, 30), 2)):  # waves
        end = (int(x + 0.08 * width), int(y))
        cv2.line(image, (int(x), int(y)), end, (190, 230, 240), max(1, height // 100), cv2.LINE_AA)
    shore = horizon + 0.015 * height * np.sin(np.linspace(0, rng.uniform(8, 20), width))  # (width,)
    points = np.stack([np.arange(width), shore], -1).astype(np.int32)  # (width, 2)
    cv2.polylines(image, [points], False, (255, 255, 255), max(1, height // 36), cv2.LINE_AA)
    sand = rng.normal(0, 12, (height - horizon, width, 1)).astype(np.float32)
    image[horizon + height // 40 :] = np.clip(image[horizon + height // 40 :] + sand[height // 40 :], 0, 255)
    x = rng.uniform(0.05, 0.95) * width
    cv2.circle(image, (int(x), int(0.12 * height)), int(0.06 * height), (255, 240, 170), -1, cv2.LINE_AA)  # the sun
    return image


def _street(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image, horizon = _blank(rng, height, width, (190, 195, 200), (128, 128, 132))
    x = -rng.uniform(0, 0.2) * width
    while x < width:  # houses
        wide, roof = rng.uniform(0.22, 0.36) * width, rng.uniform(0, 0.12) * height
        wall = tuple((rng.uniform(0.8, 1.1) * np.array((165, 120, 100)) + rng.uniform(-12, 12, 3)).tolist())
        _fill(image, wall, (x, roof), (x + wide, roof), (x + wide, horizon), (x, horizon))
        for column, y in product(
            (0.12, 0.42, 0.72), np.arange(roof + 0.05 * height, horizon - 0.1 * height, 0.13 * height)
        ):
            left, right = x + column * wide, x + (column + 0.2) * wide
            _fill(image, (70, 80, 95), (left, y), (right, y), (right, y + 0.08 * height), (left, y + 0.08 * height))
        x += wide
    kerb = horizon + int(0.06 * height)
    image[horizon:kerb] = (200, 198, 195)
    cv2.line(image, (0, kerb), (width, kerb), (90, 90, 92), max(1, height // 64))
    middle, start = 0.5 * (kerb + height), rng.uniform(0, 0.3) * width
    for left in np.arange(start - 0.3 * width, width, 0.3 * width):  # the line in the middle of the road
        upper, lower = middle - 0.02 * height, middle + 0.02 * height
        right, slant = left + 0.16 * width, 0.02 * width
        _fill(image, (245, 245, 240), (left, upper), (right, upper), (right - slant, lower), (left - slant, lower))
    return image


# Phrase -> function that draws it, `(height, width, 3)` uint8.
PLACES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "in the snow": _snow,
    "on the grass": _grass,
    "on the beach": _beach,
    "in the street": _street,
}


# === Scenes and their sentences ===

# Of the coat; none is the colour of a place.
COLOURS: dict[str, Colour] = {
    "red": (225, 20, 25),
    "blue": (20, 45, 225),
    "yellow": (255, 220, 0),
    "black": (14, 14, 16),
}


@dataclass(frozen=True)
class Scene:
    """What a film or still shows.

    Attributes:
        who: key of `FIGURES`.
        colour: of the coat; key of `COLOURS`.
        place: key of `PLACES`.
        events: of a film, two different keys of `EVENTS` in order; of a still, one key of `POSES`.

    Raises:
        ActivityError: a part is none of those.
    """

    who: str
    colour: str
    place: str
    events: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, known, name in self._parts:
            if part not in known:
                raise ActivityError(f"no {name} {part!r}; expected one of {', '.join(known)}")
        if not self.is_still and (len(self.events) != 2 or self.events[0] == self.events[1]):
            raise ActivityError(f"expected one pose or two different events; received {self.events}")

    @property
    def is_still(self) -> bool:
        """Whether it is a single image."""
        return len(self.events) == 1

    @property
    def sentence(self) -> str:
        """The sentence that is true of it, and of no other scene."""
        first, *then = self.events
        return ", then ".join([f"a {self.who} in a {self.colour} coat {first} {self.place}", *then])

    @property
    def split(self) -> str:
        """`train`, `val` or `test`: 5, 1 and 1 of 7 scenes, fixed for each.

        A weighted sum modulo a prime spreads what is held out: any parts of it but one occur together in training, and
        training has both orders of every two events.
        """
        number = sum(weight * position for weight, position in zip((1, 2, 4, 1, 3), self.positions, strict=False))
        return ("test", "val", *["train"] * 5)[number % 7]

    @property
    def positions(self) -> tuple[int, ...]:
        """Where each of its parts stands among those of its kind, from 0."""
        return tuple(list(known).index(part) for part, known, _ in self._parts)

    @property
    def _parts(self) -> list[tuple[str, Mapping[str, object], str]]:
        """Each part, those of its kind, and what these are called."""
        known: Mapping[str, object] = POSES if self.is_still else EVENTS
        name = "pose" if self.is_still else "event"
        return [
            (self.who, FIGURES, "figure"),
            (self.colour, COLOURS, "colour"),
            (self.place, PLACES, "place"),
            *((event, known, name) for event in self.events),
        ]


_ACTORS = list(product(FIGURES, COLOURS, PLACES))
FILM_SCENES = [Scene(*actor, events) for actor, events in product(_ACTORS, permutations(EVENTS, 2))]
STILL_SCENES = [Scene(*actor, (pose,)) for actor, pose in product(_ACTORS, POSES)]


# === Drawing ===


class _Film:
    """The random looks of a film, and its canvas."""

    def __init__(self, scene: Scene, rng: np.random.Generator, height: int, width: int) -> None:
        self.figure = FIGURES[scene.who]
        self.stature = rng.uniform(0.57, 0.67) * min(height, width)  # body height in canvas pixels
        self.place = PLACES[scene.place](rng, height, width)
        floor = rng.uniform(0.86, 0.92)
        self.floor = complex(rng.uniform(0.46, 0.54) * width, floor * height)
        self.facing = rng.uniform(-0.6, 0.6)
        if scene.who == "dog":  # from the front, one that sits looks like one that stands
            self.facing = 0.5 * self.facing + math.copysign(0.3, self.facing)
        self.reach = rng.uniform(0.36, 0.44) * width / self.stature  # of a moving event, in body heights
        light = rng.uniform(0.7, 1.1)
        base: dict[str, Colour] = {
            "skin": (150, 156, 165) if scene.who == "robot" else (238, 190, 155),
            "trousers": (95, 98, 106) if scene.who == "robot" else (74, 66, 72),
            "hair": (120, 62, 24) if scene.who == "girl" else (70, 44, 28),
            "fur": (172, 112, 58),
            "ear": (104, 62, 30),
            "hat": (58, 46, 44),
            "shoe": (40, 34, 34),
            "lamp": (90, 255, 160),
            "petal": (255, 90, 215),
            "balloon": (70, 215, 90),
        }
        self.colours = {name: tuple(round(min(255, light * c)) for c in colour) for name, colour in base.items()}
        shade = rng.uniform(0.88, 1)
        self.colours |= {"eye": (20, 16, 16), "outline": (24, 20, 22)}
        self.colours["coat"] = tuple(round(shade * channel) for channel in COLOURS[scene.colour])
        row = min(height - 1, int(self.floor.imag))
        self.shadow = tuple((0.68 * self.place[row].mean(axis=0)).tolist())
        self.image = self.place

    def draw(self, pose: Pose, *, balloon: bool = False) -> np.ndarray:
        """The canvas with the figure, `(canvas height, canvas width, 3)` uint8."""
        self.image = self.place.copy()
        spread, middle = 0.3 - 0.3 * pose.lift, self.floor + pose.x * self.reach * self.stature
        self._ellipse(middle, spread, 0.25 * spread, self.shadow)
        cones = self.figure(pose)
        if balloon:
            hand = max((cone.end for cone in cones if cone.colour in ("skin", "fur")), key=lambda end: end[1] + end[0])
            knot = (hand[0], hand[1] + 0.05, hand[2] + 0.3)
            cones += [
                Cone("eye", hand, 0.008, knot, 0.008),
                Cone("balloon", knot, 0.04, (*knot[:2], knot[2] + 0.16), 0.15),
            ]
        turn = pose.turn + self.facing * math.cos(pose.turn)  # whoever moves shows their side
        ahead, across = math.sin(turn), math.cos(turn)

        def nearness(cone: Cone) -> float:
            """Of its surface to the viewer, as far as it tells what hides what."""
            axis = sum(point[0] * across - point[1] * ahead for point in (cone.start, cone.end))
            return axis + 0.75 * (cone.start_radius + cone.end_radius)

        cones = sorted(cones, key=nearness)
        rotation = complex(math.cos(pose.roll), -math.sin(pose.roll))

        def seen(point: Point) -> complex:
            flat = complex(point[0] * ahead + point[1] * across, point[2] - CENTRE)
            return middle + self.stature * (flat * rotation + 1j * (CENTRE + pose.lift)).conjugate()

        placed = [(cone, seen(cone.start), seen(cone.end)) for cone in cones]
        for margin in (OUTLINE, 0.0):
            for cone, start, end in placed:
                colour = self.colours["outline" if margin else cone.colour]
                self._cone(cone, start, end, margin, colour, rotation)
        return self.image

    def _cone(self, cone: Cone, start: complex, end: complex, margin: float, colour: Colour, rotation: complex) -> None:
        along = (end - start) / abs(end - start) if end != start else rotation.conjugate() * -1j
        first, last = ((radius + margin) * self.stature for radius in (cone.start_radius, cone.end_radius))
        if cone.flat:
            start, end = start - margin * self.stature * along, end + margin * self.stature * along
        else:
            for centre, radius in ((start, first), (end, last)):
                self._ellipse(centre, radius / self.stature, radius / self.stature, colour)
        if start != end:
            side = 1j * along
            corners = (start + first * side, end + last * side, end - last * side, start - first * side)
            points = np.array([self._fixed(corner) for corner in corners], np.int32)  # (4, 2)
            cv2.fillConvexPoly(self.image, points, colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def _ellipse(self, centre: complex, wide: float, high: float, colour: Colour) -> None:
        """Fill an ellipse around a pixel; its half axes in body heights."""
        axes = [round(x * self.stature * 2**SUBPIXEL_BITS) for x in (wide, high)]
        cv2.ellipse(self.image, self._fixed(centre), axes, 0, 0, 360, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)

    @staticmethod
    def _fixed(pixel: complex) -> tuple[int, int]:
        return round(pixel.real * 2**SUBPIXEL_BITS), round(pixel.imag * 2**SUBPIXEL_BITS)


def _poses(scene: Scene, rng: np.random.Generator, frames_per_second: float) -> list[Pose]:
    """The pose of every frame."""
    if scene.is_still:
        return [POSES[scene.events[0]]]
    poses: list[Pose] = []
    for event in scene.events:
        length = max(2, round(rng.uniform(0.67, 1) * frames_per_second))
        time = np.linspace(0, 1, length)  # (length,)
        phases = time + rng.uniform(-0.4, 0.4) * np.sin(2 * np.pi * time) / (2 * np.pi)  # an uneven tempo
        came = poses[-1] if poses else None
        for index, phase in enumerate(phases.tolist()):
            pose = EVENTS[event](phase)
            if came is not None:
                pose = dataclasses.replace(pose, x=came.x + pose.x)
                if index < BLEND_FRAMES:
                    pose = _between(came, pose, (index + 1) / (BLEND_FRAMES + 1))
            poses.append(pose)
    xs = [pose.x for pose in poses]
    middle, distance = (min(xs) + max(xs)) / 2, max(1, 0.75 * (max(xs) - min(xs)))
    return [dataclasses.replace(pose, x=(pose.x - middle) / distance) for pose in poses]


def _between(before: Pose, after: Pose, share: float) -> Pose:
    """A pose on the way from one to another; whole turns and rolls that are done are none."""

    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    turn, roll = (math.remainder(angle, 2 * math.pi) for angle in (before.turn, before.roll))
    arms = (mix(before.arms[0], after.arms[0]), mix(before.arms[1], after.arms[1]))
    return Pose(
        x=mix(before.x, after.x),
        turn=mix(turn, after.turn),
        lift=mix(before.lift, after.lift),
        roll=mix(roll, after.roll),
        stride=mix(before.stride, after.stride),
        sit=mix(before.sit, after.sit),
        arms=arms,
    )


def draw_film(
    scene: Scene, *, take: int, height: int = 128, width: int = 128, frames_per_second: float = 12.0
) -> np.ndarray:
    """The frames of a scene, `(N, height, width, 3)` uint8 RGB, the same for the same arguments; `N` is 1 for a still.

    Args:
        scene: what they show.
        take: fixes all else: sizes, place and its texture, tempo, camera shake, light and noise, for each scene anew;
            0 or more.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        frames_per_second: of the film, which lasts about 1.7 s.
    """
    rng = np.random.default_rng([take, scene.is_still, *scene.positions])
    film = _Film(scene, rng, CANVAS_SCALE * height, CANVAS_SCALE * width)
    poses = _poses(scene, rng, frames_per_second)
    gain, shaken = np.float32(rng.uniform(0.85, 1.1)), rng.uniform(0.1, 0.8)
    noise = rng.uniform(1, 5) * rng.standard_normal((2 * height, 2 * width, 3), np.float32)  # each frame has a part
    frames = np.empty((len(poses), height, width, 3), np.uint8)
    for frame, pose in zip(frames, poses, strict=True):
        canvas = film.draw(pose, balloon=scene.events == (BALLOON,))
        small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)  # (height, width, 3)
        shake = np.array([[1, 0, rng.normal(0, shaken)], [0, 1, rng.normal(0, shaken)]])
        small = cv2.warpAffine(small, shake, (width, height), borderMode=cv2.BORDER_REPLICATE)
        row, column = rng.integers((height, width)).tolist()
        frame[:] = np.clip(gain * small + noise[row : row + height, column : column + width], 0, 255)
    return frames


def write_captioned_films(
    videos_dir: Path,
    *,
    num_films: int,
    num_stills: int,
    seed: int = 0,
    height: int = 128,
    width: int = 128,
    frames_per_second: float = 12.0,
    suffix: str = ".mp4",
) -> Path:
    """Write films and stills of random scenes, and return the path of their manifest.

    The manifest, `manifest.csv`, has the columns path (relative to `videos_dir`), caption, group and split. Each film
    has looks of its own, so each is a group. No scene occurs twice before all have occurred.

    Args:
        videos_dir: is made if need be.
        num_films: as `films/00012.mp4`.
        num_stills: as `stills/00012.png`.
        seed: of the scenes and their looks; 0 or more.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        frames_per_second: of the films.
        suffix: `.mp4`, or `.avi` for another codec: see `activity.video.writer.write_video`.
    """
    rng = np.random.default_rng(seed)
    size = {"height": height, "width": width}
    rows = []
    for folder, scenes, number in (("films", FILM_SCENES, num_films), ("stills", STILL_SCENES, num_stills)):
        (videos_dir / folder).mkdir(parents=True, exist_ok=True)
        for index, scene in enumerate(_draw_scenes(scenes, number, rng)):
            frames = draw_film(scene, take=int(rng.integers(2**31)), frames_per_second=frames_per_second, **size)
            path = Path(folder, f"{index:05d}{'.png' if scene.is_still else suffix}")
            if scene.is_still:
                _write_still(videos_dir / path, frames[0])
            else:
                write_video(videos_dir / path, frames, frames_per_second=frames_per_second)
            group = f"{folder[:-1]}_{index:05d}"
            rows.append({"path": path.as_posix(), "caption": scene.sentence, "group": group, "split": scene.split})
    manifest_path = videos_dir / "manifest.csv"
    write_csv(manifest_path, ("path", "caption", "group", "split"), rows)
    return manifest_path


def _draw_scenes(scenes: Sequence[Scene], number: int, rng: np.random.Generator) -> list[Scene]:
    rounds = [rng.permutation(len(scenes)) for _ in range(-(-number // len(scenes)))]
    return [scenes[i] for i in np.concatenate([*rounds, []]).astype(int)[:number]]


def _write_still(path: Path, image: np.ndarray) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())
