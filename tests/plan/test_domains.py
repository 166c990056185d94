import copy
import dataclasses

import pytest
from invented_plan import HIP, KNEE, PLAN

from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label


def test_properties_of_a_domain():
    assert KNEE.num_modalities == 2
    assert KNEE.num_classes == 2
    assert KNEE.cases("train") == ("a", "b")
    assert KNEE.cases("validation") == ("c",)
    assert KNEE.cases("test") == ("d",)
    assert KNEE.monitored_split == "validation"
    assert HIP.monitored_split == "test"
    with pytest.raises(ValueError, match="split: expected one of"):
        KNEE.cases("val")


def test_ignored_voxels_have_the_index_after_the_classes():
    assert (KNEE.ignore_index, KNEE.num_label_indices) == (None, 2)
    for value in (9, -1, 2):
        domain = dataclasses.replace(KNEE, ignore_label=value)
        assert (domain.ignore_index, domain.num_label_indices) == (2, 3)
        assert domain.num_classes == 2


def test_an_index_fits_into_a_byte():
    labels = tuple(Label(f"c{i}", (i,)) for i in range(256))
    assert dataclasses.replace(KNEE, labels=labels[:-1], ignore_label=300)
    with pytest.raises(InputError, match="at most 255 classes besides an ignore label"):
        dataclasses.replace(KNEE, labels=labels, ignore_label=300)


def test_domains_by_name():
    assert PLAN.names == ("Knee", "Hüfte")
    assert PLAN.index("Hüfte") == 1
    assert PLAN.select(["Hüfte", "Knee"]).names == ("Hüfte", "Knee")
    assert PLAN.select(["Hüfte"]).seed == 7
    assert PLAN.select([]) is PLAN
    with pytest.raises(
        InputError, match="domain 'Elbow': expected one of Knee, Hüfte.*not in"
    ):
        PLAN.select(["Elbow"])


def test_plans_compare_by_content():
    assert copy.deepcopy(PLAN) == PLAN
    assert dataclasses.replace(PLAN, seed=8) != PLAN


def test_a_domain_cannot_be_selected_twice():
    with pytest.raises(InputError, match="expected distinct values"):
        PLAN.select(["Knee", "Knee"])


class TestFolds:
    DOMAIN = dataclasses.replace(
        KNEE, train=(), validation=(), folds=(("e", "b"), ("a",), ("c", "f"))
    )

    def test_are_groups_in_addition_to_the_test_cases(self):
        assert self.DOMAIN.groups == {
            "fold0": ("e", "b"),
            "fold1": ("a",),
            "fold2": ("c", "f"),
            "test": ("d",),
        }
        assert KNEE.groups == {
            "train": ("a", "b"),
            "validation": ("c",),
            "test": ("d",),
        }

    def test_one_is_held_out(self):
        chosen = self.DOMAIN.with_fold(2)
        assert chosen.train == ("a", "b", "e")
        assert chosen.validation == ("c", "f")
        assert chosen.monitored_split == "validation"
        assert chosen.test == ("d",)
        assert chosen.folds == ()

    def test_none_is_held_out(self):
        chosen = self.DOMAIN.with_fold(None)
        assert chosen.train == ("a", "b", "c", "e", "f")
        assert chosen.validation == ()

    def test_a_plan_without_them_is_unchanged(self):
        assert PLAN.with_fold(None) == PLAN
        with pytest.raises(InputError, match="`fold`: expected no value, .* Knee"):
            PLAN.with_fold(0)

    def test_of_all_domains(self):
        other = dataclasses.replace(self.DOMAIN, name="Elbow")
        plan = dataclasses.replace(PLAN, domains=(self.DOMAIN, other)).with_fold(1)
        assert [domain.validation for domain in plan.domains] == [("a",), ("a",)]

    @pytest.mark.parametrize("fold", [-1, 3])
    def test_missing_fold(self, fold):
        message = f"`fold`: expected a fold of Knee from 0 to 2. Received: {fold}"
        with pytest.raises(InputError, match=message):
            self.DOMAIN.with_fold(fold)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train": ("x",)}, "folds: expected no folds in addition"),
            ({"validation": ("x",)}, "folds: expected no folds in addition"),
            ({"folds": (("a",),)}, "folds: expected at least two"),
            ({"folds": (("a",), ())}, "(?s)folds.*at least 1 item"),
            (
                {"folds": (("a", "b"), ("b",))},
                r"folds\[1\]: expected only cases",
            ),
            ({"folds": (("a", "d"), ("b",))}, "test: expected only cases that are not"),
        ],
    )
    def test_inconsistent_lists(self, changes, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(self.DOMAIN, **changes)


def test_there_are_at_most_256_classes():
    labels = tuple(Label(f"c{value}", (value,)) for value in range(257))
    assert dataclasses.replace(KNEE, labels=labels[:256]).num_classes == 256
    with pytest.raises(InputError, match="2 to 256 classes, .*Received: 257"):
        dataclasses.replace(KNEE, labels=labels)
