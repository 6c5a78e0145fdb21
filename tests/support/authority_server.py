"""A time stamp authority over HTTP, which answers as it is told."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

from tracker.evidence.timestamp import REPLY_TYPE, REQUEST_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class AuthorityServer:
    """Runs within a block; `answer` makes the reply to a request, and may be replaced."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.asked = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                owner.asked += 1
                assert self.headers["Content-Type"] == REQUEST_TYPE
                reply = owner.answer(sent)
                self.send_response(200)
                self.send_header("Content-Type", REPLY_TYPE)
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: object) -> None:
                """Keep it out of the tests' output."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/tsr"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
