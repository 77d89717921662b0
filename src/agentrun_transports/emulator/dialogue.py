"""What agents are told, and what they answer: here, the last thing that the user said, word by word.

That makes an answer that a test can know beforehand, as long or as awkward as it likes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .messages import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_MESSAGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Messages that make sense: the ``reply`` to them, and how many words they have."""

    reply: str
    prompt_words: int


def words(text: str) -> list[str]:
    """Split a text into words, each with the white space after it: joined, they are the text again.

    >>> words(" Hello,  wide\\nworld")
    [' ', 'Hello,  ', 'wide\\n', 'world']
    """
    return re.findall(r"\S+\s*|\s+", text)


def read_dialogue(data: Mapping[str, Any]) -> Dialogue:
    """Read ``messages``, each an object with a role and a content (a string, or a list of parts with a text).

    Raises ``Refusal`` (400) where there is none, where one has no such shape, or where none is the user's.
    """
    messages = _list(data.get("messages"))
    if not 0 < len(messages) <= _MAX_MESSAGES:
        raise invalid(f"'messages' must be a list of 1 to {_MAX_MESSAGES} messages.")
    said = [_said(message, index) for index, message in enumerate(messages)]
    reply = next((content for role, content in reversed(said) if role == "user"), None)
    if reply is None:
        raise invalid("'messages' must hold a message whose role is 'user'.")
    return Dialogue(reply=reply, prompt_words=sum(len(words(content)) for _, content in said))


def _said(message: Any, index: int) -> tuple[str, str]:
    """Return role and text of a message."""
    if not isinstance(message, dict):
        raise invalid(f"messages[{index}] must be an object.")
    fields = cast("dict[str, Any]", message)
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise invalid(f"messages[{index}].role must be one of {', '.join(ROLES)}.")
    if content is None and role == "assistant":  # it called a tool, and said nothing
        return role, ""
    if isinstance(content, str):
        return role, content
    texts = [_text(part) for part in _list(content)]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise invalid(f"messages[{index}].content must be a string, or a list of parts that have a text.")
    return role, "".join(texts)


def _list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as none."""
    return [*cast("Iterable[Any]", value)] if isinstance(value, list) else []


def _text(part: Any) -> Any:
    """Return the text of a part of a content; a part that is no text, such as an image, has an empty one."""
    return cast("dict[str, Any]", part).get("text", "") if isinstance(part, dict) else None
