"""The choices of settings are those that the network and the input pipeline have.

Settings do not import TensorFlow, so that `--help` is fast; these tests compare their
choices with the implementations.
"""

from typing import get_args

from u2net_tf.config.compute import ComputeConfig
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import (
    KERNEL_TO_SECOND_UP_CONV,
    Adapter,
    NetworkConfig,
)
from u2net_tf.interpolation.kernels import KERNELS
from u2net_tf.networks.blocks import SECOND_UP_CONVS
from u2net_tf.networks.conv_units import UNITS
from u2net_tf.networks.gradient_checkpointing import GRADIENT_CHECKPOINTING
from u2net_tf.networks.parameter_table import ADAPTERS
from u2net_tf.shards import records
from u2net_tf.shards.manifest import COMPRESSIONS


def test_adapters():
    assert set(get_args(Adapter)) == set(UNITS) == {*ADAPTERS, "none"}


def test_gradient_checkpointing():
    field = ComputeConfig.model_fields["gradient_checkpointing"]
    assert get_args(field.annotation) == GRADIENT_CHECKPOINTING


def test_last_convolution_of_a_decoder_block():
    assert set(KERNEL_TO_SECOND_UP_CONV.values()) == set(SECOND_UP_CONVS)
    field = NetworkConfig.model_fields["last_decoder_kernel"]
    choices, none = get_args(field.annotation)
    assert set(get_args(choices)) == KERNEL_TO_SECOND_UP_CONV.keys()
    assert none is type(None)


def test_compressions():
    assert set(COMPRESSIONS) == set(records.COMPRESSION_TYPES)


def test_resize_methods():
    assert tuple(KERNELS) == get_args(ResizeMethod)
