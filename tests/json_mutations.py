"""Odd JSON, made from valid JSON at random."""

import copy
import json

# What people, programs and broken disks write in place of valid values.
VALUES = (
    *(
        None,
        True,
        False,
        "",
        " ",
        "0",
        "01",
        "-1",
        "a/b",
        "..",
        "C:\\a",
        "Läsion",
        "北",
    ),
    *("\0", "\n", "\ud800", "x" * 300, "null", "NaN", [], {}, [[]], [None], {"": 0}),
    *(0, -1, 1, 2, 0.5, -0.0, 1e308, 1e-308, 10**12, 2**31, 2**63, -(2**63), 10**4000),
    *(float("nan"), float("inf"), [1, 2, 3], ["a", "a"], list(range(2000))),
    *("../y.nii.gz", "/etc/passwd", "..\\y.nii.gz", "a/../../y.nii.gz", "~/x"),
    *(64, 10**9, [64, 64, 64], [10**9] * 3),
    *({"0": "a", "1": "b"}, {"a": 0}, {"train": ["a"], "val": ["b"]}),
)


def places_in(value, place=()):
    """Yields the keys that lead to each nested value, the root's () first."""
    yield place
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from places_in(item, (*place, key))


def _parent_of(content, place):
    for key in place[:-1]:
        content = content[key]
    return content


def change_value(rng, content):
    """Replaces, removes, renames, repeats or wraps one value."""
    content = copy.deepcopy(content)
    place = rng.choice(list(places_in(content))[1:] or [()])
    if not place:
        return rng.choice(VALUES)
    parent, key = _parent_of(content, place), place[-1]
    old = parent[key]
    how = rng.randrange(7)
    if how == 0:
        del parent[key]
    elif how == 1:
        parent[key] = [old]
    elif how == 2:
        parent[key] = {"x": old}
    elif how == 3 and isinstance(parent, dict):
        parent[rng.choice(["", "x", "1", "01", f"{key} ", str(key).upper()])] = old
    elif how == 3:
        parent.append(copy.deepcopy(rng.choice(parent)))
    elif how == 4 and isinstance(old, int | float) and not isinstance(old, bool):
        parent[key] = old * rng.choice([-1, 0.5, 10**9, 10**20])
    else:
        parent[key] = rng.choice(VALUES)
    return content


def change_each(rng, content):
    """Replaces each nested value in turn by something odd."""
    for place in list(places_in(content))[1:]:
        changed = copy.deepcopy(content)
        _parent_of(changed, place)[place[-1]] = rng.choice(VALUES)
        yield changed


def change_bytes(rng, content):
    """Damages the text of a file, or saves it in another encoding."""
    how = rng.randrange(7)
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    if how == 0:
        return content[:start]
    if how == 1:
        return content[:start] + content[end:]
    if how == 2:
        return content[:start] + content[start:end] * 2 + content[end:]
    if how == 3:
        return content[:start] + b"[" * 100_000
    if how == 4:
        return content[:start] + b"9" * 5000 + content[start:]
    if how == 5:
        names = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-7")
        return content.decode().encode(rng.choice(names), errors="replace")
    odd = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        odd[rng.randrange(len(odd))] = rng.randrange(256)
    return bytes(odd)


def mutate(rng, content):
    """Returns the content as bytes of a file, changed in one to three places."""
    if rng.random() < 0.3:
        return change_bytes(rng, json.dumps(content, ensure_ascii=False).encode())
    for _ in range(rng.randrange(1, 4)):
        content = change_value(rng, content)
    return json.dumps(content).encode()
