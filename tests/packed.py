"""A tiny model file of two domains, and functions that tamper with it."""

import json
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper
from toy import ONE, TWO

from u2net_tf.exporting.shared_weights import SharedWeights
from u2net_tf.exporting.write_model_file import to_members, write_members
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_card import (
    Card,
    CardTexts,
    ClassDice,
    DomainCard,
    Evaluation,
    Training,
)
from u2net_tf.models.model_file_format import WEIGHTS, as_member
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan

SPEC = ModelSpec(plan=Plan((ONE, TWO)), pools=(1, 0, 1), base_channels=2)


def draw_matrices():
    """First, second and last matrix; the domains share the second."""
    draw = np.random.default_rng(0)
    sizes = [(4, 64), (64, 64), (64, 4)]
    return [0.2 * draw.standard_normal(size, np.float32) for size in sizes]


def make_graph(index):
    """Returns the graph of a domain: patches, three matrix products, softmax."""
    domain = SPEC.plan.domains[index]
    first, shared, last = draw_matrices()
    matrices = {
        "first": first[: domain.num_modalities] * (1 + index),
        "shared": shared,
        "last": last[:, : domain.num_classes] * (1 + index),
    }
    nodes, value = [], "patches"
    for name in matrices:
        nodes.append(helper.make_node("MatMul", [value, name], [f"by_{name}"], name))
        value = f"by_{name}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=-1))
    graph = helper.make_graph(
        nodes,
        domain.name,
        [
            helper.make_tensor_value_info(
                "patches",
                TensorProto.FLOAT,
                ["N", *domain.patch_size, domain.num_modalities],
            )
        ],
        [
            helper.make_tensor_value_info(
                "probabilities",
                TensorProto.FLOAT,
                ["N", *domain.patch_size, domain.num_classes],
            )
        ],
        [onnx.numpy_helper.from_array(array, n) for n, array in matrices.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compute(index, patches):
    """Computes the expected output of a domain's graph, in float64."""
    values = patches.astype(float)
    for tensor in make_graph(index).graph.initializer:
        values = values @ onnx.numpy_helper.to_array(tensor).astype(float)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def make_card(lists_training_cases=True):
    scores = (ClassDice("organ", 0.8, 0.1, 4, 0),)
    return Card(
        CardTexts(licence="CC-BY-4.0", data={ONE.name: "Drawn."}),
        tuple(
            DomainCard(
                checkpoint="step-7",
                written_by=None,
                pruned_to=None,
                cases=SPEC.count_cases(index),
                training=Training(7, 1, True, True, None, "float32", None),
                evaluation=Evaluation(
                    "test", "step-7", 0, scores, (), lists_training_cases
                ),
            )
            for index in (0, 1)
        ),
    )


def make_members(precision="float32", edit=lambda index, model: None):
    """Members of a complete file; `edit` may change each graph first."""
    weights = SharedWeights(WEIGHTS, precision)
    graphs = []
    for index in (0, 1):
        model = make_graph(index)
        weights.move(model)
        edit(index, model)
        graphs.append(model.SerializeToString())
    domains = [
        ExportedDomain.of_model(SPEC, index, fingerprint="f") for index in (0, 1)
    ]
    return to_members(
        graphs,
        bytes(weights.content),
        domains,
        card=make_card(),
        precision=precision,
        versions={"u2net-tf": "1"},
    )


def with_edited_description(members, edit=lambda fields: None):
    """Returns the members with an edited description and correct hashes."""
    fields = json.loads(members["model.json"])
    fields["members"] = [
        vars(as_member(each["name"], members[each["name"]]))
        for each in fields["members"]
        if each["name"] in members
    ]
    edit(fields)
    return {**members, "model.json": json.dumps(fields).encode()}


def write(path, members):
    path.unlink(missing_ok=True)
    write_members(path, members)
    return path


def write_infos(path, members):
    """Writes members as (ZipInfo, bytes); the zip module checks none of them.

    Returns the path.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path
