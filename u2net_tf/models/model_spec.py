"""What a model is: the plan it serves and the network's settings. JSON in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from u2net_tf.domains import Plan
from u2net_tf.errors import InputError
from u2net_tf.manifest import fingerprint
from u2net_tf.plan_files import plan_from_json, plan_to_json


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build a network and to feed it.

    Attributes:
      plan: its domains, in the order of their indices.
      pools: how often the network halves z, y, x.
      base_channels: channels at full resolution.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: "full", "pointwise" or None for the adapter's own.
      patch_size: the network's patch z, y, x, to which each domain's patch is resized;
        None where the domain's own is taken as it is.
      resize_method: "linear" or "cubic".
    """

    plan: Plan
    pools: tuple[int, int, int]
    base_channels: int = 16
    adapter: str = "separable"
    second_up_conv: str | None = None
    patch_size: tuple[int, int, int] | None = None
    resize_method: str = "linear"

    def network_patch_size(self, domain: int) -> tuple[int, int, int]:
        """What the network sees of a domain: z, y, x."""
        return self.patch_size or self.plan.domains[domain].patch_size


def common_pools(
    plan: Plan, pools: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """How often a network of all domains of a plan halves z, y, x.

    Args:
      plan: its domains.
      pools: the value of `--pools`; the domains' own, where they agree, if None.

    Raises:
      InputError: if no axis is halved, or the domains do not agree.
    """
    distinct = {domain.pools for domain in plan.domains} if pools is None else {pools}
    if len(distinct) > 1:
        raise InputError(
            "--pools: expected a value, since the plan's domains differ in theirs: "
            f"{sorted(distinct)}"
        )
    (chosen,) = distinct
    if max(chosen) < 1:
        source = f" in the plan of {', '.join(plan.names)}" if pools is None else ""
        raise InputError(
            f"--pools: expected at least one axis to be halved, found {chosen}{source}"
        )
    return chosen


def check_patches(spec: ModelSpec, names: Sequence[str] = ()) -> None:
    """Checks that the network can halve its patches as often as it must.

    Args:
      spec: what the network is.
      names: domains to check; all if empty.

    Raises:
      InputError: names the domain.
    """
    for index, name in enumerate(spec.plan.names):
        size = spec.network_patch_size(index)
        divisible = all(n % 2**p == 0 for n, p in zip(size, spec.pools, strict=True))
        if not divisible and (not names or name in names):
            raise InputError(
                "patch_size: expected sizes divisible by 2**pools, pools being "
                f"{spec.pools}; found {size} for {name}"
            )


def build_network(spec: ModelSpec, **kwargs: Any):
    """A network with all its variables, randomly initialized.

    Args:
      spec: what to build.
      **kwargs: `name`, `dtype` and `recompute` of the model.
    """
    from u2net_tf.networks.u2net import U2Net

    network = U2Net(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        pools=spec.pools,
        base_channels=spec.base_channels,
        adapter=spec.adapter,
        second_up_conv=spec.second_up_conv,
        **kwargs,
    )
    network.build()
    return network


def spec_to_json(spec: ModelSpec) -> str:
    """The spec as text."""
    fields = {
        field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)
    }
    return json.dumps({**fields, "plan": plan_to_json(spec.plan)})


def spec_from_json(text: str, source: str) -> ModelSpec:
    """Reads what `spec_to_json` wrote.

    Args:
      text: what it wrote.
      source: names the checkpoint in errors.

    Raises:
      InputError: if the text is another version's.
    """
    fields = json.loads(text)
    expected = {field.name for field in dataclasses.fields(ModelSpec)}
    if set(fields) != expected:
        raise InputError(
            f"{source}: expected a model with the settings {sorted(expected)}, found "
            f"{sorted(fields)}"
        )
    fields["plan"] = plan_from_json(fields["plan"], source)
    for name in ("pools", "patch_size"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    return ModelSpec(**fields)


def spec_difference(expected: ModelSpec, found: ModelSpec) -> str:
    """Says in what two specs differ that training depends on; "" if in nothing."""
    if expected.plan.names != found.plan.names:
        return f"expected domains {expected.plan.names}, found {found.plan.names}"
    pairs = zip(expected.plan.domains, found.plan.domains, strict=True)
    for one, other in pairs:
        if fingerprint(one) != fingerprint(other) or any(
            getattr(one, name) != getattr(other, name)
            for name in ("patch_size", "batch_size", "mirror_axes")
        ):
            differing = [
                field.name
                for field in dataclasses.fields(one)
                if getattr(one, field.name) != getattr(other, field.name)
            ]
            return (
                f"expected domain {one.name} as in the plan, found another {differing}"
            )
    for field in dataclasses.fields(expected):
        wanted, got = getattr(expected, field.name), getattr(found, field.name)
        if field.name != "plan" and wanted != got:
            return f"expected {field.name} {wanted}, found {got}"
    return ""
