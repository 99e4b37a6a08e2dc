"""The gateway's OpenAPI document: what it promises is what is answered."""

from typing import Any

import pytest

from producer.conversation import ConversationTerms
from producer.gateway.app import create_app


def document(*, require_keys: bool) -> dict[str, Any]:
    """Of a gateway that is not started."""
    app = create_app(
        "redis://127.0.0.1:1/0",
        require_keys=require_keys,
        request_timeout_seconds=1,
        conversation_terms=ConversationTerms(),
    )
    assert app.openapi() is app.openapi(), "it is made once"
    return app.openapi()


@pytest.mark.parametrize("require_keys", [False, True])
def test_errors_are_declared_with_the_body_that_they_have(*, require_keys: bool) -> None:
    """FastAPI's own 422 is never answered; a key is asked for where the gateway asks for it."""
    told = document(require_keys=require_keys)
    operations = {(path, method): one for path, all_ in told["paths"].items() for method, one in all_.items()}
    assert "ValidationError" not in str(told)
    assert told["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert len(operations) > 10
    for (path, method), operation in operations.items():
        statuses = {status for status in operation["responses"] if int(status) >= 400}
        is_open = path in {"/health", "/ready"}
        assert ("security" in operation) == (require_keys and not is_open)
        assert "422" not in statuses
        assert is_open or statuses >= {"400", "401", "403", "404", "503"}, path
        assert ({"409", "413", "429"} <= statuses) == (method == "post"), path
        for status in statuses:
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}
