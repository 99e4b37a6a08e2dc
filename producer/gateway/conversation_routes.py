"""Conversations over HTTP: what was said, and forgetting it. Turns are taken by chats and jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from producer.conversation import Conversation
from producer.errors import UnknownConversation
from producer.gateway.callers import Caller, Known
from producer.gateway.openai_routes import Fleet
from producer.prompting import Name

router = APIRouter(prefix="/v1/conversations")

Tenant = Annotated[Name | None, Query(description="Whose it is: an operator's word, a tenant has its own alone.")]


@router.get("/{conversation_id:path}")
async def conversation(conversation_id: str, fleet: Fleet, caller: Known, tenant: Tenant = None) -> dict[str, Any]:
    """Everything that the next turn will be asked after; the last turn has no answer while it is in progress."""
    return _body(await fleet.conversation(conversation_id, _owner(conversation_id, caller, tenant)))


@router.delete("/{conversation_id:path}")
async def forget(conversation_id: str, fleet: Fleet, caller: Known, tenant: Tenant = None) -> dict[str, Any]:
    """Forget it; a job that answers its last turn goes on."""
    if not await fleet.forget_conversation(conversation_id, _owner(conversation_id, caller, tenant)):
        raise UnknownConversation(conversation_id)
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def _owner(conversation_id: str, caller: Caller, tenant: str | None) -> str | None:
    """Whose conversation is meant; another tenant's does not exist.

    Raises:
        UnknownConversation: this caller may not name this tenant.
    """
    if caller.is_operator:
        return tenant
    if tenant not in (None, caller.tenant):
        raise UnknownConversation(conversation_id)
    return caller.tenant


def _body(known: Conversation) -> dict[str, Any]:
    return {
        "id": known.conversation_id,
        "object": "conversation",
        "tenant": known.tenant,
        "messages": [message.model_dump(mode="json", exclude_none=True) for message in known.messages],
        "turns": len(known.turns),
        "job_in_progress": known.open_job_id,
        "tokens": known.tokens,
        "expires_in_seconds": known.expires_in_seconds,
    }
