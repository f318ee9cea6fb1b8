"""Small videos with known labels, drawn rather than filmed: for `activity demo`, the notebooks and the tests.

A figure in a room does one of eight activities. Six of them form pairs of which the second is the first played
backwards, so neither a frame nor the set of frames tells them apart: only a model that uses the order can.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from activity.files import write_csv
from activity.video.writer import write_video

Colour = tuple[int, ...]  # red, green, blue


CANVAS_SCALE = 2  # drawn larger and shrunk: smoother edges than anti-aliased lines alone
SUBPIXEL_BITS = 4  # cv2 takes fixed-point coordinates; whole pixels would make slow motion jerky
SIDES = (-1, 1)  # the figure's limb on the left and on the right of the image
SEAT_X = -0.17


@dataclass(frozen=True)
class Pose:
    """Where the joints are: complex numbers x + y·j in body heights, x to the right, y up, (0, 0) on the floor.

    Elbows and knees follow from them. `turn` is where the figure faces, in radians: 0 to the viewer, pi / 2 to the
    right and -pi / 2 to the left of the image. `seat_x` is the middle of the chair to sit on, if there is one.
    """

    hip: complex = 0.5j
    neck: complex = 0.82j
    hands: tuple[complex, complex] = (-0.2 + 0.45j, 0.2 + 0.45j)
    feet: tuple[complex, complex] = (-0.1 + 0j, 0.1 + 0j)
    turn: float = 0.0
    seat_x: float | None = None


def _arm(neck: complex, side: int, degrees: float) -> complex:
    """Return the hand of a stretched arm: -90 degrees hangs down, 0 points sideways, 90 up."""
    direction = complex(np.exp(1j * np.radians(degrees)))
    return neck + side * (0.1 + 0.35 * direction.real) + 0.35j * direction.imag


def sit_down(phase: float) -> Pose:
    """Return the pose at `phase` (0 to 1) of sitting down on a chair, seen from the side."""
    down = 0.5 - 0.5 * float(np.cos(np.pi * phase))
    hip = 0.5j + (SEAT_X - 0.2j) * down
    lean = 0.75 * np.sin(np.pi * down)  # radians; the trunk bends forward to keep its balance
    neck = hip + 0.33 * complex(np.sin(lean), np.cos(lean))
    hand = (neck - 0.35j + 0.03) * (1 - down) + (0.06 + 0.37j) * down
    return Pose(hip, neck, (hand - 0.02, hand + 0.02), (0.04 + 0j, 0.1 + 0j), np.pi / 2, SEAT_X)


def walk_right(phase: float) -> Pose:
    """Return the pose at `phase` of stepping to the right, seen from the front so that no frame shows a direction."""
    x, swing = 0.96 * phase - 0.48, float(np.sin(5 * np.pi * phase))
    neck = x + 0.82j + 0.02j * abs(swing)
    feet = (x - 0.1 + 0.13j * max(swing, 0), x + 0.1 + 0.13j * max(-swing, 0))
    hands = (_arm(neck, -1, -65 + 20 * swing), _arm(neck, 1, -65 - 20 * swing))
    return Pose(neck - 0.32j, neck, hands, feet)


def turn_right(phase: float) -> Pose:
    """Return the pose at `phase` of turning, both arms held out, from facing left over the viewer to facing right."""
    turn, swing = np.pi * (phase - 0.5), float(np.sin(4 * np.pi * phase))
    across = float(np.cos(turn))
    hands = [Pose.neck - 0.08j + 0.1 * across * side + 0.38 * float(np.sin(turn + 0.4 * side)) for side in SIDES]
    feet = [(0.03 + 0.08 * across) * side + 0.05j * max(side * swing, 0) for side in SIDES]
    return Pose(hands=(hands[0], hands[1]), feet=(feet[0], feet[1]), turn=turn)


def wave(phase: float) -> Pose:
    """Return the pose at `phase` of raising an arm, waving three times and lowering it."""
    raised = min(5 * phase, 1, 5 * (1 - phase))
    degrees = -65 + raised * (115 + 40 * np.sin(6 * np.pi * phase))
    return Pose(hands=(Pose.hands[0], _arm(Pose.neck, 1, degrees)))


def jump(phase: float) -> Pose:
    """Return the pose at `phase` of two leaps on the spot with the arms thrown up."""
    lift = -float(np.sin(4 * np.pi * phase))  # below 0 the knees bend, above 0 the feet leave the floor
    height = 0.22 * max(lift, 0)
    neck = 0.82j + 1j * (height + 0.13 * min(lift, 0))
    hands = (_arm(neck, -1, -65 + 125 * max(lift, 0)), _arm(neck, 1, -65 + 125 * max(lift, 0)))
    return Pose(neck - 0.32j, neck, hands, (-0.12 + 1j * height, 0.12 + 1j * height))


# Poses by name. A new activity goes last: its place in this dict seeds its takes.
ACTIVITIES: dict[str, Callable[[float], Pose]] = {
    "jump": jump,
    "sit_down": sit_down,
    "stand_up": lambda phase: sit_down(1 - phase),
    "turn_left": lambda phase: turn_right(1 - phase),
    "turn_right": turn_right,
    "walk_left": lambda phase: walk_right(1 - phase),
    "walk_right": walk_right,
    "wave": wave,
}

# The second is the first played backwards: they differ in nothing but the order of their frames.
ORDER_PAIRS = (("sit_down", "stand_up"), ("turn_right", "turn_left"), ("walk_right", "walk_left"))


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(round(255 * channel) for channel in rgb)


class _Performer:
    """A performer in their room; draws in body heights, around a point of the floor, on a canvas."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.stature = rng.uniform(0.52, 0.6) * min(height, width)  # body height in canvas pixels
        self.limb, self.head = rng.uniform(0.07, 0.09), rng.uniform(0.095, 0.12)
        self.colours: dict[str, Colour] = {  # pale walls, strong clothes: the figure always contrasts
            "wall": _colour(rng, (0.04, 0.22), (0.75, 0.92)),
            "ground": _colour(rng, (0.1, 0.35), (0.6, 0.75)),
            "shirt": _colour(rng, (0.6, 0.9), (0.45, 0.8)),
            "trousers": _colour(rng, (0.3, 0.6), (0.2, 0.35)),
            "hair": _colour(rng, (0.2, 0.5), (0.1, 0.4)),
            "chair": _colour(rng, (0.4, 0.6), (0.3, 0.5)),
            "skin": tuple((rng.uniform(0.5, 1) * np.array([245, 205, 175])).astype(int).tolist()),
            "black": (40, 36, 36),
        }
        self.room = self._draw_room(rng, height, width)
        self.canvas, self.floor = self.room, 0j

    def _draw_room(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        light = np.linspace(0.9, 1.05, height)[:, None, None] * np.ones((1, width, 1))  # (height, width, 1)
        room = (light * self.colours["wall"]).astype(np.uint8)  # (height, width, 3)
        for x in np.arange(0, width, width / rng.integers(4, 10)):
            room[:, int(x) : int(x) + width // 40] = 0.96 * room[:, int(x) : int(x) + width // 40]
        for x in rng.uniform(0.05, 0.8, rng.integers(1, 4)):  # pictures hung on the wall
            corner, size = (x * width, rng.uniform(0.04, 0.2) * height), rng.uniform(0.1, 0.2, 2) * width
            frame = np.array([*corner, *size], int).tolist()
            cv2.rectangle(room, frame, (250, 250, 250), -1)
            cv2.rectangle(room, frame, _colour(rng, (0.15, 0.4), (0.6, 0.8)), max(1, width // 60))
        ground = int(0.74 * height)
        cv2.rectangle(room, (0, ground), (width, height), self.colours["ground"], -1)
        cv2.line(room, (0, ground), (width, ground), (245, 245, 245), max(1, height // 50))
        return room

    def draw(self, pose: Pose, floor: complex, chair_x: float | None) -> np.ndarray:
        """Return the canvas, (canvas height, canvas width, 3) uint8, with the pose's (0, 0) at the pixel `floor`."""
        self.canvas, self.floor = self.room.copy(), floor
        if chair_x is not None:
            self._shadow(chair_x, 0.2)
            self._line("chair", 0.04, *(chair_x + corner for corner in (0.13, 0.12 + 0.22j, -0.14 + 0.22j, -0.15)))
            self._line("chair", 0.05, chair_x - 0.14 + 0.22j, chair_x - 0.19 + 0.62j)
        self._shadow(pose.hip.real, 0.24)
        ahead, across = float(np.sin(pose.turn)), float(np.cos(pose.turn))
        breadth = 0.3 + 0.7 * across
        hips = [pose.hip + 0.06 * breadth * side for side in SIDES]
        shoulders = [pose.neck + 0.1 * breadth * side - 0.04j for side in SIDES]
        for hip, foot, side in zip(hips, pose.feet, SIDES, strict=True):
            toes = foot + 0.03j + 0.05 * ahead + 0.02 * across * side
            knee = _bend(hip, foot + 0.03j, 0.245, toward=ahead + 0.6 * across * side)
            self._line("trousers", self.limb * 1.15, hip, knee, foot + 0.05j)
            self._line("black", self.limb, foot + 0.03j, toes)
        self._line("shirt", 0.1, *shoulders, *hips[::-1], fill=True)
        self._head(pose, ahead, across)
        for shoulder, hand, side in zip(shoulders, pose.hands, SIDES, strict=True):
            length = min(0.175, abs(hand - shoulder) / 2 + 0.03)  # an arm held toward the viewer looks short
            elbow = _bend(shoulder, hand, length, toward=across * side - ahead - 0.3j)
            self._line("skin", self.limb * 0.9, elbow, hand)
            self._line("shirt", self.limb, shoulder, elbow)
            self._disc("skin", self.limb * 0.65, hand)
        return self.canvas

    def _points(self, *joints: complex) -> np.ndarray:
        pixels = self.floor + self.stature * np.conj(joints)  # (num_joints,), y points down on a canvas
        return np.round(np.stack([pixels.real, pixels.imag], -1) * 2**SUBPIXEL_BITS).astype(np.int32)

    def _line(self, colour: str, thickness: float, *joints: complex, fill: bool = False) -> None:
        points, pixels = self._points(*joints), max(1, round(thickness * self.stature))
        cv2.polylines(self.canvas, [points], fill, self.colours[colour], pixels, cv2.LINE_AA, SUBPIXEL_BITS)
        if fill:
            cv2.fillPoly(self.canvas, [points], self.colours[colour], cv2.LINE_AA, SUBPIXEL_BITS)

    def _disc(self, colour: str, radius: float, centre: complex, *, half_up: complex | None = None) -> None:
        (point,), axis = self._points(centre).tolist(), round(radius * self.stature * 2**SUBPIXEL_BITS)
        start, tilt = (0, 0.0) if half_up is None else (180, 90 - np.degrees(np.angle(half_up)))
        paint = self.colours[colour]
        cv2.ellipse(self.canvas, point, (axis, axis), tilt, start, 360, paint, -1, cv2.LINE_AA, SUBPIXEL_BITS)

    def _shadow(self, x: float, radius: float) -> None:
        centre, spread = self.floor + self.stature * x, radius * self.stature
        rows, columns = (np.arange(size, dtype=np.float32) for size in self.canvas.shape[:2])
        soft_rows = np.exp(-(((rows - centre.imag) / (0.3 * spread)) ** 2))
        soft_columns = np.exp(-(((columns - centre.real) / spread) ** 2))
        self.canvas[:] = self.canvas * (1 - 0.45 * np.outer(soft_rows, soft_columns)[..., None])

    def _head(self, pose: Pose, ahead: float, across: float) -> None:
        up = (pose.neck - pose.hip) / abs(pose.neck - pose.hip)
        head = pose.neck + (0.05 + self.head) * up
        self._line("skin", 0.07, pose.neck, head)
        self._disc("skin", self.head, head)
        self._disc("skin", 0.03, head + (self.head * ahead - 0.03j) * up / 1j)  # the nose
        self._disc("hair", self.head * 1.06, head + 0.015 * up, half_up=up * complex(np.exp(0.6j * ahead)))
        for side in SIDES:
            self._disc("black", 0.014, head + (0.05 * ahead + 0.04 * across * side - 0.02j) * up / 1j)


def _bend(start: complex, end: complex, length: float, *, toward: complex) -> complex:
    """Return the elbow or knee of a limb of two equal bones, on the side that `toward` points to.

    Of a bend partly toward the viewer, `abs(toward)` of it is seen.
    """
    span = end - start
    out = 1j * span / abs(span)
    out = (out if (out * toward.conjugate()).real > 0 else -out) * abs(toward)
    return (start + end) / 2 + out * max(length**2 - abs(span) ** 2 / 4, 0) ** 0.5


def _phases(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Return the phase of every frame, (num_frames,): a pause at both ends and an uneven tempo between.

    Played backwards, a draw is another draw that is just as likely, so the tempo does not give the direction away.
    """
    before, after = rng.uniform(0, 0.12, 2)
    time = np.clip((np.linspace(0, 1, num_frames) - before) / (1 - before - after), 0, 1)  # (num_frames,)
    ease, lag = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3)
    return time + ease * np.sin(2 * np.pi * time) / (2 * np.pi) + lag * np.sin(np.pi * time) / np.pi


def draw_frames(
    activity: str, *, performer: int, take: int, num_frames: int = 24, height: int = 96, width: int = 96
) -> np.ndarray:
    """Return the frames of one video, (num_frames, height, width, 3) uint8 RGB, the same for the same arguments.

    Args:
        activity: a key of `ACTIVITIES`.
        performer: fixes the looks: body, clothes, room; 0 or more.
        take: fixes place, tempo, camera shake, light, noise and the place of a chair, for each performer and activity
            anew: two takes have nothing in common that could give the label away; 0 or more.
        num_frames: length of the video; the activity is complete in any.
        height: of the frames, in pixels.
        width: of the frames, in pixels.

    Raises:
        ValueError: the activity is unknown.
    """
    if activity not in ACTIVITIES:
        raise ValueError(f"unknown activity {activity!r}; expected one of {', '.join(ACTIVITIES)}")
    looks = _Performer(np.random.default_rng([0, performer]), CANVAS_SCALE * height, CANVAS_SCALE * width)
    rng = np.random.default_rng([1, performer, take, list(ACTIVITIES).index(activity)])
    floor = complex(rng.uniform(0.44, 0.56) * looks.room.shape[1], rng.uniform(0.86, 0.92) * looks.room.shape[0])
    chair_x = rng.choice([-0.6, 0.6]) if rng.random() < 0.5 else None
    gain, noise = np.float32(rng.uniform(0.88, 1.12)), np.float32(rng.uniform(1, 5))
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for frame, phase in zip(frames, _phases(rng, num_frames), strict=True):
        pose = ACTIVITIES[activity](float(phase))
        canvas = looks.draw(pose, floor, chair_x if pose.seat_x is None else pose.seat_x)
        shake = np.array([[1, 0, rng.normal(0, 0.6)], [0, 1, rng.normal(0, 0.6)]]) * [1, 1, CANVAS_SCALE]
        canvas = cv2.warpAffine(canvas, shake, canvas.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)  # (height, width, 3)
        frame[:] = np.clip(gain * small + noise * rng.standard_normal(small.shape, np.float32), 0, 255)
    return frames


def write_videos(
    videos_dir: Path,
    *,
    num_performers: int = 24,
    num_takes: int = 2,
    num_frames: tuple[int, int] = (16, 32),
    height: int = 96,
    width: int = 96,
    frames_per_second: float = 12.0,
    suffix: str = ".mp4",
) -> Path:
    """Write `<label>/<label>_p03_t1.mp4` for every activity, performer and take, and return their manifest's path.

    The manifest, `manifest.csv`, has the columns path (relative to `videos_dir`), label and group: the performer.

    Args:
        videos_dir: is made if need be.
        num_performers: people, each with their own looks and room.
        num_takes: recordings of each activity by each performer.
        num_frames: fewest and most frames of a video; each has its own number.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        frames_per_second: speed of the videos.
        suffix: `.mp4`, or `.avi` for another codec: see `activity.video.writer.write_video`.
    """
    rows = []
    for performer, take, (index, label) in product(range(num_performers), range(num_takes), enumerate(ACTIVITIES)):
        length = int(np.random.default_rng([2, performer, take, index]).integers(*num_frames, endpoint=True))
        size = {"num_frames": length, "height": height, "width": width}
        path = Path(label, f"{label}_p{performer:02d}_t{take}{suffix}")
        (videos_dir / label).mkdir(parents=True, exist_ok=True)
        frames = draw_frames(label, performer=performer, take=take, **size)
        write_video(videos_dir / path, frames, frames_per_second=frames_per_second)
        rows.append({"path": path.as_posix(), "label": label, "group": f"p{performer:02d}"})
    manifest_path = videos_dir / "manifest.csv"
    write_csv(manifest_path, ("path", "label", "group"), rows)
    return manifest_path
