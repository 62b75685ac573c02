"""The HTTP face of an agent in mode `function`, as a program without link: `python function_agent.py DIRECTORY`.

What it is invoked with goes to DIRECTORY/<container>.seen, one line each; it ends when DIRECTORY/<container>.end holds
an exit code (or `released`: that invocation only).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class Face(BaseHTTPRequestHandler):
    directory: Path
    lock = threading.Lock()
    ends: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["X-Sockerless-Invoke"] != os.environ["SOCKERLESS_INVOKE_KEY"]:
            self.answer(403, {"message": "the key"})
            return
        if self.ends and self.ends[-1] != "released":
            self.answer(409, {"message": "ended"})
            return
        container = body["container"]
        with (self.directory / f"{container}.seen").open("a") as seen:
            seen.write(json.dumps({"body": body, "env": dict(os.environ), "pid": os.getpid()}) + "\n")
        line: dict[str, Any] = {"message": f"run {body['run']}", "sockerless": {"run": body["run"], "partial": False}}
        print(json.dumps(line | {"logging.googleapis.com/labels": {"sockerless-container": container}}), flush=True)
        said = self.wait(self.directory / f"{container}.end")
        released = said == "released"
        if not released:
            threading.Timer(0.05, lambda: os._exit(int(said))).start()
        code = None if released else {"code": int(said), "oom": False, "at": "2026-01-02T03:04:05Z"}
        self.answer(200, {"container": container, "run": body["run"], "exit": code, "released": released})

    def wait(self, end: Path) -> str:
        """What ends all invocations that are held now."""
        with self.lock:
            known = len(self.ends)
        while True:
            with self.lock:
                if end.exists():
                    self.ends.append(end.read_text())
                    end.unlink()
                if len(self.ends) > known:
                    return self.ends[known]
            time.sleep(0.005)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    Face.directory = Path(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Face).serve_forever()
