"""Which classes are the left and the right of something, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words for the sides, in the languages that label maps are named in. Where two classes
# differ in nothing else, even a single letter can mean nothing else.
_LEFT = {
    *("l", "lh", "lt", "lft", "left", "sx", "sin", "sinister", "sinistra", "sinistro"),
    *("li", "links", "linke", "linker", "linkes", "g", "gauche"),
    *("izq", "izquierda", "izquierdo", "esq", "esquerda", "esquerdo"),
    *("лев", "левая", "левое", "левый", "lewa", "lewe", "lewy", "vänster"),
}
_RIGHT = {
    *("r", "rh", "rt", "rgt", "right", "dx", "dex", "dexter", "dextra", "destra"),
    *("destro", "re", "rechts", "rechte", "rechter", "rechtes", "d", "droit", "droite"),
    *("der", "derecha", "derecho", "dir", "direita", "direito"),
    *("прав", "правая", "правое", "правый", "prawa", "prawe", "prawy", "höger"),
}
# As part of a word, too: "leftkidney", 左肾; but for "cleft", "bright" and "upright".
_PARTS = re.compile(r"(?P<left>(?<!\bc)left|左)|(?P<right>(?<!\bb)(?<!\bup)right|右)")
# A word in capitals, one with at most its first letter in capitals, or a number.
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][^\W\d_A-Z])")

# A letter at the start or end of a longer word, as in "lkidney" and "rkidney".
_GLUED = re.compile(r"\b[lr](?=[a-z]{3})|(?<=[a-z]{3})[lr]\b")
_OTHER = {"l": "r", "r": "l"}

_SIDES = ("<left>", "<right>")


def find_side_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that differ only in their side, as "lh-X" and "X right" do.

    Args:
      names: of the classes.
    """
    parts = {name: _parts(name) for name in names}
    for name, own in parts.items():
        for other in names:
            if other != name and parts[other] == _mirrored(own) != own:
                return name, other
    words = {" ".join(_WORD.findall(name.lower())): name for name in names}
    for text, name in words.items():
        for found in _GLUED.finditer(text):
            start, end = found.span()
            other = f"{text[:start]}{_OTHER[found[0]]}{text[end:]}"
            if other in words:
                return name, words[other]
    return None


def find_single_sides(names: Sequence[str]) -> list[str]:
    """Names that say "left" or "right" in full, where no other name is the other side.

    Args:
      names: of the classes.
    """
    every = {_parts(name) for name in names}
    return [
        name
        for name in names
        if _PARTS.search(name.lower()) and _mirrored(_parts(name)) not in every
    ]


def _parts(name: str) -> tuple[str, ...]:
    """The words of a name in small letters, sorted, with a sign for each side."""
    found: list[str] = []
    for word in _WORD.findall(name):
        for part in _HUMP.split(word):
            text = part.lower()
            if text in _LEFT:
                found.append(_SIDES[0])
            elif text in _RIGHT:
                found.append(_SIDES[1])
            else:
                found += filter(None, _marked(text).split("\0"))
    return tuple(sorted(found))


def _marked(text: str) -> str:
    def sign(match: re.Match[str]) -> str:
        return f"\0{_SIDES[match['right'] is not None]}\0"

    return _PARTS.sub(sign, text)


def _mirrored(parts: tuple[str, ...]) -> tuple[str, ...]:
    swap = dict(zip(_SIDES, reversed(_SIDES), strict=True))
    return tuple(sorted(swap.get(part, part) for part in parts))
