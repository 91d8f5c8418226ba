#!/usr/bin/env python3
"""The team's server in the demo: gives the guideline to whoever brings the token, on one address and two ports.

The sandbox's allow list names the first port. Nobody should ever be seen on the second: that a request there was refused
on the way is shown by this log, which has no line of it.

    server.py ADDRESS TOKEN_FILE READY_FILE LOG_FILE
"""

import hmac
import http.server
import json
import os
import sys
import threading

GUIDELINE = {
    "name": "Pricing team guideline",
    "may_change": ["pricing"],
    "subject_prefix": "fix: ",
    "trailer": "Guideline: pricing 3",
    "most_edits": 4,
}


def handler(token, log):
    """A request handler class for this token."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 20
        server_version = "guideline"
        sys_version = ""

        def do_GET(self):
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, b"Bearer " + token):
                self.answer(401, {"error": "the token is missing or wrong"})
            elif self.path != "/guideline.json":
                self.answer(404, {"error": "there is no such document"})
            else:
                self.answer(200, GUIDELINE)

        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            # The path is a stranger's text; as JSON, it stays one line.
            entry = {"port": self.server.server_port, "path": self.path[:200], "status": status}
            with lock, open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

        def log_message(self, format, *arguments):
            pass

    return Handler


def main():
    """Serves until it is ended."""
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    address, token_file, ready, log = sys.argv[1:]
    with open(token_file, "rb") as file:
        token = file.read(1000).strip()
    if not token:
        raise SystemExit("server.py: the token is empty")
    kind = handler(token, log)
    servers = [http.server.ThreadingHTTPServer((address, 0), kind) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    # Written beside and renamed, so that who waits for it never reads half.
    with open(ready + ".new", "w", encoding="ascii") as file:
        file.write(" ".join(str(server.server_port) for server in servers) + "\n")
    os.rename(ready + ".new", ready)
    threading.Event().wait()


if __name__ == "__main__":
    main()
