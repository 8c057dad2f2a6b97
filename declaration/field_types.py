"""Types that the models of the stack configuration share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from pydantic.fields import FieldInfo

from declaration.problems import Problem, show

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, StringConstraints(strict=True)]


def setting(default: Any, description: str, *, allowed: str = "", secret: bool = False) -> Any:
    """A field of the stack configuration, described for the schema and the documents.

    ``description`` says what the setting means, with its unit. ``allowed`` says what it may be
    where the type does not (``declaration.describe`` derives it from flags,
    literals and ranges). ``secret``: it may only be stored
    encrypted, and its value never appears in a message.
    """
    extra: dict[str, JsonValue] = {"allowed": allowed, "secret": secret}
    return Field(default, description=description, json_schema_extra=extra)


def is_secret(field: FieldInfo) -> bool:
    """Whether a field was marked as a secret."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("secret"))


class StrictModel(BaseModel):
    """No unknown keys; what was read does not change, and never stands in an error of pydantic."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def paths_in(model: BaseModel) -> list[str]:
    """The values of all fields that name a file or directory here, those of groups too."""
    found: list[str] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += paths_in(value)
        elif value and any(getattr(each, "func", None) is check_path for each in field.metadata):
            found.append(value)
    return found


def check_path(value: str) -> str:
    """A path, as far as one can tell without looking for it."""
    if any(ord(character) < 32 for character in value):
        raise ValueError(f"{show(value)} is not a path of a file")
    return value


def text_problems(place: str, path: str) -> list[Problem]:
    """Whether a file can be read as text; ``place`` is the setting that names it."""
    try:
        Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [Problem(place, f"{show(path)} is not UTF-8 text. Convert it.")]
    except OSError as error:
        message = f"{show(path)} cannot be read ({error.strerror}). Name a file that can be."
        return [Problem(place, message)]
    return []


def check_url(value: str) -> str:
    """A URL, or nothing."""
    if value and not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?(/[\w.~/-]*)?", value):
        raise ValueError(f"{show(value)} is not a URL. Use one such as http://10.120.0.1:8000/v1")
    return value
