"""Finds pairs of left and right classes by their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

# Words for the sides in languages that occur in label names. If two names differ in
# nothing else, even a single letter can only mean the side.
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
# Also within words: "leftkidney", 左肾; but not in "cleft", "bright" and "upright".
_SIDES_IN_WORDS = re.compile(
    r"(?P<left>(?<!\bc)left|左)|(?P<right>(?<!\bb)(?<!\bup)right|右)"
)
# Words and numbers; words are split at capitals, as in "leftKidney" and "LKidney".
_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAPITAL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][^\W\d_A-Z])")

# Replacements that turn the name of a left side into that of a right side, anywhere in
# a word: a letter at the start or end of a word, as in "lkidney" and "rkidney", LUL and
# RUL, lung_ul and lung_ur, and stems of words that have endings or are part of others.
# If two names match by coincidence, a mirror axis is lost, and the plan says why.
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

_MARKERS = ("<left>", "<right>")


def find_side_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """Returns the first two names that differ in their side only: "lh-X", "X right".

    Args:
      names: names of the classes.
    """
    parts = {name: _marked_words(name) for name in names}
    for name, name_parts in parts.items():
        for other in names:
            if other != name and parts[other] == _mirrored(name_parts) != name_parts:
                return name, other
    return _find_swapped(names)


def _find_swapped(names: Sequence[str]) -> tuple[str, str] | None:
    """Returns the first two names that one of `_SWAPS` turns into each other."""
    spellings = {spelling: name for name in names for spelling in _spellings(name)}
    index_of = {name: index for index, name in enumerate(names)}
    pairs = [
        sorted((name, spellings[other]), key=index_of.__getitem__)
        for text, name in spellings.items()
        for other in _swapped(text)
        if other in spellings
    ]
    if not pairs:
        return None
    one, other = min(pairs, key=lambda pair: [index_of[name] for name in pair])
    return one, other


def _spellings(name: str) -> set[str]:
    """Returns a name in lower case, with and without its words split at capitals."""
    words = _WORD.findall(unicodedata.normalize("NFKC", name))
    split = [part for word in words for part in _CAPITAL.split(word)]
    return {" ".join(words).lower(), " ".join(split).lower()}


def _swapped(text: str) -> Iterator[str]:
    """Yields a name with one occurrence of "left" replaced by "right"."""
    for left, right in _SWAPS:
        for found in left.finditer(text):
            start, end = found.span()
            yield f"{text[:start]}{right}{text[end:]}"


def find_single_sides(names: Sequence[str]) -> list[str]:
    """Returns names with "left" or "right" in full, without a name for the other side.

    Args:
      names: names of the classes.
    """
    all_parts = {_marked_words(name) for name in names}
    return [
        name
        for name in names
        if _SIDES_IN_WORDS.search(name.lower())
        and _mirrored(_marked_words(name)) not in all_parts
    ]


def _marked_words(name: str) -> tuple[str, ...]:
    """Returns the words of a name in lower case, sorted, with a marker per side."""
    found: list[str] = []
    for word in _WORD.findall(name):
        for part in _CAPITAL.split(word):
            text = part.lower()
            if text in _LEFT:
                found.append(_MARKERS[0])
            elif text in _RIGHT:
                found.append(_MARKERS[1])
            else:
                found += filter(None, _mark_sides(text).split("\0"))
    return tuple(sorted(found))


def _mark_sides(text: str) -> str:
    def marker(match: re.Match[str]) -> str:
        return f"\0{_MARKERS[match['right'] is not None]}\0"

    return _SIDES_IN_WORDS.sub(marker, text)


def _mirrored(parts: tuple[str, ...]) -> tuple[str, ...]:
    swap = dict(zip(_MARKERS, reversed(_MARKERS), strict=True))
    return tuple(sorted(swap.get(part, part) for part in parts))
