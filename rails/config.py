"""What a rail says of its own keys: the schema's base, and the marks of keys that name something in the policy.

Rails and who reads policies import this file, and Pydantic with it; who runs a pipeline does without both.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict


class ModelReference:
    """Marks a config field that names one of the policy's `models:`, so that loading can check the name."""


ModelName = Annotated[str, ModelReference()]


class RailConfig(BaseModel):
    """What a policy may say of one kind of rail, beside the keys that every rail has. Unknown keys are errors."""

    # Built with the first policy that uses the rail.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
