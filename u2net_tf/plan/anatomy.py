"""Coded meaning of a class, as used in DICOM segmentations and 3D Slicer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from u2net_tf import schema

# Coding scheme of this program, for classes without a standard code.
PRIVATE_SCHEME = "99U2NET"
# Maximum number of characters of a code meaning (VR LO).
MAX_MEANING = 64
# At most 16 characters (VR SH).
_Short = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9._-]{1,16}$"),
    schema.expected("1 to 16 letters, digits, '.', '_' or '-'"),
]
# Separators of DICOM and of Slicer's terminology entries are not allowed.
_Meaning = Annotated[
    str,
    Field(pattern=rf"^[^\\^~|\p{{C}}]{{1,{MAX_MEANING}}}$"),
    schema.expected(
        rf"1 to {MAX_MEANING} characters other than \, ^, ~, | and control characters",
    ),
]


@schema.model
class Code:
    """A coded concept.

    Attributes:
      value: the code.
      scheme: coding scheme; SCT is SNOMED CT.
      meaning: code meaning, readable text.
    """

    value: _Short
    scheme: _Short
    meaning: _Meaning


@schema.model
class Anatomy:
    """Coded meaning of a class.

    Attributes:
      category: segmented property category (CID 7150 of DICOM).
      kind: segmented property type.
      side: left or right, unless the code of `kind` implies it; None for neither.
    """

    category: Code
    kind: Annotated[Code, Field(alias="type")]
    side: Code | None = None

    @property
    def is_known(self) -> bool:
        """Whether other programs recognize the code."""
        return self.kind.scheme != PRIVATE_SCHEME
