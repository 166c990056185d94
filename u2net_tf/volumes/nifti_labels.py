"""The label table in the header extension of a NIfTI label map.

It has NIfTI's extension code for Caret and contains XML as read by Connectome
Workbench: names and colours by value. Programs that do not support it ignore it.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import nibabel as nib

from u2net_tf.plan.labels import Label
from u2net_tf.volumes.class_colours import class_rgb

_CARET = "caret"
_INTENT = "label"
# Control characters that are invalid in XML.
_NOT_IN_XML = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 65534, 65535), " ")


def describe_labels(header: nib.nifti1.Nifti1Header, classes: Sequence[Label]) -> None:
    """Turns the header of a scan into that of a label map.

    Args:
      header: changed in place: receives the intent, and a label table, which replaces
        an existing one.
      classes: the classes, the background first; empty for no table.
    """
    header.set_intent(_INTENT)
    if not classes:
        return
    kept = [item for item in header.extensions if item.get_code() != _code()]
    header.extensions = header.exts_klass(
        [*kept, nib.nifti1.Nifti1Extension(_CARET, _to_xml(classes))]
    )
    # The voxels follow the table, whatever their offset was in the scan.
    header.set_data_offset(0)


def _code() -> int:
    return int(nib.nifti1.extension_codes[_CARET])


def _to_xml(classes: Sequence[Label]) -> bytes:
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for number, label in enumerate(classes):
        red, green, blue = class_rgb(number) if number else (0.0, 0.0, 0.0)
        entry = ElementTree.SubElement(
            table,
            "Label",
            Key=str(label.values[0]),
            Red=f"{red:.6f}",
            Green=f"{green:.6f}",
            Blue=f"{blue:.6f}",
            Alpha="1" if number else "0",
        )
        entry.text = label.name.translate(_NOT_IN_XML)
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
