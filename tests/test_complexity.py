"""Counts of the published code, of the paper, and of networks that are truly built."""

import functools
import json
import math
import pathlib

import keras
import pytest
from command_session import python
from toy import PLAN

from u2net_tf import complexity
from u2net_tf.complexity import (
    PAPER_DOMAINS,
    Row,
    all_parameters,
    format_rows,
    stride_1_weights,
)
from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    count_stride_1_weights,
    count_trunk,
    network_without_values,
)
from u2net_tf.networks.u2net import U2Net
from u2net_tf.plan.plan_file import plan_to_json

ROOT = pathlib.Path(__file__).parents[2]
MODULE = "u2net_tf.complexity"
SMALL = {
    "separable": {"pools": (2, 1, 0), "base_channels": 2},
    "series": {"pools": (1, 3, 2), "base_channels": 3},
    "parallel": {"pools": (1, 1, 1), "base_channels": 4},
    "none": {"pools": (0, 2, 3), "base_channels": 2},
}


def size(variables):
    return sum(math.prod(variable.shape) for variable in variables)


@functools.cache
def paper_network(**options):
    """The network of the paper's five domains: Heart, Liver, …, pools 5, 5, 5."""
    return network_without_values((1, 1, 1, 2, 1), (2, 2, 3, 3, 2), **options)


class TestNumbers:
    """Counted on the published code, or given by the paper's table 3(a)."""

    def test_universal(self):
        network = paper_network()
        assert count_all(network).total == 6_577_460
        assert count_trunk(network).total == 6_573_200

    def test_universal_as_the_paper_counts(self):
        count = count_stride_1_weights(paper_network())
        assert count == Count(shared=1_135_360, own=(121_392,) * 5)
        assert count.total == 1_742_320

    def test_shared(self):
        assert count_trunk(paper_network(adapter="none")).total == 33_148_464

    def test_shared_as_the_paper_counts(self):
        network = paper_network(adapter="none", second_up_conv="full")
        assert count_stride_1_weights(network) == Count(30_654_720, (0,) * 5)

    def test_strided_convolutions_which_the_paper_leaves_out(self):
        kernels = [layer.conv.kernel for layer in paper_network().down_samples]
        assert size(kernels) == 4_713_984

    def test_five_independent_models(self):
        independent = all_parameters(PAPER_DOMAINS, adapters=())[0]
        assert independent.name == "5 independent"
        assert independent.count.total == 134_508_692
        assert independent.count.shared == 0


TWO_DOMAINS = (1, 3), (2, 4)
ONE_DOMAIN = (2,), (3,)
QUICK = [
    ("separable", "full", *TWO_DOMAINS),
    ("series", "pointwise", *TWO_DOMAINS),
    ("parallel", "full", *TWO_DOMAINS),
    ("none", "pointwise", *ONE_DOMAIN),
]
EVERY_KIND = [
    (adapter, second_up_conv, *channels)
    for adapter in SMALL
    for second_up_conv in ("full", "pointwise")
    for channels in (TWO_DOMAINS, ONE_DOMAIN)
]
assert set(QUICK) <= set(EVERY_KIND)


@pytest.mark.parametrize(
    ("adapter", "second_up_conv", "modalities", "classes"),
    [
        kind if kind in QUICK else pytest.param(*kind, marks=pytest.mark.slow)
        for kind in EVERY_KIND
    ],
)
def test_agrees_with_a_network_that_is_built(
    adapter, second_up_conv, modalities, classes
):
    options = {
        **SMALL[adapter],
        "adapter": adapter,
        "second_up_conv": second_up_conv,
    }
    network = U2Net(modalities, classes, **options)
    network.build()
    count = count_all(network_without_values(modalities, classes, **options))
    assert count.total == network.count_params()
    assert count.shared == size(network.shared_variables)
    assert count.own == tuple(
        size(network.domain_variables(domain)) for domain in range(len(classes))
    )
    outside = (network.stem, *network.deep_supervision, network.head)
    trunk = network.count_params() - sum(layer.count_params() for layer in outside)
    assert count_trunk(network).total == trunk
    assert count_trunk(network).shared == count.shared


@pytest.mark.parametrize(
    ("adapter", "shared", "own"),
    [
        # One pooling step: two blocks of two units, 4 → 4 and 8 → 8, then three units
        # 8 → 4 (twice) and 4 → 4.
        ("none", 27 * (2 * 16 + 2 * 64 + 2 * 32 + 16), 0),
        ("separable", 2 * 16 + 2 * 64 + 2 * 32 + 16, 27 * (2 * 4 + 2 * 8 + 2 * 8 + 4)),
        ("series", 27 * (2 * 16 + 2 * 64 + 2 * 32 + 16), 2 * 16 + 2 * 64 + 3 * 16),
        (
            "parallel",
            27 * (2 * 16 + 2 * 64 + 2 * 32 + 16),
            2 * 16 + 2 * 64 + 2 * 32 + 16,
        ),
    ],
)
def test_stride_1_weights_by_hand(adapter, shared, own):
    network = network_without_values(
        (1, 2),
        (2, 3),
        pools=(1, 0, 1),
        base_channels=4,
        adapter=adapter,
        second_up_conv="full",
    )
    assert count_stride_1_weights(network) == Count(shared, (own, own))


def test_a_network_without_values_leaves_nothing_behind():
    network = network_without_values((1,), (2,), pools=(1, 1, 1), base_channels=2)
    # Here Keras would give values to all variables that it has noted as without.
    with keras.StatelessScope():
        pass
    assert network.variables
    assert all(variable._value is None for variable in network.variables)


class TestRows:
    def test_names_and_settings(self):
        domains = PLAN.domains
        options = {"pools": (1, 1, 1), "base_channels": 2}
        published = all_parameters(domains, **options)
        assert [(row.name, row.second_up_conv) for row in published] == [
            ("2 independent", "pointwise"),
            ("shared", "pointwise"),
            ("universal, separable", "full"),
            ("universal, series", "pointwise"),
            ("universal, parallel", "pointwise"),
        ]
        paper = stride_1_weights(domains, adapters=("series",), **options)
        assert [(row.name, row.second_up_conv) for row in paper] == [
            ("2 independent", "full"),
            ("shared", "full"),
            ("universal, series", "full"),
        ]
        for rows in (all_parameters, stride_1_weights):
            chosen = rows(domains, second_up_conv="pointwise", **options)
            assert {row.second_up_conv for row in chosen} == {"pointwise"}

    def test_independent_models_have_their_own_pools(self):
        rows = all_parameters(PLAN.domains, pools=(2, 2, 2), base_channels=2)
        alone = [
            count_all(
                network_without_values(
                    (domain.num_modalities,),
                    (domain.num_classes,),
                    pools=(1, 1, 1),
                    base_channels=2,
                    adapter="none",
                )
            ).total
            for domain in PLAN.domains
        ]
        assert rows[0].count == Count(0, tuple(alone))
        assert rows[0].trunk < sum(alone)

    def test_table(self):
        rows = [
            Row("2 independent", "full", Count(0, (1500, 2500)), 3900),
            Row("shared", "full", Count(2000, (0, 0)), 2000),
        ]
        assert format_rows(rows).splitlines() == [
            "network        second_up_conv  total  trunk  shared     per domain  ratio",
            "─────────────  ──────────────  ─────  ─────  ──────  ─────────────  ─────",
            "2 independent  full            4,000  3,900       0  1,500 – 2,500  2.000",
            "shared         full            2,000  2,000   2,000              0  1.000",
        ]
        rows = [Row(row.name, "full", row.count, None) for row in rows]
        assert "trunk" not in format_rows(rows)


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

    def test_a_single_domain_has_the_pools_of_its_plan(self, plan_path):
        text = f"""
from absl import flags
from {MODULE} import _settings, define_flags
define_flags()
flags.FLAGS(["complexity", "--plan={plan_path}", "--domains=Task92_Two"])
print(_settings()[1]["pools"])
"""
        assert python("-c", text).stdout == f"{PLAN.domains[1].pools}\n"

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"domains": "Task01"}, "--domains: expected a --plan to choose from"),
            ({"pools": "0,0,0"}, "--pools: expected at least one above 0"),
            ({"plan": "no.json"}, "no.json: expected a plan"),
        ],
    )
    def test_wrong_flags_are_named(self, run_warm, flags, words):
        assert words in run_warm(MODULE, status=1, **flags).stderr


def test_the_paper_s_domains_have_what_a_domain_has():
    for name in complexity.DomainChannels._fields:
        assert hasattr(PLAN.domains[0], name)
