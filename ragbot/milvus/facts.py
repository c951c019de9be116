"""Texts of any length by their names, in a Milvus collection: all that is not searched by likeness.

A Milvus field holds 65,535 bytes, so a text lies there in parts; a collection must have a vector,
so it has the shortest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ragbot.address import Milvus
from ragbot.milvus.client import QUICK, SETTLE, WRITE, told

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_PART = 15_000  # characters, of four bytes at most
_BATCH = 500
_NOTHING = [0.0, 1.0]


class Facts:
    """The collection `name`. Every method raises StoreError."""

    def __init__(self, client: MilvusClient, place: Milvus, name: str):
        self._client, self._place, self.name = client, place, name

    def create(self) -> None:
        """Make the collection, ready to be written and read."""
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=48)
        schema.add_field("owner", DataType.VARCHAR, max_length=32)
        schema.add_field("part", DataType.INT64)
        schema.add_field("value", DataType.VARCHAR, max_length=65_535)
        schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=len(_NOTHING))
        params = self._client.prepare_index_params()
        params.add_index("nothing", index_type="FLAT", metric_type="L2")
        params.add_index("owner", index_type="INVERTED")
        with told(self._place):
            self._client.create_collection(
                self.name, schema=schema, index_params=params, timeout=WRITE
            )
            self._client.load_collection(self.name, timeout=WRITE)

    def put(self, values: Mapping[str, str]) -> int:
        """Keep texts by their names, each as a whole; how many parts that are."""
        parts, count = _parts(values), 0
        with told(self._place):
            while batch := list(islice(parts, _BATCH)):
                self._client.upsert(self.name, batch, timeout=WRITE)
                count += len(batch)
        return count

    def take(self, names: Sequence[str]) -> dict[str, str]:
        """The texts of those names that are there."""
        owners = {_owner(name): name for name in names}
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        hashes = iter(owners)
        with told(self._place):
            while batch := list(islice(hashes, _BATCH)):
                for row in self._client.query(
                    self.name,
                    filter=f"owner in {_listed(batch)}",
                    output_fields=["owner", "part", "value"],
                    consistency_level="Strong",
                    timeout=QUICK,
                ):
                    found[owners[row["owner"]]].append((row["part"], row["value"]))
        return {name: "".join(text for _, text in sorted(parts)) for name, parts in found.items()}

    def count(self) -> int:
        """How many parts of texts there are."""
        return count(self._client, self._place, self.name)


def count(client: MilvusClient, place: Milvus, collection: str) -> int:
    """How many rows a collection has, all of those written so far. Raises StoreError."""
    with told(place):
        found = client.query(
            collection, output_fields=["count(*)"], consistency_level="Strong", timeout=SETTLE
        )
        return int(found[0]["count(*)"])


def _parts(values: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    return (
        {
            "id": f"{_owner(name)}-{at // _PART}",
            "owner": _owner(name),
            "part": at // _PART,
            "value": text[at : at + _PART],
            "nothing": _NOTHING,
        }
        for name, text in values.items()
        for at in range(0, max(1, len(text)), _PART)
    )


def _owner(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _listed(hashes: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{one}"' for one in hashes) + "]"
