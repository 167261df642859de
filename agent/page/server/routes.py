"""What the page asks for beside the chat, where Chainlit does not ask whose it is.

Owns the check that a feedback belongs to a user's own answer, the refusal of uploads, the address
of a conversation as a file, and that the page brings the login along. Does not know how any of it
is stored or written.
"""

from __future__ import annotations

from typing import Any

from chainlit.data import get_data_layer
from chainlit.types import DeleteFeedbackRequest, UpdateFeedbackRequest
from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from agent.page import server_hooks
from agent.page.export import file_name, markdown
from agent.page.history import History
from agent.page.language import say
from agent.page.server_hooks import CurrentUser
from agent.templates import spoken

router = APIRouter()


def add() -> None:
    """Have them served."""
    server_hooks.add_routes(router)


@router.get("/")
@router.get("/thread/{thread_id}")
async def page(request: Request) -> Response:
    """The page, for whoever needs no password with the login."""
    return await server_hooks.page_with_login(request)


@router.put("/feedback")
async def put_feedback(
    request: Request, update: UpdateFeedbackRequest, current_user: CurrentUser
) -> Any:
    """The feedback of an answer in one of the user's own threads; 404 for any other."""
    await _only_of(current_user, step_id=update.feedback.forId)
    return await server_hooks.give_feedback(request, update, current_user)


@router.delete("/feedback")
async def delete_feedback(
    request: Request, payload: DeleteFeedbackRequest, current_user: CurrentUser
) -> Any:
    """Take one's own feedback back; 404 for any other."""
    await _only_of(current_user, feedback_id=payload.feedbackId)
    return await server_hooks.take_feedback_back(request, payload, current_user)


@router.post("/project/file")
async def refuse_upload() -> Response:
    """403 before anything is read: Chainlit reads and keeps the whole file, and refuses it then."""
    return Response("medraft takes no files.", 403, media_type="text/plain; charset=utf-8")


@router.get("/export/")
async def export_nothing(request: Request) -> Response:
    """What the link in the page's head says where no conversation is shown."""
    to = spoken(request.headers.get("accept-language"))
    return Response(say("export.nothing", to), 404, media_type="text/plain; charset=utf-8")


@router.get("/export/{thread_id}")
async def export(request: Request, thread_id: str, current_user: CurrentUser) -> Response:
    """A conversation as a Markdown file, for its own user; 401 for nobody, 404 for any other."""
    if current_user is None:
        raise HTTPException(401)
    thread = await _history().get_thread(thread_id)
    if thread is None or thread["userIdentifier"] != current_user.identifier:
        raise HTTPException(404)
    headers = {
        "Content-Disposition": f'attachment; filename="{file_name(thread)}"',
        "Cache-Control": "no-store",
    }
    text = markdown(thread, spoken(request.headers.get("accept-language")))
    return Response(text, media_type="text/markdown; charset=utf-8", headers=headers)


async def _only_of(user: Any, **of: str) -> None:
    owner = await _history().owner(**of)
    if user is None or owner is None or owner != user.identifier:
        raise HTTPException(404)


def _history() -> History:
    layer = get_data_layer()
    assert isinstance(layer, History)
    return layer
