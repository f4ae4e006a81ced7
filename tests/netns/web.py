"""A small web server, which is run on a lab's server; each resource takes a connection of its own (HTTP/1.0).

usage: web.py PORT FILE; a line for each request goes to FILE: what was asked for, and the client's port.
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PICTURES = 50
PAGE = (
    "<!doctype html><title>loading</title><link rel=icon href=data:,>"
    "<body onload='document.title = [...document.images].filter(one => one.naturalWidth).length + \" pictures\"'>"
    + "".join(f"<img src=/picture/{number}.svg>" for number in range(PICTURES))
).encode()
PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'><rect width='8' height='8'/></svg>"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with open(sys.argv[2], "a") as file:
            file.write(f"{self.path} {self.client_address[1]}\n")
        body, kind = (PICTURE, "image/svg+xml") if "picture" in self.path else (PAGE, "text/html")
        if self.path == "/large":
            body, kind = b"x" * 3_000_000, "text/plain"
        if self.path.startswith("/repository/info/refs"):  # what git takes from a server that knows nothing of git
            body, kind = b"0123456789012345678901234567890123456789\trefs/heads/main\n", "text/plain"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512


if __name__ == "__main__":
    Server(("::", int(sys.argv[1])), Handler).serve_forever()
