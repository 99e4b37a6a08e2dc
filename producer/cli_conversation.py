"""``fleet conversation``: what was said in one, and forgetting it."""

from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer
from producer.errors import UnknownConversation

conversation = typer.Typer(no_args_is_help=True, help="Conversations that the fleet keeps.")

ConversationId = Annotated[str, typer.Argument(metavar="ID")]
Tenant = Annotated[str | None, typer.Option(help="Whose it is.")]


@conversation.command("show")
def show(conversation_id: ConversationId, tenant: Tenant = None, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print every message that the next turn will be asked after, and which job is in progress."""
    with open_producer(redis_url) as producer:
        known = producer.conversation(conversation_id, tenant)
    for message in known.messages:
        typer.echo(f"{message.role}: {message.content}")
    if known.open_job_id is not None:
        typer.echo(f"(job {known.open_job_id} answers)")


@conversation.command("forget")
def forget(conversation_id: ConversationId, tenant: Tenant = None, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Remove a conversation; a job that answers its last turn goes on."""
    with open_producer(redis_url) as producer:
        if not producer.forget_conversation(conversation_id, tenant):
            raise UnknownConversation(conversation_id)
