"""What a doctor's reply is to LlamaIndex: the text an LLM sees, and the text that is searched.

Owns the template of the searched text; a change to it needs a new schema version. Does not
know how either text is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index_store.dataset import Dialogue

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore, TextNode


def reply_node(dialogue: Dialogue) -> TextNode:
    """A node whose text is the reply; title and patient are metadata that no LLM sees."""
    from llama_index.core.schema import TextNode

    return TextNode(
        id_=dialogue.id,
        text=dialogue.doctor,
        metadata={"title": dialogue.title, "patient": dialogue.patient},
        excluded_llm_metadata_keys=["title", "patient", "rank"],
        excluded_embed_metadata_keys=["rank"],
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
    )


def dialogue_of(node: NodeWithScore) -> Dialogue:
    """The dialogue whose reply a node is."""
    about = node.metadata
    return Dialogue(about["title"], about["patient"], node.get_content())


def searched_text(dialogue: Dialogue) -> str:
    """Title, question and reply, one after the other: what is embedded and indexed.

    The same as the node's text in MetadataMode.EMBED, without the node: a build needs it twice
    for each of hundreds of thousands of rows.
    """
    return f"{dialogue.letter}\n{dialogue.doctor}"
