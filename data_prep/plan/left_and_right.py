"""Which classes are the left and the right of something, by their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

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

# What differs between the names of the sides of something, anywhere in a word: a letter
# where a word begins or ends, as in "lkidney" and "rkidney", LUL and RUL, lung_ul and
# lung_ur, and stems of words that have endings or stand within others. Two names that
# differ so by chance cost a mirror axis, and the plan says why.
_SWAPS = (
    (re.compile(r"\bl(?=[^\W\d_])|(?<=[^\W\d_])l\b"), "r"),
    *(
        (re.compile(left), right)
        for left, right in (
            *(("link", "recht"), ("gauche", "droite"), ("gauche", "droit")),
            *(("izquierd", "derech"), ("esquerd", "direit")),
            *(("sinist", "dest"), ("sinist", "dext")),
            *(("лев", "прав"), ("лів", "прав"), ("lev", "prav")),
            *(("venstre", "højre"), ("venstre", "høyre"), ("vänster", "höger")),
            *(("vasen", "oikea"), ("sol", "sağ"), ("αριστερ", "δεξι")),
            *(("왼", "오른"), ("좌", "우"), ("أيسر", "أيمن"), ("يسرى", "يمنى")),
        )
    ),
)

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
    return _find_swapped(names)


def _find_swapped(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that one of `_SWAPS` turns into each other."""
    spellings = {spelling: name for name in names for spelling in _spellings(name)}
    places = {name: index for index, name in enumerate(names)}
    pairs = [
        sorted((name, spellings[other]), key=places.__getitem__)
        for text, name in spellings.items()
        for other in _swapped(text)
        if other in spellings
    ]
    if not pairs:
        return None
    one, other = min(pairs, key=lambda pair: [places[name] for name in pair])
    return one, other


def _spellings(name: str) -> set[str]:
    """A name in small letters, its words split at capitals and not."""
    words = _WORD.findall(unicodedata.normalize("NFKC", name))
    split = [part for word in words for part in _HUMP.split(word)]
    return {" ".join(words).lower(), " ".join(split).lower()}


def _swapped(text: str) -> Iterator[str]:
    """A name with one left in it made a right."""
    for left, right in _SWAPS:
        for found in left.finditer(text):
            start, end = found.span()
            yield f"{text[:start]}{right}{text[end:]}"


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
