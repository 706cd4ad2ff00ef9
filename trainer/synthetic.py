"""Procedural pedestrians: figures whose clothes make an identity, as several cameras would see them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""BGR, 0..255."""
CROP_SIZE_HW = (128, 64)

_SKINS: tuple[Color, ...] = ((180, 205, 235), (140, 170, 215), (95, 130, 180), (60, 85, 125), (40, 55, 85))
_HAIRS: tuple[Color, ...] = ((25, 25, 28), (30, 50, 85), (70, 130, 185), (130, 130, 135), (35, 60, 130))
_PATTERNS = ("plain", "hoops", "split", "badge", "open coat")
_LEGS = ("trousers", "shorts", "skirt")
_BAGS = ("none", "none", "backpack", "shoulder")


@dataclass(frozen=True, slots=True)
class Person:
    """What stays the same from camera to camera."""

    skin: Color
    hair: Color
    long_hair: bool
    top: Color
    top_second: Color
    pattern: str
    long_sleeves: bool
    legs: str
    leg_color: Color
    shoes: Color
    bag: str
    bag_color: Color
    width: float
    """Shoulder width relative to the usual."""
    height: float
    """Body height as a share of the box."""


@dataclass(frozen=True, slots=True)
class Camera:
    """What a camera does to everything it sees."""

    gain: tuple[float, float, float]
    """BGR."""
    gamma: float
    blur: float
    """Sigma in pixels at the crop's size."""
    noise: float
    """Sigma in grey levels."""
    ground: Color
    wall: Color
    backs: float
    """Probability that a person is seen from behind."""


def draw_person_traits(random: np.random.Generator) -> Person:
    """Draw an identity's traits."""
    return Person(
        skin=_pick(random, _SKINS),
        hair=_pick(random, _HAIRS),
        long_hair=bool(random.random() < 0.4),
        top=_cloth(random),
        top_second=_cloth(random),
        pattern=_PATTERNS[random.integers(len(_PATTERNS))],
        long_sleeves=bool(random.random() < 0.6),
        legs=_LEGS[random.choice(len(_LEGS), p=(0.65, 0.2, 0.15))],
        leg_color=_cloth(random, darker=True),
        shoes=_cloth(random, darker=True),
        bag=_BAGS[random.integers(len(_BAGS))],
        bag_color=_cloth(random),
        width=float(random.uniform(0.85, 1.2)),
        height=float(random.uniform(0.86, 0.97)),
    )


def draw_camera_traits(random: np.random.Generator) -> Camera:
    """Draw a camera's traits."""
    blue, green, red = random.uniform(0.82, 1.18, 3) * random.uniform(0.75, 1.15)
    ground = int(random.integers(90, 170))
    return Camera(
        gain=(float(blue), float(green), float(red)),
        gamma=float(random.uniform(0.8, 1.25)),
        blur=float(random.uniform(0.3, 0.9)),
        noise=float(random.uniform(2, 7)),
        ground=(ground, int(ground * random.uniform(0.92, 1.08)), int(ground * random.uniform(0.92, 1.08))),
        wall=_cloth(random, saturations=(20, 50, 80)),
        backs=float(random.uniform(0.1, 0.9)),
    )


def render_crop(person: Person | None, camera: Camera, random: np.random.Generator) -> NDArray[np.uint8]:
    """A detector's crop of a person, or of background alone: (128, 64, 3) uint8 BGR, a little misaligned."""
    height, width = CROP_SIZE_HW
    scale = 2
    canvas = np.empty((height * scale, width * scale, 3), np.uint8)
    paint_background(canvas, camera, random)
    if person is not None:
        shift = random.normal(0, 0.03, 2) * (width * scale, height * scale)
        zoom = random.uniform(0.92, 1.08)
        box_width, box_height = width * scale * zoom, height * scale * zoom
        left = (width * scale - box_width) / 2 + shift[0]
        top = (height * scale - box_height) / 2 + shift[1]
        box = (left, top, left + box_width, top + box_height)
        paint_person(canvas, person, box, bool(random.random() < camera.backs), float(random.uniform(0, 1)))
        if random.random() < 0.15:  # something stands in front
            edge = int(height * scale * random.uniform(0.72, 0.9))
            cv2.rectangle(canvas, (0, edge), (width * scale, height * scale), _cloth(random), -1)
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return apply_camera(np.asarray(small, dtype=np.uint8), camera, random)


def apply_camera(image: NDArray[np.uint8], camera: Camera, random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, colour, gamma and noise of a camera: (H, W, 3) uint8 to the same."""
    blurred = cv2.GaussianBlur(image, (0, 0), camera.blur).astype(np.float32) / 255
    lit = np.power(np.clip(blurred * np.asarray(camera.gain, np.float32), 0, 1), camera.gamma) * 255
    lit += random.normal(0, camera.noise, image.shape).astype(np.float32)
    return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)


def random_crops(count: int, seed: int) -> list[NDArray[np.uint8]]:
    """``count`` crops, each of another person, over four cameras."""
    random = np.random.default_rng([seed, 77])
    cameras = [draw_camera_traits(random) for _ in range(4)]
    return [render_crop(draw_person_traits(random), cameras[i % len(cameras)], random) for i in range(count)]


def paint_background(canvas: NDArray[np.uint8], camera: Camera, random: np.random.Generator) -> None:
    """Fill a canvas with a wall, a ground and some clutter."""
    height, width = canvas.shape[:2]
    horizon = int(height * random.uniform(0.35, 0.6))
    canvas[:horizon] = camera.wall
    canvas[horizon:] = camera.ground
    for _ in range(int(random.integers(1, 5))):
        x, y = int(random.integers(width)), int(random.integers(horizon))
        size = random.integers((width // 8, height // 12), (width // 2, height // 3))
        cv2.rectangle(canvas, (x, y), (x + int(size[0]), y + int(size[1])), _cloth(random), -1)


def paint_person(
    canvas: NDArray[np.uint8], person: Person, box: tuple[float, float, float, float], back: bool, phase: float
) -> None:
    """Draw a walking figure into a box.

    Args:
        canvas: (H, W, 3) uint8 BGR, drawn on.
        person: Whom.
        box: xyxy pixels; the figure stands on its lower edge.
        back: Seen from behind.
        phase: Of the step, 0..1.
    """
    left, top, right, bottom = box
    centre, box_width, box_height = (left + right) / 2, right - left, bottom - top
    body = box_height * person.height
    unit = box_width * person.width

    def at(x: float, y: float) -> tuple[int, int]:
        """A point of the figure, x in shoulder widths from its middle, y in body heights from the head's top."""
        return round(centre + x * unit), round(bottom - body * (1 - y))

    def thick(share: float) -> int:
        return max(1, round(share * unit))

    swing = float(np.sin(2 * np.pi * phase))
    for side in (-1, 1):
        foot = at(side * 0.09 + side * swing * 0.13, 0.965)
        knee = at(side * 0.11 + side * swing * 0.06, 0.74)
        hip = at(side * 0.1, 0.5)
        bare = person.legs != "trousers"
        cv2.line(canvas, hip, knee, person.leg_color, thick(0.2))
        cv2.line(canvas, knee, foot, person.skin if bare else person.leg_color, thick(0.14 if bare else 0.17))
        cv2.ellipse(canvas, foot, (thick(0.11), thick(0.06)), 0, 0, 360, person.shoes, -1)
    if person.legs == "skirt":
        _polygon(canvas, [at(-0.17, 0.48), at(0.17, 0.48), at(0.27, 0.72), at(-0.27, 0.72)], person.leg_color)
    for side in (-1, 1):
        shoulder, elbow = at(side * 0.23, 0.22), at(side * 0.29, 0.36)
        hand = at(side * (0.29 - 0.06 * swing), 0.5)
        cv2.line(canvas, shoulder, elbow, person.top, thick(0.12))
        cv2.line(canvas, elbow, hand, person.top if person.long_sleeves else person.skin, thick(0.09))
        cv2.circle(canvas, hand, thick(0.05), person.skin, -1)
    _polygon(canvas, [at(-0.25, 0.18), at(0.25, 0.18), at(0.2, 0.53), at(-0.2, 0.53)], person.top)
    if person.pattern == "hoops":
        for y in (0.24, 0.33, 0.42):
            cv2.rectangle(canvas, at(-0.21, y), at(0.21, y + 0.035), person.top_second, -1)
    elif person.pattern == "split":
        _polygon(canvas, [at(-0.22, 0.36), at(0.22, 0.36), at(0.2, 0.53), at(-0.2, 0.53)], person.top_second)
    elif person.pattern == "badge" and not back:
        cv2.rectangle(canvas, at(-0.11, 0.25), at(0.11, 0.35), person.top_second, -1)
    elif person.pattern == "open coat" and not back:
        _polygon(canvas, [at(-0.07, 0.18), at(0.07, 0.18), at(0.1, 0.53), at(-0.1, 0.53)], person.top_second)
    if person.bag == "backpack":
        if back:
            cv2.rectangle(canvas, at(-0.17, 0.21), at(0.17, 0.43), person.bag_color, -1)
        else:
            for side in (-1, 1):
                cv2.line(canvas, at(side * 0.14, 0.18), at(side * 0.14, 0.38), person.bag_color, thick(0.06))
    elif person.bag == "shoulder":
        side = -1 if back else 1
        cv2.line(canvas, at(-side * 0.18, 0.18), at(side * 0.24, 0.46), person.bag_color, thick(0.04))
        cv2.rectangle(canvas, at(side * 0.25 - 0.09, 0.44), at(side * 0.25 + 0.09, 0.56), person.bag_color, -1)
    head = at(0, 0.09)
    if person.long_hair:
        cv2.rectangle(canvas, at(-0.14, 0.06), at(0.14, 0.2), person.hair, -1)
    cv2.rectangle(canvas, at(-0.05, 0.14), at(0.05, 0.19), person.skin, -1)
    cv2.ellipse(canvas, head, (thick(0.14), round(0.075 * body)), 0, 0, 360, person.hair if back else person.skin, -1)
    cv2.ellipse(canvas, at(0, 0.06), (thick(0.145), round(0.05 * body)), 0, 180, 360, person.hair, -1)


def _polygon(canvas: NDArray[np.uint8], points: list[tuple[int, int]], color: Color) -> None:
    cv2.fillPoly(canvas, [np.asarray(points, np.int32)], color)


def _pick(random: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[random.integers(len(colors))]


def _cloth(random: np.random.Generator, darker: bool = False, saturations: tuple[int, ...] = (20, 120, 200)) -> Color:
    """A colour of any hue; greys are as likely as bright ones."""
    hue, saturation = random.integers(180), random.choice(saturations)
    value = random.integers(30, 140 if darker else 245)
    blue, green, red = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red
