import pytest
from pydicom.sr.codedict import codes

from u2net_tf.plan.anatomy import PRIVATE_SCHEME, Anatomy, Code
from u2net_tf.plan.labels import Label
from u2net_tf.volumes import anatomy
from u2net_tf.volumes.anatomy import as_long_string, find_anatomy


def find(name):
    return find_anatomy(Label(name, (1,)))


def test_codes_match_dicom():
    """pydicom contains the codes of the context groups of the standard."""
    known = {}
    for keyword in dir(codes.SCT):
        code = getattr(codes.SCT, keyword)
        # Skips other attributes of the terminology.
        if not hasattr(code, "meaning"):
            continue
        known.setdefault(code.value, set()).add(code.meaning.casefold())
    ours = [find(name).kind for name in (*anatomy._STRUCTURES, *anatomy._ABNORMAL)]
    ours += [anatomy.STRUCTURE, anatomy.ABNORMAL, anatomy.UNKNOWN]
    ours += anatomy.SIDES.values()
    for code in ours:
        assert code.scheme == "SCT"
        assert code.meaning.casefold() in known[code.value], code
    assert set(anatomy._PAIRED) < set(anatomy._STRUCTURES)
    assert set(anatomy._SPELLINGS.values()) < {
        *anatomy._STRUCTURES,
        *anatomy._ABNORMAL,
    }


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("liver", "10200004", None),
        ("Inferior_Vena-Cava", "64131007", None),
        ("oesophagus", "32849002", None),
        ("Left Atrium", "82471001", None),
        ("kidney_left", "64033007", "Left"),
        ("right_parotid", "45289007", "Right"),
        ("right lungs", "39607008", "Right"),
        ("Tumour", "108369006", None),
    ],
)
def test_names_with_a_code(name, value, side):
    found = find(name)
    assert found.is_known
    assert found.kind.value == value
    assert (found.side and found.side.meaning) == side


@pytest.mark.parametrize(
    "name",
    ["head", "Anterior", "PZ", "vessel", "left", "left liver", "liver tumour", "肝臓"],
)
def test_ambiguous_names_have_no_code(name):
    found = find(name)
    assert not found.is_known
    assert found.kind.scheme == PRIVATE_SCHEME
    assert found.kind.meaning == name
    assert found.side is None
    assert len(found.kind.value) <= 16
    assert find(name) == found != find(name + "s")


def test_the_code_of_the_plan_takes_precedence():
    given = Anatomy(
        category=anatomy.STRUCTURE,
        kind=Code("1234", "99LAB", "Head of the hippocampus"),
        side=anatomy.SIDES["left"],
    )
    assert find_anatomy(Label("liver", (1,), anatomy=given)) == given
    assert given.is_known


@pytest.mark.parametrize("name", ["a^b", "a~b", "a|b", "a\\b", "x" * 70, "a\nb"])
def test_any_name_gets_a_code(name):
    assert find(name).kind.scheme == PRIVATE_SCHEME


def test_long_strings():
    assert as_long_string("a\\b\n") == "a/b"
    assert as_long_string("x" * 63 + " y") == "x" * 63
    assert as_long_string("\n") == "?"
