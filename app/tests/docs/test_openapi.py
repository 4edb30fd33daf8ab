"""docs/openapi.json is the reviewed snapshot of the API: a change of the API is a change of this file.

To write it anew: `python -m tests.docs.test_openapi`, in the folder `app`. Read the diff before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.config import Settings
from app.main import create_app

SNAPSHOT = Path(__file__).parents[3] / "docs" / "openapi.json"


def _document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def test_the_api_is_as_in_the_snapshot() -> None:
    assert _document() == json.loads(SNAPSHOT.read_text(encoding="utf-8")), __doc__


def test_every_response_has_a_schema_and_every_error_is_described() -> None:
    document = _document()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            responses = operation["responses"]
            assert operation["description"], path
            assert {"200", "4XX", "5XX"} <= set(responses), path
            for response in responses.values():
                for content in response["content"].values():
                    schema = content.get("schema", {"type": "string"})
                    assert "$ref" in schema or schema.get("type") == "string", path
    for name, schema in document["components"]["schemas"].items():
        if name == "JsonValue":  # any JSON
            continue
        assert schema["description"], name
        assert schema["type"] == "object", name


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(_document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
