import dataclasses
import json

import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.models import spec
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.preprocessing import Preprocessing

SPEC = ModelSpec(
    plan=toy.PLAN,
    pools=(1, 2, 1),
    base_channels=3,
    adapter="series",
    second_up_conv="full",
    patch_size=(4, 8, 6),
    resize_method="cubic",
)


def difference(expected, found):
    """The error message of `check_same_spec`, or ""."""
    try:
        spec.check_same_spec(expected, found)
    except InputError as error:
        return str(error)
    return ""


class TestJson:
    @pytest.mark.parametrize("one", [SPEC, ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))])
    def test_round_trip_is_exact(self, one):
        text = spec.spec_to_json(one)
        assert spec.spec_from_json(text, "here") == one

    def test_unknown_settings_are_an_error_that_names_the_source(self):
        content = json.loads(spec.spec_to_json(SPEC))
        content["width"] = 5
        with pytest.raises(InputError, match=r"here: width: expected no field .*: 5"):
            spec.spec_from_json(json.dumps(content), "here")


class TestNetworkPatchSize:
    def test_is_the_network_s_own(self):
        assert SPEC.network_patch_size(1) == (4, 8, 6)

    def test_is_the_domain_s_if_the_network_has_none(self):
        other = dataclasses.replace(SPEC, patch_size=None)
        assert other.network_patch_size(0) == toy.ONE.patch_size
        assert other.network_patch_size(1) == toy.TWO.patch_size


class TestDifference:
    def test_none(self):
        assert difference(SPEC, dataclasses.replace(SPEC)) == ""

    @pytest.mark.parametrize(
        ("field", "other"),
        [
            ("pools", (1, 1, 1)),
            ("base_channels", 4),
            ("adapter", "none"),
            ("patch_size", None),
            ("resize_method", "linear"),
        ],
    )
    def test_names_the_setting_and_both_values(self, field, other):
        text = difference(SPEC, dataclasses.replace(SPEC, **{field: other}))
        expected = getattr(SPEC, field)
        assert text == f"expected {field} {expected}. Received: {other}"

    @pytest.mark.parametrize(("other", "kernel"), [("pointwise", "1"), (None, "None")])
    def test_names_the_kernel_as_its_flag_does(self, other, kernel):
        text = difference(SPEC, dataclasses.replace(SPEC, second_up_conv=other))
        assert text == f"expected last_decoder_kernel 3. Received: {kernel}"

    def test_names_the_architecture_first(self):
        """Other settings depend on it."""
        other = {"adapter": "none", "architecture": "unet_sharp", "depth": 1}
        other |= {"pools": (1, 1, 1), "second_up_conv": None}
        changed = dataclasses.replace(SPEC, **other)
        text = difference(SPEC, changed)
        assert text == "expected architecture u2net. Received: unet_sharp"

    def test_names_the_domains(self):
        other = dataclasses.replace(SPEC, plan=toy.PLAN.select([toy.TWO.name]))
        assert difference(SPEC, other) == (
            "expected domains ('Task91_One', 'Task92_Two'). Received: ('Task92_Two',)"
        )

    @pytest.mark.parametrize(
        ("field", "other"),
        [
            ("patch_size", (16, 8, 8)),
            ("spacing_mm", (3.0, 1.0, 1.0)),
            ("modalities", ("ADC", "T2")),
            ("preprocessing", Preprocessing(margin_voxels=1)),
            ("train", ("two_0",)),
            ("batch_size", 3),
            ("mirror_axes", ("x",)),
        ],
    )
    def test_names_the_domain_and_its_field(self, field, other):
        plan = self.plan_with(**{field: other})
        text = difference(SPEC, dataclasses.replace(SPEC, plan=plan))
        assert toy.TWO.name in text
        assert text.endswith(f"Received: different {field}")

    @pytest.mark.parametrize(
        ("field", "other"),
        [
            ("raw_dir", "elsewhere"),
            (
                "labels",
                (
                    *toy.TWO.labels[:2],
                    dataclasses.replace(toy.TWO.labels[2], keep_components=2),
                ),
            ),
        ],
    )
    def test_ignores_what_training_does_not_depend_on(self, field, other):
        plan = self.plan_with(**{field: other})
        other = dataclasses.replace(SPEC, plan=plan)
        assert difference(SPEC, other) == ""

    def plan_with(self, **changes):
        changed = dataclasses.replace(toy.TWO, **changes)
        return dataclasses.replace(toy.PLAN, domains=(toy.ONE, changed))
