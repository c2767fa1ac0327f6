"""What a search may vary: ranges and choices, some of them only beside certain other values."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Value = bool | int | float | str | None
Settings = dict[str, Value]


class Strict(BaseModel):
    """Every part of a search file: no unknown field, no silent conversion, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Conditional(Strict):
    """``when: {backbone: [resnet18]}``: the parameter is there only beside these values of others,
    which stand above it in the file. Elsewhere the setting keeps its default."""

    when: dict[str, Annotated[tuple[Value, ...], Field(strict=False)]] = Field(default_factory=dict)

    def is_active(self, chosen: Settings) -> bool:
        """Whether the parameter is there, given the values of those above it."""
        return all(name in chosen and chosen[name] in legal for name, legal in self.when.items())


class Range(Conditional):
    """Numbers from ``low`` to ``high``, both included."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _possible(self) -> "Range":
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs `low > 0`, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("a range has `log` or `step`, not both")
        return self

    @property
    def highest(self) -> float:
        """The last value that its steps reach; ``high`` where they end there, or there are none."""
        if self.step is None:
            return self.high
        # In decimals, as Optuna has it: 3 * 0.1 is no more than 0.3 then.
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        return float(low + (high - low) // step * step)


class Choices(Conditional):
    """One of several values."""

    choices: tuple[Value, ...] = Field(min_length=1, strict=False)


def _form(value: Any) -> str:
    has_choices = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if has_choices else "range"


Parameter = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_form)
]


def in_words(parameter: Parameter) -> str:
    """``[resnet18, resnet50]``, or ``1e-05…0.01 log True``."""
    kept = parameter.model_dump(exclude_defaults=True)
    if isinstance(parameter, Choices):
        return "[" + ", ".join(str(choice) for choice in parameter.choices) + "]"
    rest = "".join(f" {name} {value}" for name, value in kept.items() if name in ("step", "log"))
    return f"{parameter.low:g}…{parameter.high:g}{rest}"


FORMS: dict[str | int, type[BaseModel]] = {"range": Range, "choices": Choices}
