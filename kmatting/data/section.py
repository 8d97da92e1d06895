"""The base of all config sections."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of a config. Unknown keys are errors, and defaults are checked like other values."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        """Lets true and false be refused where pydantic would take them for 1 and 0."""
        if not isinstance(values, dict):
            return values
        numbers = {
            name for name, field in cls.model_fields.items() if _takes_numbers(field.annotation)
        }
        return {key: _spelled(value) if key in numbers else value for key, value in values.items()}


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_takes_numbers, get_args(annotation)))


def _spelled(value: Any) -> Any:
    """Writes true and false as text, which is no number."""
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else value
