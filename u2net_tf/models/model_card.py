"""The card of a model file: what its users should know of the model."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated

import pydantic
from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.models.spec import CaseCounts
from u2net_tf.plan.domains import Split
from u2net_tf.schema import Count, MaybeNan, Step, Text

_Dice = Annotated[MaybeNan, Field(ge=0, le=1)]


@schema.model
class CardTexts:
    """What only the authors of a model can say of it; None where they do not.

    Attributes:
      title: name of the model.
      authors: who made it.
      contact: whom to ask.
      licence: under which the model may be used.
      intended_use: what it is for.
      limitations: what it is not for, and where it is known to fail.
      citation: how to cite it.
      data: domain -> where its scans come from, and under which licence.
    """

    title: Text | None = None
    authors: Text | None = None
    contact: Text | None = None
    licence: Text | None = None
    intended_use: Text | None = None
    limitations: Text | None = None
    citation: Text | None = None
    data: dict[Text, Text] = Field(default_factory=dict)


@schema.model
class Training:
    """The run that a domain's weights are of.

    Attributes:
      steps: number of steps, of all domains of the run.
      epochs: number of epochs.
      finished: whether the learning-rate schedule ended the run.
      trained: whether the run trained this domain; one that it did not had its weights
        before.
      shared_variables: whether the run trained the variables that domains share; None
        if not recorded.
      precision: what it computed in; None if not recorded.
      fold: fold that it validated on; None if none.
    """

    steps: Step
    epochs: Count
    finished: bool
    trained: bool
    shared_variables: bool | None
    precision: str | None
    fold: Count | None


@schema.model
class ClassDice:
    """Dice of one class, over cases.

    Attributes:
      label: name of the class.
      mean: from 0 to 1; NaN if no case has a Dice.
      standard_deviation: over the same cases.
      num_cases: cases that have a Dice.
      num_absent: cases in which neither mask holds the class.
    """

    label: Text
    mean: _Dice
    standard_deviation: _Dice
    num_cases: Count
    num_absent: Count


@schema.model
class Evaluation:
    """How a domain's label maps compared with references.

    Attributes:
      split: the cases.
      checkpoint: name of the checkpoint that predicted them.
      num_skipped: cases of the split that could not be scored.
      classes: all of the domain but the background.
    """

    split: Split
    checkpoint: Text
    num_skipped: Count
    classes: Annotated[tuple[ClassDice, ...], Field(min_length=1)]


@schema.model
class DomainCard:
    """What is known of one domain.

    Attributes:
      checkpoint: name of the checkpoint that its weights are of.
      written_by: program that wrote this; None if not recorded.
      pruned_to: depth to which the network was pruned; None for a whole one.
      cases: how many cases it was made of; none of them is named.
      training: the last run; None if the model was composed or ported.
      evaluation: None if none was given.
    """

    checkpoint: Text
    written_by: Text | None
    pruned_to: Count | None
    cases: CaseCounts
    training: Training | None
    evaluation: Evaluation | None


@schema.model
class Card:
    """The card of a model.

    Attributes:
      texts: what its authors say.
      domains: in the order of the model.
    """

    texts: CardTexts
    domains: tuple[DomainCard, ...]


def load_texts(path: str | os.PathLike, domains: Sequence[str]) -> CardTexts:
    """Reads the JSON object of a `CardTexts`; fields may be missing or null.

    Args:
      path: the file.
      domains: names of the model's domains.

    Raises:
      InputError: if it is missing or cannot be used, or says something of another
        domain.
    """
    path = pathlib.Path(path)
    expected = "a JSON object with texts for a model card"
    try:
        fields = load_json(path, expected)
    except FileNotFoundError:
        raise InputError(path, expected=expected, received="no such file") from None
    if not isinstance(fields, dict):
        raise InputError(path, expected=expected, received=type(fields).__name__)
    try:
        # In JSON, as strict as the other files.
        texts = pydantic.TypeAdapter(CardTexts).validate_json(json.dumps(fields))
    except pydantic.ValidationError as error:
        raise schema.as_input_error(error, CardTexts).within(path) from None
    if unknown := [name for name in texts.data if name not in domains]:
        raise InputError(
            f"{path}: data", expected=f"some of {', '.join(domains)}", received=unknown
        )
    return texts


def percent(value: float) -> str:
    """A Dice in percent; "-" where it is not defined."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
