"""What a reviewer remarks about a policy. A remark is no error: the policy runs as it stands."""

from dataclasses import dataclass

from trackbed.rails.errors import Place


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in a policy that may not be meant, and what to do about it."""

    message: str
    place: Place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
