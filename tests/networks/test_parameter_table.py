from toy import PLAN

from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    network_without_values,
)
from u2net_tf.networks.parameter_table import (
    PAPER_DOMAINS,
    DomainChannels,
    Row,
    all_parameters,
    format_rows,
    joint_pools,
    stride_1_weights,
)


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

    def test_joint_networks_have_the_requested_pools(self):
        assert joint_pools(PLAN.domains, (2, 0, 1)) == (2, 0, 1)
        assert joint_pools(PLAN.domains, None) == (5, 5, 5)
        assert joint_pools(PAPER_DOMAINS[3:4], None) == (2, 5, 5)
        assert joint_pools(PAPER_DOMAINS[3:4], None, depth=3) == (3, 3, 3)
        assert joint_pools(PAPER_DOMAINS, (2, 0, 1), depth=3) == (2, 0, 1)

    def test_table(self):
        rows = [
            Row("2 independent", "full", Count(0, (1500, 2500)), 3900),
            Row("shared", "full", Count(2000, (0, 0)), 2000),
        ]
        lines = [line.split("  ") for line in format_rows(rows).splitlines()]
        found = [[cell.strip() for cell in line if cell.strip()] for line in lines]
        assert found[0] == [
            *("network", "last decoder kernel", "total", "trunk", "shared"),
            *("per domain", "ratio"),
        ]
        assert found[2:] == [
            *(
                ["2 independent", "3", "4,000", "3,900", "0"]
                + ["1,500 – 2,500", "2.000"],
                ["shared", "3", "2,000", "2,000", "2,000", "0", "1.000"],
            ),
        ]
        # Names are left-aligned, numbers right-aligned.
        assert len({len(line) for line in format_rows(rows).splitlines()}) == 1
        assert format_rows(rows).splitlines()[3].startswith("shared  ")
        rows = [Row(row.name, "full", row.count, None) for row in rows]
        assert "trunk" not in format_rows(rows)


def test_the_paper_s_domains_have_the_fields_of_domains():
    for name in DomainChannels._fields:
        assert hasattr(PLAN.domains[0], name)
