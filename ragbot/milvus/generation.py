"""One generation of an index on Milvus: two collections, one of chunks and one of all else.

The alias names that of the chunks which is read now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragbot.address import Milvus
from ragbot.errors import StoreError
from ragbot.milvus.client import QUICK, WRITE, connect, damaged, told
from ragbot.milvus.facts import Facts
from ragbot.milvus.rows import FIELDS

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MANIFEST, NAMES, SOURCE, DOCUMENT, WORD = "manifest", "names", "source", "document:", "word:"
FACTS = "_facts"  # ends the name of a generation's second collection
MOST_ROWS = 16_384  # rows that Milvus gives at once
_NO_ALIAS = (100, 1600)  # what Milvus Lite and Milvus answer for a name that is no alias


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for: the value of a field that a row's is multiplied with, and what has to
    hold for the row besides."""

    field: str
    value: object
    condition: str = ""


class Generation:
    """The collections of one generation, for those who read it. Every method raises StoreError."""

    def __init__(self, client: MilvusClient, place: Milvus, name: str):
        self.client, self.place, self.name = client, place, name
        self.facts = Facts(client, place, name + FACTS)

    def query(self, condition: str, fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """The rows for which a condition holds, in order of their numbers."""
        with told(self.place):
            rows = self.client.query(
                self.name, filter=condition, output_fields=["number", *fields], timeout=QUICK
            )
            return sorted(rows, key=lambda row: int(row["number"]))

    def search(
        self, wanted: Wanted, limit: int, settings: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        """The `limit` rows whose field has the greatest product with what is wanted."""
        with told(self.place):
            found = self.client.search(
                self.name,
                data=[wanted.value],
                anns_field=wanted.field,
                filter=wanted.condition,
                limit=min(limit, MOST_ROWS),
                output_fields=FIELDS,
                search_params={"metric_type": "IP", "params": dict(settings)},
                timeout=QUICK,
            )
            return [hit["entity"] for hit in found[0]]

    def text(self, name: str) -> str:
        """A text of its facts; an index that lacks it is damaged."""
        found = self.facts.take([name])
        if name not in found:
            raise damaged(self.place, f"its {name} is missing")
        return found[name]


def opened(place: Milvus) -> Generation:
    """The generation that the alias names now, loaded. Raises ConfigError, StoreError."""
    client = connect(place)
    name = generation_name(client, place)
    if not name:
        raise StoreError(f"There is no index in {place}: build it with `ragbot index`.")
    with told(place):
        load(client, name)
    return Generation(client, place, name)


def stands(place: Milvus) -> bool:
    """Whether there is an index at `place`. Raises ConfigError, StoreError."""
    return bool(generation_name(connect(place), place))


def generation_name(client: MilvusClient, place: Milvus) -> str:
    """The collection that the alias names; empty when there is none. Raises StoreError."""
    from pymilvus.exceptions import MilvusException

    with told(place):
        try:
            return str(client.describe_alias(place.name, timeout=QUICK)["collection_name"])
        except MilvusException as error:
            if error.code not in _NO_ALIAS:
                raise
        if not client.has_collection(place.name, timeout=QUICK):
            return ""
    raise StoreError(
        f"{place} is a collection of something else: name another for the index with --index."
    )


def kept_manifest(generation: Generation) -> dict[str, Any]:
    """What is kept of the index as a whole. Raises StoreError."""
    try:
        kept: dict[str, Any] = json.loads(generation.text(MANIFEST))
        return kept
    except ValueError as error:
        raise damaged(generation.place, error) from error


def load(client: MilvusClient, name: str) -> None:
    from pymilvus.client.types import LoadState

    for collection in (name, name + FACTS):
        if client.get_load_state(collection, timeout=QUICK)["state"] != LoadState.Loaded:
            client.load_collection(collection, timeout=WRITE)
