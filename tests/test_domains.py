import copy
import dataclasses

import pytest
from invented_plan import HIP, KNEE, PLAN

from u2net_tf.errors import InputError


def test_what_a_domain_knows():
    assert KNEE.num_modalities == 2
    assert KNEE.num_classes == 2
    assert KNEE.cases("train") == ("a", "b")
    assert KNEE.cases("validation") == ("c",)
    assert KNEE.cases("test") == ("d",)
    assert KNEE.watched_split == "validation"
    assert HIP.watched_split == "test"
    with pytest.raises(ValueError, match="split: expected one of"):
        KNEE.cases("val")


def test_domains_by_name():
    assert PLAN.names == ("Knee", "Hüfte")
    assert PLAN.index("Hüfte") == 1
    assert PLAN.select(["Hüfte", "Knee"]).names == ("Hüfte", "Knee")
    assert PLAN.select(["Hüfte"]).seed == 7
    assert PLAN.select([]) is PLAN
    with pytest.raises(InputError, match="'Elbow' is not in the plan.*Knee, Hüfte"):
        PLAN.select(["Elbow"])


def test_plans_compare_by_content():
    assert copy.deepcopy(PLAN) == PLAN
    assert dataclasses.replace(PLAN, seed=8) != PLAN


def test_a_domain_cannot_be_selected_twice():
    with pytest.raises(InputError, match="expected each once"):
        PLAN.select(["Knee", "Knee"])
