"""Draws people, for a first walk where no faces are at hand: python draw_people.py FOLDER

FOLDER gets a folder for each person, with gray images of 46 x 56. A person is some thirty numbers:
sides of the head, eyes, brows, nose, mouth, hair, tones, spots of the skin; an image of them is
moved, turned and lit at random, and moves the mouth and the eyelids. So an image of one person is
often less like another of them than one of someone else, as it is with photographs of faces.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 46, 56


def person(rng) -> dict:
    """Lengths in pixels, tones of 0 to 255; y counts from the middle of the head downwards."""
    return {
        "head": (rng.normal(15, 1.2), rng.normal(21, 1.3)),
        "skin": rng.normal(165, 18),
        "spots": 8 * _smooth(rng, 3) + 4 * _smooth(rng, 1.2),
        "hair": rng.normal(60, 35),
        "hairline": rng.normal(-13, 2.5),
        "eyes": (rng.normal(7, 0.8), rng.normal(-3, 1)),
        "iris": rng.normal(2, 0.35),
        "brows": rng.normal(-7.5, 1),
        "brow_height": rng.normal(1, 0.35),
        "brow_slope": rng.normal(0, 0.15),
        "nose": (rng.normal(2.4, 0.5), rng.normal(5, 1.2)),
        "mouth": (rng.normal(5.5, 0.9), rng.normal(11, 1)),
        "lips": rng.normal(1.1, 0.35),
        "beard": max(0.0, rng.normal(-5, 25)),
        "glasses": rng.random() < 0.25,
        "behind": rng.normal(110, 10),
    }


def image(who, rng) -> np.ndarray:
    """Another image of a person, uint8 [HEIGHT, WIDTH]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT / 2, WIDTH / 2])[:, None, None]
    turn, size = rng.normal(0, 0.05), np.exp(rng.normal(0, 0.035))
    cosine, sine = size * np.cos(turn), size * np.sin(turn)
    x, y = cosine * x - sine * y + rng.normal(0, 0.8), sine * x + cosine * y + rng.normal(0, 0.8)
    wide, high = who["head"]
    head = _within(12 * (np.hypot(x / wide, y / high) - 1))
    # Where the head turns away, what stands out of it moves more.
    out = np.sqrt(np.clip(1 - (x / wide) ** 2 - (y / high) ** 2, 0, 1))
    face_x, face_y = x - rng.normal(0, 1.5) * out, y - rng.normal(0, 0.9) * out
    shown = who["behind"] * (1 - head) + _face(who, face_x, face_y, rng) * head
    across, down = rng.normal(0, 0.01, 2)
    light = np.exp(rng.normal(0, 0.05)) * (1 + (across * x + 0.7 * down * y) * head)
    return (shown * light + rng.normal(0, 3, x.shape)).clip(0, 255).astype(np.uint8)


def _face(who, x, y, rng):
    spots = cv2.remap(
        who["spots"].astype(np.float32),
        (x + WIDTH / 2).astype(np.float32),
        (y + HEIGHT / 2).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    skin = who["skin"] + spots - who["beard"] * _within((6 - y) / 1.5)
    hair = _within((y - who["hairline"] - 0.02 * x**2) / 0.8)
    face = _over(skin, who["hair"], hair)
    opened, lids = abs(rng.normal(0, 0.8)), np.exp(rng.normal(0, 0.25))
    apart, eye_y = who["eyes"]
    for side in (-apart, apart):
        eye = np.hypot((x - side) / 1.5, (y - eye_y) / lids) - who["iris"]
        face = _over(face, 45, 0.85 * _within(2 * eye))
        middle = who["brows"] + np.sign(side) * who["brow_slope"] * (x - side)
        brow = _within((np.abs(y - middle) - who["brow_height"]) / 0.4)
        face = _over(face, 0.8 * who["hair"], 0.8 * brow * _within(2 * (np.abs(x - side) - 4)))
        if who["glasses"]:
            rim = np.abs(np.hypot(x - side, y - eye_y) - 4.6) - 0.4
            face = _over(face, 40, 0.8 * _within(rim / 0.4))
    wide, tip = who["nose"]
    face = face - 28 * _within((np.hypot(x / wide, (y - tip) / 1.4) - 1) / 0.3)
    face = face - 10 * _within(2 * (np.abs(x - 1) - 0.7)) * _within(np.abs(y - 1) - 4)
    wide, mouth_y = who["mouth"]
    lips = np.abs(y - mouth_y - 0.5 * opened) - who["lips"] - 0.6 * opened
    return _over(face, 80, 0.75 * _within(2 * np.maximum(np.abs(x) - wide, lips)))


def _smooth(rng, sigma):
    """A random field of deviation 1, smooth over `sigma` pixels."""
    field = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)), (0, 0), sigma)
    return field / field.std()


def _within(distance):
    """1 where a distance is below 0, 0 above, with a soft edge."""
    return 1 / (1 + np.exp(np.clip(distance, -30, 30)))


def _over(below, tone, cover):
    return below + (tone - below) * cover


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    for number in range(args.people):
        who, folder = person(rng), Path(args.folder, f"person_{number:04d}")
        folder.mkdir(parents=True, exist_ok=True)
        for take in range(args.images):
            cv2.imwrite(str(folder / f"{take:02d}.png"), image(who, rng))


if __name__ == "__main__":
    main()
