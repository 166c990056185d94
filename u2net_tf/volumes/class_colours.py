"""Colours of the classes, the same in figures and in files for other programs."""

from __future__ import annotations

import colorsys

# Distinguishable with colour blindness, and all light enough to stand out on grey.
CLASS_COLOURS = ("#ff4d4d", "#33ccff", "#ffd633", "#66e066", "#ff80ff", "#ffa64d")
# Hue step that keeps even many colours apart.
_GOLDEN_RATIO = 0.618034
_SATURATIONS = (0.75, 0.45)


def class_colour(number: int) -> str:
    """Returns the colour of a class, for example "#ff4d4d".

    Args:
      number: index of the class, from 1. Beyond the first few, hues are spread evenly.
    """
    if 1 <= number <= len(CLASS_COLOURS):
        return CLASS_COLOURS[number - 1]
    hue = number * _GOLDEN_RATIO % 1
    rgb = colorsys.hsv_to_rgb(hue, _SATURATIONS[number % len(_SATURATIONS)], 1)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def class_rgb(number: int) -> tuple[float, float, float]:
    """Returns red, green and blue of `class_colour`, each from 0 to 1."""
    text = class_colour(number).removeprefix("#")
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue
