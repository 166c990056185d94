import pytest
from invented_surveys import make_domain, plan_one

from data_prep.plan.left_and_right import find_side_pair, find_single_sides

PAIRS = [
    ("Kidney L", "Kidney R"),
    ("lh-hippocampus", "rh-hippocampus"),
    ("kidney_lt", "kidney_rt"),
    ("kidney_left", "Kidney_Right"),
    ("left_kidney", "kidney, right"),
    ("leftkidney", "rightkidney"),
    ("KidneyLeft", "KidneyRight"),
    ("LKidney", "RKidney"),
    ("kidneyL", "kidneyR"),
    ("Lkidney", "Rkidney"),
    ("kidneyr 2", "Kidneyl 2"),
    ("LH", "RH"),
    ("rib_l_7", "rib_r_7"),
    ("L Lung", "R Lung"),
    ("rene sinistro", "rene destro"),
    ("sinistra", "dextra"),
    ("Niere links", "Niere rechts"),
    ("rein gauche", "rein droit"),
    ("riñón izquierdo", "riñón derecho"),
    ("левая почка", "правая почка"),
    ("左肾", "右肾"),
    ("RK", "LK"),
    ("RAG", "LAG"),
    ("LUL", "RUL"),
    ("Lung_UL", "Lung_UR"),
    ("LungULLobe", "LungURLobe"),
    ("LCA", "RCA"),
    ("LV", "RV"),
    ("heart LAA", "heart RAA"),
    ("LKid", "rkid"),
    ("왼쪽 신장", "오른쪽 신장"),
    ("좌측신장", "우측신장"),
    ("reingauche", "reindroit"),
    ("jambes gauches", "jambes droites"),
    ("Niere_linkes", "Niere_rechtes"),
    ("linksniere", "rechtsniere"),
    ("pulmones izquierdos", "pulmones derechos"),
    ("arti sinistri", "arti destri"),
    ("atrium sinistrum", "atrium dextrum"),
    ("ren sinister", "ren dexter"),
    ("левого лёгкого", "правого лёгкого"),
    ("venstre nyre", "højre nyre"),
    ("sol böbrek", "sağ böbrek"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_sides_are_found(pair):
    for one, other in (pair, pair[::-1]):
        names = ["background", one, "liver", other]
        assert find_side_pair(names) == (one, other)
        assert find_single_sides(names) == []


@pytest.mark.parametrize(
    ("names", "single"),
    [
        (["Left_Atrium", "left_ventricle"], ["Left_Atrium", "left_ventricle"]),
        (["left kidney", "liver"], ["left kidney"]),
        (["rib_left_7", "rib_right_8"], ["rib_left_7", "rib_right_8"]),
        (["cleft", "bright tissue", "upright"], []),
        (["L1", "L2", "T1"], []),
        (["pallium", "palrium"], []),
        (["LK", "RAG"], []),
        (["LK", "spleen"], []),
        (["LUL", "RML"], []),
        (["lung", "liver", "rectum", "rib", "colon", "ureter", "bladder"], []),
        (["rein gauche", "foie"], []),
        (["L1", "L2", "L3", "L4", "L5", "S1", "T12", "C7"], []),
        (["aorta", "IVC", "PV", "SMA", "CA", "RPV"], []),
        (["lung", "long"], []),
        (["liver", "liver l"], []),
        (["liver, left/right"], []),
        (["tumour", "tumour core"], []),
    ],
)
def test_names_that_are_not_a_pair(names, single):
    names = ["background", *names]
    assert find_side_pair(names) is None
    assert find_single_sides(names) == single


def plan_mirroring(*names, **choices):
    labels = dict(enumerate(("background", *names)))
    domain, notes = plan_one(make_domain(labels=labels), **choices)
    return domain.mirror_axes, notes


def test_sides_are_not_mirrored_and_the_guess_is_reported():
    axes, notes = plan_mirroring("Kidney L", "Kidney R")
    assert axes == ()
    assert "no axis is mirrored, since 'Kidney L' and 'Kidney R' look like" in notes
    axes, notes = plan_mirroring("Kidney L", "Kidney R", mirror_axes=("x", "z"))
    assert axes == ("x", "z")
    assert (
        "x is mirrored as requested, although 'Kidney L' and 'Kidney R' look" in notes
    )
    axes, notes = plan_mirroring("Kidney L", "Kidney R", mirror_axes=("z",))
    assert "mirrored" not in notes


def test_a_single_side_is_mirrored_and_the_guess_is_reported():
    axes, notes = plan_mirroring("left kidney", "liver")
    assert axes == ("x",)
    assert (
        "x is mirrored, although a side is part of the name of left kidney; if" in notes
    )
    assert "mirrored" not in plan_mirroring("left kidney", mirror_axes=())[1]
    axes, notes = plan_mirroring("kidney", "liver")
    assert axes == ("x",)
    assert "mirrored" not in notes


def test_the_table_shows_the_axes(plan):
    plan(make_domain("A"), make_domain("B"), mirror_axes="z,x")
    lines = plan.done.stdout.splitlines()
    assert "mirror" in lines[0].split()
    assert lines[2].split()[-6:-4] == ["2", "z,x"]
    plan(make_domain("A"), mirror_axes="none", overwrite=True)
    assert plan.done.stdout.splitlines()[2].split()[-5] == "none"
