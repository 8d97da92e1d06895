"""The base of all config sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a config. Unknown keys are errors, and defaults are checked like other values."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
