"""An LLM server that speaks OpenAI's protocol, at once, or slowly when it is told to.

What a test stops in a browser must still be told when a busy machine has drawn its first word.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

NAMES = ("storyteller", "fine-storyteller")
SENTENCE = "There was once a doctor who walked from house to house. "
PAUSE = 0.5  # seconds before each further word of a slow story


@dataclass
class Storyteller:
    """The settings of a page that has it, base and fine-tuned; and whether it speaks slowly now."""

    settings: dict[str, str]
    slow: bool = False


@contextmanager
def storyteller() -> Iterator[Storyteller]:
    """It serves while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/models"):
                self._begin("application/json")
                cards = [{"id": name, "max_model_len": 4096} for name in NAMES]
                self.wfile.write(json.dumps({"data": cards}).encode())
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._begin("text/event-stream")
            try:
                for word in SENTENCE.split() * (20 if told.slow else 1):
                    self._say({"delta": {"content": f"{word} "}})
                    time.sleep(PAUSE if told.slow else 0)
                self._say({"delta": {}, "finish_reason": "stop"})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                pass  # it was stopped

        def _begin(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def _say(self, choice: dict[str, Any]) -> None:
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        settings = {
            "MEDRAFT_ENGINE": "openai_like",
            "MEDRAFT_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}/v1",
            "MEDRAFT_MODEL": NAMES[0],
            "MEDRAFT_FINE_TUNED_MODEL": NAMES[1],
        }
        told = Storyteller(settings)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield told
        finally:
            server.shutdown()
