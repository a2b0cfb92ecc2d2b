"""What a check before submission found."""

from __future__ import annotations

from sut.errors import Errors


class Finding:
    """One check: what was found, and every problem. ``ok`` is None if it could not be made.
    ``warning`` is what does not keep the run from starting; its second line is a hint."""

    def __init__(self, name: str, text: str = "", *, made: bool = True) -> None:
        self.name = name
        self.text = text
        self.problems = Errors()
        self.warning = ""
        self._made = made

    @property
    def ok(self) -> bool | None:
        return not self.problems if self._made else None
