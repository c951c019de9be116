"""Settings: command-line flags over environment variables over `ragbot.toml` over defaults.

One frozen object comes out. An unknown name or a value out of bounds is an error. Nothing is
opened or built here; that a model or a folder exists is for those to find who use it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ragbot.address import Milvus, index_place
from ragbot.errors import ConfigError

ENV_PREFIX = "RAGBOT_"
CONFIG_FILE = Path("ragbot.toml")
_LONGEST = 200  # characters of a value that is told

EngineName = Literal["auto", "llamacpp", "transformers", "openai"]


def default_cache() -> Path:
    """Where models and one-off indexes live unless `RAGBOT_CACHE` says otherwise."""
    return Path(os.environ.get(ENV_PREFIX + "CACHE") or platformdirs.user_cache_path("ragbot"))


class Config(BaseSettings):
    """The effective settings. Field descriptions are what `ragbot doctor` and the README show."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    corpus: Path = Field(Path("corpus"), description="file or folder to answer from")
    milvus_token: str = Field(
        "", description="user:password, or key, of the Milvus server", repr=False
    )
    index: Annotated[Path | Milvus, NoDecode] = Field(
        Path("index"),
        description="where the built index lies: a folder, milvus://HOST:PORT/COLLECTION, or"
        " milvus:PATH for Milvus Lite",
    )
    cache: Path = Field(
        default_factory=default_cache, description="folder for models and one-off indexes"
    )
    encoder: str = Field("packaged:e5-small", description="packaged:NAME, a folder, or a hub id")
    reranker: str = Field(
        "", description="cross-encoder that orders the passages anew: a folder or a hub id"
    )
    llm: str = Field(
        "packaged:qwen2.5-coder-1.5b",
        description="packaged:NAME, a .gguf file, a folder, a hub id, or a server's model",
    )
    engine: EngineName = Field("auto", description="what runs the generator; auto goes by its name")
    base_url: str = Field(
        "",
        description="addresses of OpenAI-compatible servers (.../v1), with commas between; setting"
        " it chooses openai",
    )
    llm_api_key: str = Field("", description="key for those servers", repr=False)
    llm_timeout: float = Field(
        0.0, ge=0, le=3600, description="seconds to a server's first word; 0: 300, of several 30"
    )
    parallel: int = Field(
        0, ge=0, le=1024, description="questions at work at once; 0: one, or 4 for each server"
    )
    api_key: str = Field(
        "", description="key that `ragbot serve` asks of its API's clients; none: none", repr=False
    )
    rate: int = Field(
        30, ge=0, le=100_000, description="questions a minute of one client of the API; 0: any"
    )
    database: str = Field(
        "",
        description="URL of the database that several copies of `ragbot serve` share; none: files",
        repr=False,
    )
    top_k: int = Field(8, ge=1, le=50, description="passages that the generator may read")
    max_tokens: int = Field(320, ge=16, le=4096, description="longest answer, in tokens")
    context: int = Field(4096, ge=1024, le=131072, description="generator's context, in tokens")
    threads: int = Field(0, ge=0, le=512, description="processor threads; 0 takes every core")
    keep_all: bool = Field(False, description="index web-page litter, too")

    @field_validator("index", mode="before")
    @classmethod
    def _is_a_place(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str | Path):
            return index_place(value, info.data.get("milvus_token", ""))
        return value

    @field_validator("corpus", "index", "cache", "encoder", "reranker", "llm")
    @classmethod
    def _can_be_a_path(cls, value: Path | Milvus | str) -> Path | Milvus | str:
        if "\0" in str(value):
            raise ValueError("no path holds a null character")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then variables, then the file; no .env file and no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, CONFIG_FILE)


def load_config(flags: Mapping[str, Any] | None = None) -> Config:
    """The settings in force; a flag that is None was not given. Raises ConfigError."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    _reject_unknown_variables()
    try:
        return Config(**given)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error
    except (ValueError, OSError, RecursionError) as error:  # the TOML parser's own complaint
        raise ConfigError(f"Settings cannot be read, mend {CONFIG_FILE}: {error}.") from error


def _reject_unknown_variables() -> None:
    # pydantic-settings ignores variables it does not know, which hides a typing slip.
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields}
    for variable in sorted(os.environ):
        if variable.upper().startswith(ENV_PREFIX) and variable.upper() not in known:
            names = ", ".join(sorted(known))
            raise ConfigError(f"Unknown setting {variable}: unset it or use one of {names}.")


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(Config.model_fields))
        return f"Unknown setting {name!r}: remove it from {CONFIG_FILE} or use one of {known}."
    given = repr(first.get("input"))[:_LONGEST]
    return f"Setting {name}={given} is wrong, change it: {first['msg']}."
