"""Names of cases are removed from models that are shared; their counts are kept."""

import dataclasses

import pytest
import toy

from u2net_tf.config.inference import ComposeConfig
from u2net_tf.errors import InputError
from u2net_tf.models import composition
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.loading import load_spec, save_model
from u2net_tf.models.spec import CaseCounts, ModelSpec, check_same_spec
from u2net_tf.plan.domains import Plan

pytestmark = pytest.mark.usefixtures("plain_implementation")

# A string that no file contains for another reason.
SECRET = "patientQx7"
NAMED = dataclasses.replace(
    toy.ONE,
    raw_dir=f"/data/{SECRET}/raw",
    train=(f"{SECRET}_0", f"{SECRET}_1"),
    validation=(f"{SECRET}_2",),
    test=(f"{SECRET}_3", f"{SECRET}_4", f"{SECRET}_5"),
)
FOLDED = dataclasses.replace(
    NAMED,
    name="Task93_Folded",
    train=(),
    validation=(),
    folds=((f"{SECRET}_0",), (f"{SECRET}_1", f"{SECRET}_2")),
)
SPEC = ModelSpec(plan=Plan((NAMED, FOLDED, toy.TWO)), pools=(1, 1, 1))
COUNTS = (
    CaseCounts(NAMED.name, train=2, validation=1, test=3),
    CaseCounts(FOLDED.name, train=3, validation=0, test=3),
)


def require_no_names(folder):
    """Checks every byte and the name of every file."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths
    for path in paths:
        assert SECRET.encode() not in path.read_bytes(), path
        assert SECRET not in str(path.relative_to(folder))


def test_cases_of_the_given_domains_are_counted():
    found = without_case_names(SPEC, [NAMED.name, FOLDED.name])
    assert found.case_counts == COUNTS
    assert SECRET not in repr(found)
    assert found.plan.domains[2] == toy.TWO
    assert [found.has_case_names(index) for index in range(3)] == [False, False, True]
    assert [found.count_cases(index).train for index in range(3)] == [2, 3, 2]
    again = without_case_names(found)
    assert again.case_counts[:2] == COUNTS
    assert again.case_counts[2] == CaseCounts(toy.TWO.name, 2, 0, 1)
    assert without_case_names(again) == again


def test_invalid_case_counts_are_refused():
    for counts in (COUNTS[:1], (CaseCounts("Task99", 1, 1, 1),)):
        with pytest.raises(InputError, match="case_counts: expected domains of the"):
            dataclasses.replace(SPEC, case_counts=counts)
    with pytest.raises(InputError, match="case_counts: expected each domain once"):
        dataclasses.replace(without_case_names(SPEC), case_counts=COUNTS[:1] * 2)


def test_a_run_started_with_names_is_resumed_without_them():
    """For example, an adaptation by an earlier version; the counts must agree."""
    check_same_spec(without_case_names(SPEC), SPEC)
    check_same_spec(SPEC, without_case_names(SPEC))
    one_more = dataclasses.replace(NAMED, test=(*NAMED.test, "another"))
    other = dataclasses.replace(SPEC, plan=Plan((one_more, FOLDED, toy.TWO)))
    with pytest.raises(InputError, match=r"domain Task91_One .*: different test$"):
        check_same_spec(without_case_names(SPEC), other)


def test_composed_and_extended_models_contain_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr(
        composition.checksums,
        "of_domains",
        lambda spec, network: dict.fromkeys(spec.plan.names, "0"),
    )
    parent = toy.make_model((NAMED,), adapter="none")
    save_model(tmp_path / "parent", *parent)
    with pytest.raises(AssertionError):
        require_no_names(tmp_path / "parent")
    save_model(tmp_path / "a", *composition.extend(*parent, toy.TWO, init="mean"))
    require_no_names(tmp_path / "a")
    # The names of the new domain's own cases are kept.
    assert load_spec(tmp_path / "a").plan.domains[1] == toy.TWO
    composition.compose_models(
        ComposeConfig(
            models=(str(tmp_path / "parent"), str(tmp_path / "a")),
            model_dir=str(tmp_path / "both"),
        )
    )
    require_no_names(tmp_path / "both")
    found = load_spec(tmp_path / "both")
    assert found.case_counts == (COUNTS[0], CaseCounts(toy.TWO.name, 2, 0, 1))
    assert not any(any(domain.groups.values()) for domain in found.plan.domains)
