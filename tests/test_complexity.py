"""The command; `networks/test_parameter_counts.py` has the numbers."""

import json
import pathlib

import pytest
from toy import PLAN

from u2net_tf.networks.parameter_counts import (
    count_all,
    count_stride_1_weights,
    network_without_values,
)
from u2net_tf.plan.plan_file import plan_to_json

ROOT = pathlib.Path(__file__).parents[1]
MODULE = "u2net_tf.complexity"


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(plan_to_json(PLAN), encoding="utf-8")
    return path


class TestCommand:
    def test_without_a_plan_it_prints_the_paper_s_numbers(self, run_warm):
        said = run_warm(MODULE).stdout
        document = ROOT / "docs" / "network.md"
        assert said in document.read_text(encoding="utf-8"), f"make {document} anew"
        first, second = said.split("table 3(a)")
        for number in ("134,508,692", "33,148,464", "6,577,460", "6,573,200"):
            assert number in first
        for number in ("30,654,720", "1,742,320", "121,392"):
            assert number in second

    def test_every_flag_counts(self, run_warm, plan_path):
        flags = {
            "plan": plan_path,
            "domains": "Task92_Two,Task91_One",
            "pools": "0,2,1",
            "base_channels": 3,
            "last_decoder_kernel": 1,
            "adapter": "series",
            "json": True,
        }
        tables = json.loads(run_warm(MODULE, **flags).stdout)
        network = network_without_values(
            (2, 1),
            (3, 2),
            pools=(0, 2, 1),
            base_channels=3,
            second_up_conv="pointwise",
            adapter="series",
        )
        for key, count in (
            ("all parameters", count_all(network)),
            ("stride-1 weights", count_stride_1_weights(network)),
        ):
            names = [row["network"] for row in tables[key]]
            assert names == ["2 independent", "shared", "universal, series"]
            row = tables[key][2]
            assert row["total"] == count.total
            assert row["shared"] == count.shared
            names = ("Task92_Two", "Task91_One")
            assert row["per_domain"] == dict(zip(names, count.own, strict=True))
            shared = tables[key][1]["total"]
            assert row["ratio_to_shared"] == pytest.approx(count.total / shared)

    def test_a_single_domain_has_the_pools_of_its_plan(self, run_warm, plan_path):
        said = run_warm(MODULE, plan=plan_path, domains="Task92_Two").stdout
        assert "pools 1,1,1 (" in said

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"domains": "Task01"}, "--domains: expected a --plan to choose from"),
            ({"pools": "0,0,0"}, "--pools: expected at least one axis"),
            ({"plan": "no.json"}, "no.json: expected a plan"),
        ],
    )
    def test_wrong_flags_are_named(self, run_warm, flags, words):
        assert words in run_warm(MODULE, status=1, **flags).stderr
