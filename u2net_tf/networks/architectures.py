"""Network classes by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping

from u2net_tf.networks.u2net import U2Net
from u2net_tf.networks.unet_sharp import UNetSharp

ARCHITECTURES: Mapping[str, type[U2Net] | type[UNetSharp]] = {
    "u2net": U2Net,
    "unet_sharp": UNetSharp,
}
