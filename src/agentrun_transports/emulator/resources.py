"""The ``agents`` namespace: collections of resources, of any name, under the version.

A resource is a JSON object. The service gives it ``id`` (unless the caller did), ``createdAt`` and
``updatedAt`` (whatever the caller wrote there), and keeps ``id`` and ``name`` unique within the collection.
The shapes of the list's answer and of these fields are the emulator's own; the live service's are not
published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .messages import Refusal, invalid
from .routing import Body, Call, Route, query_number, text, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .store import Records

VERSION = "2025-09-10"


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``target`` changed as a JSON merge patch says (RFC 7396): null removes, objects merge, all
    else replaces.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(cast("dict[str, Any]", target)) if isinstance(target, dict) else {}
    for key, value in cast("dict[str, Any]", patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


class Resources:
    """All collections. Its methods are called under the service's lock."""

    def __init__(self, records: Records, new_id: Callable[[], str]) -> None:
        self._records = records
        self._new_id = new_id

    def routes(self) -> list[Route]:
        """Return the routes; they fit any collection, so they come after those of fixed names."""
        many = (VERSION, "agents", "*")
        one = (*many, "*")
        return [
            Route(method="GET", pattern=many, handler=self._list),
            Route(method="POST", pattern=many, handler=self._create, body=Body.JSON),
            Route(method="GET", pattern=one, handler=self._get),
            Route(method="PUT", pattern=one, handler=self._replace, body=Body.JSON),
            Route(method="PATCH", pattern=one, handler=self._patch, body=Body.JSON),
            Route(method="DELETE", pattern=one, handler=self._delete),
        ]

    def _rows(self, collection: str) -> Mapping[str, dict[str, Any]]:
        return self._records.table(f"resources/{collection}")

    def _found(self, collection: str, identifier: str) -> dict[str, Any]:
        item = self._rows(collection).get(identifier)
        if item is None:
            raise Refusal(404, f"{collection!r} has no {identifier!r}.", code="ResourceNotFound")
        return item

    def _save(self, collection: str, item: dict[str, Any]) -> dict[str, Any]:
        """Keep ``item`` if its name is its own."""
        if "name" in item:
            name = text(item, "name")
            taken = (row["id"] for row in self._rows(collection).values() if row.get("name") == name)
            if any(identifier != item["id"] for identifier in taken):
                raise Refusal(409, f"{collection!r} has another {name!r}.", code="ResourceAlreadyExists")
        self._records.put(f"resources/{collection}", item["id"], item)
        return item

    def _list(self, call: Call) -> Any:
        limit = query_number(call.query, "limit", 20, 1, 100)
        page = query_number(call.query, "page", 1, 1, 999_999)
        rows = list(self._rows(call.ids[0]).values())
        items = rows[(page - 1) * limit : page * limit]
        return {"items": items, "total": len(rows), "page": page, "limit": limit}

    def _create(self, call: Call) -> Any:
        (collection,) = call.ids
        identifier = text(call.data, "id") if "id" in call.data else self._new_id()
        if identifier in (".", ".."):
            raise invalid("'id' must not be '.' or '..': no path could name it.")
        if identifier in self._rows(collection):
            raise Refusal(409, f"{collection!r} has {identifier!r} already.", code="ResourceAlreadyExists")
        stamp = timestamp(call.now)
        return self._save(collection, {**call.data, "id": identifier, "createdAt": stamp, "updatedAt": stamp})

    def _get(self, call: Call) -> Any:
        return self._found(*call.ids)

    def _replace(self, call: Call) -> Any:
        return self._update(call, dict(call.data))

    def _patch(self, call: Call) -> Any:
        return self._update(call, merge_patch(self._found(*call.ids), dict(call.data)))

    def _update(self, call: Call, item: dict[str, Any]) -> Any:
        old = self._found(*call.ids)
        if call.data.get("id", old["id"]) != old["id"]:
            raise invalid(f"'id' cannot be changed; it is {old['id']!r}.")
        kept = {"id": old["id"], "createdAt": old["createdAt"], "updatedAt": timestamp(call.now)}
        return self._save(call.ids[0], {**item, **kept})

    def _delete(self, call: Call) -> Any:
        item = self._found(*call.ids)
        self._records.delete(f"resources/{call.ids[0]}", item["id"])
        return item
