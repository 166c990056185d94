"""The card of a model file: what users of the model should know."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated

import pydantic
from pydantic import AfterValidator, Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.models.spec import CaseCounts
from u2net_tf.plan.domains import Split
from u2net_tf.schema import Count, MaybeNan, Step, Text


def _require_dice(value: float) -> float:
    # The bounds of a `Field` exclude NaN.
    if not (math.isnan(value) or 0 <= value <= 1):
        raise InputError("", expected="a number from 0 to 1", received=value)
    return value


_Dice = Annotated[MaybeNan, AfterValidator(_require_dice)]


@schema.model
class CardTexts:
    """Texts about a model that only its authors can write; None where they did not.

    Attributes:
      title: name of the model.
      authors: people who made it.
      contact: person or address for questions.
      licence: licence of the model.
      intended_use: use that the model is made for.
      limitations: uses that it is not made for, and known failures.
      citation: how to cite it.
      data: domain -> origin and licence of its scans.
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
    """The last training run of a domain's model.

    Attributes:
      steps: number of steps, of all domains of the run together.
      epochs: number of epochs.
      finished: whether the learning-rate schedule ended the run.
      trained: whether the run trained this domain; if not, its weights are older.
      shared_variables: whether the run trained the shared variables; None if not
        recorded.
      precision: precision of the computation; None if not recorded.
      fold: validation fold; None if there was none.
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
    """Dice of one class or region over the cases of a split.

    Attributes:
      label: its name.
      mean: mean Dice, 0 to 1; NaN if it is defined for no case.
      standard_deviation: standard deviation over the same cases.
      num_cases: number of cases for which Dice is defined.
      num_absent: number of cases in which neither mask contains it.
    """

    label: Text
    mean: _Dice
    standard_deviation: _Dice
    num_cases: Count
    num_absent: Count


@schema.model
class RegionDice(ClassDice):
    """Dice of one region.

    Attributes:
      classes: names of its classes; None if they are not recorded.
    """

    classes: tuple[Text, ...] | None


@schema.model
class Evaluation:
    """Evaluation of a domain's predictions.

    Attributes:
      split: the evaluated split.
      checkpoint: name of the checkpoint that predicted the label maps.
      num_skipped: number of cases of the split that could not be scored.
      classes: scores of all foreground classes.
      regions: scores of the regions; empty if an older version packed the model.
      lists_training_cases: whether the model listed all cases that it was trained on,
        none of which may be in another split; None if an older version evaluated it.
    """

    split: Split
    checkpoint: Text
    num_skipped: Count
    classes: Annotated[tuple[ClassDice, ...], Field(min_length=1)]
    regions: tuple[RegionDice, ...]
    lists_training_cases: bool | None


@schema.model
class DomainCard:
    """The part of a card about one domain.

    Attributes:
      checkpoint: name of the checkpoint that contains its weights.
      written_by: program that wrote the checkpoint; None if not recorded.
      pruned_to: depth to which the network was pruned; None if it was not.
      cases: numbers of cases, without their names.
      training: the last training run; None for a composed or ported model.
      evaluation: its evaluation; None if none was given.
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
      texts: texts by the authors.
      domains: the domains, in the order of the model.
    """

    texts: CardTexts
    domains: tuple[DomainCard, ...]


def load_texts(path: str | os.PathLike, domains: Sequence[str]) -> CardTexts:
    """Reads `CardTexts` from a JSON object whose fields may be missing or null.

    Args:
      path: the file.
      domains: names of the model's domains.

    Raises:
      InputError: if the file is missing or invalid, or has a text about a domain that
        the model lacks.
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
        # Validated as JSON, which is as strict as for the other files.
        texts = pydantic.TypeAdapter(CardTexts).validate_json(json.dumps(fields))
    except pydantic.ValidationError as error:
        raise schema.as_input_error(error, CardTexts).within(path) from None
    if unknown := [name for name in texts.data if name not in domains]:
        raise InputError(
            f"{path}: data", expected=f"some of {', '.join(domains)}", received=unknown
        )
    return texts


def percent(value: float) -> str:
    """Returns a Dice in percent; "–" if it is undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
