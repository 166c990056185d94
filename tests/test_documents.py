"""Links in the documents lead to existing files and headings."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def anchors(path):
    """The anchors of the headings of a document, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_anchor_is_that_of_a_heading(name):
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        assert anchor in anchors(path.parent / target if target else path), anchor


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_placeholder_is_left(name):
    assert "@@" not in (ROOT / name).read_text(encoding="utf-8")


def test_every_flagfile_is_in_the_readme_and_says_how_to_use_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = list((ROOT / "u2net_tf" / "flagfiles").glob("*.flags"))
    assert paths
    for path in paths:
        assert path.name in readme
        assert f"--flagfile={path.stem}" in path.read_text()
