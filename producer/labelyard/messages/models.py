"""Base classes of messages: what producers write is strict, what consumers read is lenient."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic._internal._model_construction import ModelMetaclass

from labelyard.errors import InvalidMessageError
from labelyard.refusals import sentences_of


class _Refusing(ModelMetaclass):
    """Metaclass of models that raise InvalidMessageError in place of pydantic's ValidationError."""

    if not TYPE_CHECKING:  # checkers read the signature of the model's own __init__

        def __call__(self, *args: Any, **fields: Any) -> Any:
            """Make a model.

            Raises:
                InvalidMessageError: A field is refused; the text names it.
            """
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise refusal_of(error) from error


class Message(BaseModel, metaclass=_Refusing):
    """Base of the models that producers write: frozen, and strict about unknown fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Report(BaseModel):
    """Base of the models that workers write: frozen, and open to fields of newer versions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


def refusal_of(error: ValidationError) -> InvalidMessageError:
    """Make the error that names each field at fault, and no field's value."""
    return InvalidMessageError(sentences_of(error))


def is_none(value: object) -> bool:
    """Return whether a field has no value, and is left out of the JSON."""
    return value is None
