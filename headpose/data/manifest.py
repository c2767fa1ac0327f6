"""What a prepared set says of itself: how it was made, what is in it, what was left out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headpose.data.crops import LOOSENESS, CropPolicy
from headpose.data.readers import Layout, LeftOut
from usererror import UserError

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
IMAGES_FILE, ANGLES_FILE, NAMES_FILE = "images.npy", "angles.npy", "names.json"
DATA_FILES = (IMAGES_FILE, ANGLES_FILE, NAMES_FILE)

MAX_STORED_PX = 2048


@dataclass(frozen=True)
class PrepareSettings:
    """How pictures are cut and stored.

    Attributes:
        stored_px: side of the stored square crops.
        view_fraction: share of the stored side that the network sees at test time, the box's
            central square; the rest is room for jitter and rotation. A view of ``image_px`` is
            sharp as long as image_px <= stored_px · view_fraction, and needs no resampling when
            both are equal and the margins whole.
        policy: which landmarks span the box.
        looseness: k of the box; None = that of the layout, see ``headpose.data.crops``.
        max_left_out_fraction: the preparation fails when more than this share is damaged.

    Raises:
        UserError: a value outside its range.
    """

    stored_px: int = 280  # a view of 224 px, as the published networks take
    view_fraction: float = 0.8  # untuned: a view moved and grown by 5 % each, or turned by 20°
    policy: CropPolicy = "original"
    looseness: float | None = None
    max_left_out_fraction: float = 0.05

    def __post_init__(self) -> None:
        rules = {
            "stored_px": (32 <= self.stored_px <= MAX_STORED_PX, f"from 32 to {MAX_STORED_PX}"),
            "view_fraction": (0.1 <= self.view_fraction <= 1, "from 0.1 to 1"),
            "policy": (
                self.policy in {"original", "visible-landmarks"},
                "'original' or 'visible-landmarks'",
            ),
            "looseness": (
                self.looseness is None or 0 <= self.looseness <= 2,
                "None or from 0 to 2",
            ),
            "max_left_out_fraction": (0 <= self.max_left_out_fraction <= 1, "from 0 to 1"),
        }
        for name, (is_legal, rule) in rules.items():
            if not is_legal:
                raise UserError(
                    f"PrepareSettings.{name}",
                    "not a legal value",
                    got=getattr(self, name),
                    rule=rule,
                )

    def require_view_px(self, image_px: int, where: str) -> None:
        """Refuse views that could only be blown up from fewer stored pixels.

        Args:
            image_px: side of the network's input.
            where: the set, for the error.

        Raises:
            UserError: the set is too coarse.
        """
        view_px = round(self.stored_px * self.view_fraction)
        if image_px > view_px:
            needed_px = int(-(-image_px // self.view_fraction))
            raise UserError(
                where,
                "the prepared pictures are too coarse",
                got=f"a view of {view_px} px ({self.view_fraction:g} of {self.stored_px} px)",
                rule=f"image_px = {image_px} needs as many pixels",
                remedy=f"prepare with stored_px >= {needed_px} "
                f"(`hopetune data prepare … --pixels {needed_px}`), or lower image_px",
            )

    def looseness_of(self, layout: Layout) -> float:
        """The k that is really used for a data set."""
        return LOOSENESS[layout] if self.looseness is None else self.looseness


@dataclass(frozen=True)
class Manifest:
    """The description beside the arrays of a prepared set.

    Attributes:
        layout: the layout of the source.
        settings: how it was cut.
        count: N, images kept.
        left_out: what was not kept, and why.
        files: name of each data file to its "sha256" and length in "bytes".
        percentiles_deg: "yaw", "pitch", "roll" to the 5th, 50th and 95th percentile.
        fingerprint: sha256 over all that makes a difference to a training on this set.
    """

    layout: Layout
    settings: PrepareSettings
    count: int
    left_out: tuple[LeftOut, ...]
    files: Mapping[str, Mapping[str, Any]]
    percentiles_deg: Mapping[str, tuple[float, float, float]]
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", self._content_hash())

    def _content_hash(self) -> str:
        content = {
            "format_version": FORMAT_VERSION,
            "layout": self.layout,
            # How a box was drawn shows in the pixels; only the view is not seen in the files.
            "view_fraction": self.settings.view_fraction,
            "files": {name: self.files[name]["sha256"] for name in DATA_FILES},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of ``manifest.json``; ends with a newline."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path | str) -> "Manifest":
        """Read ``manifest.json``.

        Raises:
            UserError: it is no manifest, of another version, or was changed by hand.
        """
        remedy = "prepare the data set anew"
        try:
            raw = json.loads(text)
            version = raw.pop("format_version")
            if version != FORMAT_VERSION:
                raise UserError(
                    str(where),
                    "a prepared set of another format version",
                    got=version,
                    rule=f"version {FORMAT_VERSION}",
                    remedy=remedy,
                )
            fingerprint = raw.pop("fingerprint")
            manifest = cls(
                layout=raw.pop("layout"),
                settings=PrepareSettings(**raw.pop("settings")),
                count=raw.pop("count"),
                left_out=tuple(LeftOut(**entry) for entry in raw.pop("left_out")),
                files=raw.pop("files"),
                percentiles_deg={
                    name: (values[0], values[1], values[2])
                    for name, values in raw.pop("percentiles_deg").items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(
                str(where), "not a readable manifest", got=str(error), remedy=remedy
            ) from error
        if raw or manifest.fingerprint != fingerprint:
            raise UserError(
                str(where),
                "the manifest does not fit its own fingerprint",
                got=fingerprint,
                rule=f"its content asks for {manifest.fingerprint}",
                remedy=remedy,
            )
        return manifest
