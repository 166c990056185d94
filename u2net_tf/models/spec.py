"""Specification of a model: its plan and the network's settings. JSON in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Literal

from u2net_tf import migrations, schema
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import Adapter
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import SPLITS, Plan
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.schema import Extent, Pools


@schema.model
class ModelSpec:
    """Everything needed to build a network and its input.

    Attributes:
      plan: the network's domains, in the order of their indices.
      pools: how often the network halves z, y, x.
      base_channels: channels at full resolution.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: "full", "pointwise" or None for the adapter's own.
      patch_size: the network's patch z, y, x, to which each domain's patch is resized;
        None if patches keep the domain's own size.
      resize_method: "linear" or "cubic".
    """

    plan: Plan
    pools: tuple[Pools, Pools, Pools]
    base_channels: Extent = 16
    adapter: Adapter = "separable"
    second_up_conv: Literal["full", "pointwise"] | None = None
    patch_size: tuple[Extent, Extent, Extent] | None = None
    resize_method: ResizeMethod = "linear"

    def network_patch_size(self, domain: int) -> tuple[int, int, int]:
        """Size of the network's patches of a domain: z, y, x."""
        return self.patch_size or self.plan.domains[domain].patch_size


MODEL = FileFormat(
    name="a model",
    made_by="python -m u2net_tf.train",
    kind=ModelSpec,
    oldest=0,
    upgrades=(
        migrations.model_spec,
        migrations.model_with_scans,
        migrations.model_with_resampling,
    ),
)


def common_pools(
    plan: Plan, pools: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Returns how often a network of all domains of a plan halves z, y, x.

    Args:
      plan: plan of the domains.
      pools: the numbers to use; those of the domains, which must agree, if None.

    Raises:
      InputError: if no axis is halved, or the domains do not agree.
    """
    distinct = {domain.pools for domain in plan.domains} if pools is None else {pools}
    if len(distinct) > 1:
        raise InputError(
            "`pools`",
            expected="a value, since the domains of the plan differ in theirs",
            received=f"none, and {sorted(distinct)} in the plan",
        )
    (chosen,) = distinct
    if max(chosen) < 1:
        source = f" in the plan of {', '.join(plan.names)}" if pools is None else ""
        raise InputError(
            "`pools`",
            expected="at least one axis to be halved",
            received=f"{chosen}{source}",
        )
    return chosen


def check_patches(spec: ModelSpec, names: Sequence[str] = ()) -> None:
    """Checks that patch sizes are divisible by 2**pools.

    Args:
      spec: specification of the network.
      names: domains to check; all if empty.

    Raises:
      InputError: names the domain.
    """
    for index, name in enumerate(spec.plan.names):
        size = spec.network_patch_size(index)
        divisible = all(n % 2**p == 0 for n, p in zip(size, spec.pools, strict=True))
        if not divisible and (not names or name in names):
            raise InputError(
                "patch_size",
                expected=f"sizes divisible by 2**pools, pools being {spec.pools}",
                received=f"{size} for {name}",
            )


def spec_to_json(spec: ModelSpec) -> str:
    """Returns the specification as JSON."""
    return json.dumps(MODEL.to_dict(spec))


def spec_from_json(text: str, source: object) -> ModelSpec:
    """Reads what `spec_to_json` wrote, in this version or an earlier one.

    Args:
      text: JSON.
      source: name of the checkpoint, for errors.

    Raises:
      InputError: if the text is damaged or a later version's.
    """
    return MODEL.from_text(text, source)


# Fields of a domain that its hash covers, and others that training depends on.
_IN_SHARDS = ("modalities", "labels", "spacing_mm", "preprocessing")
_IN_TRAINING = ("patch_size", "batch_size", "mirror_axes", *SPLITS)


def check_same_spec(expected: ModelSpec, found: ModelSpec) -> None:
    """Checks that two specifications agree in all that training depends on.

    Raises:
      InputError: names what differs; its place is empty.
    """
    if expected.plan.names != found.plan.names:
        _refuse("domains", expected.plan.names, found.plan.names)
    for field in dataclasses.fields(expected):
        wanted, got = getattr(expected, field.name), getattr(found, field.name)
        if field.name != "plan" and wanted != got:
            _refuse(field.name, wanted, got)
    pairs = zip(expected.plan.domains, found.plan.domains, strict=True)
    for one, other in pairs:
        if plan_hash(one) != plan_hash(other) or any(
            getattr(one, name) != getattr(other, name) for name in _IN_TRAINING
        ):
            differing = [
                name
                for name in (*_IN_SHARDS, *_IN_TRAINING)
                if getattr(one, name) != getattr(other, name)
            ]
            raise InputError(
                "",
                expected=f"domain {one.name} as in the plan",
                received=f"another {', '.join(differing)}",
            )


def _refuse(name: str, wanted: object, got: object) -> None:
    raise InputError("", expected=f"{name} {wanted}", received=got)
