"""The command; `networks/test_parameter_counts.py` tests the numbers."""

import json
import pathlib
import re

import pytest
from toy import PLAN

from u2net_tf.networks.parameter_counts import (
    count_all,
    count_stride_1_weights,
    network_without_values,
)
from u2net_tf.networks.parameter_table import PAPER_DOMAINS
from u2net_tf.networks.pruned_table import pruned_parameters
from u2net_tf.plan.plan_file import plan_to_json

ROOT = pathlib.Path(__file__).parents[1]
MODULE = "u2net_tf.complexity"


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(plan_to_json(PLAN), encoding="utf-8")
    return path


def test_the_documents_have_the_counts_of_pruned_networks():
    text = (ROOT / "docs" / "network.md").read_text(encoding="utf-8")
    rows = pruned_parameters(
        PAPER_DOMAINS, depth=4, base_channels=16, adapters=("separable",)
    )
    rows = [row for row in rows if row.name != "shared"]
    assert [row.depth for row in rows] == [4, 3, 2, 1]
    for row in rows:
        lowest, highest = min(row.count.per_domain), max(row.count.per_domain)
        numbers = (row.count.total, row.count.shared)
        cells = [f"{n:,}" for n in numbers] + [f"{lowest:,} – {highest:,}"]
        assert f" | {' | '.join(cells)} |\n" in text


class TestCommand:
    def test_without_a_plan_it_prints_the_paper_s_numbers(self, run_warm):
        output = run_warm(MODULE).stdout
        document = ROOT / "docs" / "network.md"
        assert output in document.read_text(encoding="utf-8"), (
            f"{document} is out of date"
        )
        first, second = output.split("table 3(a)")
        for number in ("134,508,692", "33,148,464", "6,577,460", "6,573,200"):
            assert number in first
        for number in ("30,654,720", "1,742,320", "121,392"):
            assert number in second

    def test_every_flag_has_an_effect(self, run_warm, plan_path):
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
            assert {row["last_decoder_kernel"] for row in tables[key]} == {1}
            row = tables[key][2]
            assert row["total"] == count.total
            assert row["shared"] == count.shared
            names = ("Task92_Two", "Task91_One")
            assert row["per_domain"] == dict(zip(names, count.per_domain, strict=True))
            shared = tables[key][1]["total"]
            assert row["ratio_to_shared"] == pytest.approx(count.total / shared)

    def test_a_single_domain_has_the_pools_of_its_plan(self, run_warm, plan_path):
        output = run_warm(MODULE, plan=plan_path, domains="Task92_Two").stdout
        assert "pools 1,1,1 (" in output

    def test_counts_of_pruned_networks(self, run_warm, plan_path):
        """They equal those of networks of that depth without deep supervision."""
        flags = {
            "architecture": "unet_sharp",
            "depth": 2,
            "gates": "both",
            "pools": "1,2,0",
            "base_channels": 3,
            "adapter": "separable",
            "plan": plan_path,
        }
        full, pruned = (
            count_all(
                network_without_values(
                    (1, 2),
                    (2, 3),
                    architecture="unet_sharp",
                    depth=depth,
                    gates="both",
                    base_channels=3,
                    deep_supervision=depth == 2,
                )
            )
            for depth in (2, 1)
        )
        tables = json.loads(run_warm(MODULE, **flags, json=True).stdout)
        assert [(row["network"], row["prune_to"]) for row in tables["pruned"]] == [
            ("shared", 2),
            ("shared", 1),
            ("universal, separable", 2),
            ("universal, separable", 1),
        ]
        assert tables["all parameters"][2]["total"] == full.total
        assert tables["all parameters"][2]["last_decoder_kernel"] is None
        assert tables["pruned"][3] == {
            "network": "universal, separable",
            "prune_to": 1,
            "total": pruned.total,
            "shared": pruned.shared,
            "per_domain": dict(zip(PLAN.names, pruned.per_domain, strict=True)),
            "ratio_to_whole": pruned.total / full.total,
        }
        output = run_warm(MODULE, **flags).stdout
        size = "UNet# of depth 2, pools 1,2,0, gates both\n"
        assert f"2 domains, base_channels 3, {size}" in output
        assert "last decoder kernel" not in output
        (line,) = re.findall(r"universal, separable +1 .*", output)
        assert line.split()[3:5] == [f"{pruned.total:,}", f"{pruned.shared:,}"]

    @pytest.mark.slow
    def test_a_u2net_is_not_pruned(self, run_warm):
        assert "pruned" not in json.loads(run_warm(MODULE, json=True).stdout)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"domains": "Task01"}, "--domains: expected a --plan to choose from"),
            ({"depth": 2}, "--depth: expected none, as --architecture is u2net"),
            ({"gates": "top"}, "--gates: expected none, as --architecture is u2net"),
            (
                {"architecture": "unet_sharp", "depth": 2, "pools": "1,3,1"},
                "--pools: expected at most 2 along each axis, since --depth is 2. "
                "Received: (1, 3, 1)",
            ),
            ({"pools": "0,0,0"}, "--pools: expected at least one axis"),
            ({"plan": "no.json"}, "no.json: expected a plan"),
        ],
    )
    def test_wrong_flags_are_reported(self, run_warm, flags, words):
        assert words in run_warm(MODULE, status=1, **flags).stderr
