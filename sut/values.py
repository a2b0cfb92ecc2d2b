"""The base of every value in a plan or a config, and numbers with bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec

# What msgspec raises for damaged bytes, and for containers nested too deeply.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
# Bounded: YAML allows .inf; JSON and LoadGen do not.
PositiveFloat = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every value in a plan or a config: frozen, and unknown keys are errors."""
