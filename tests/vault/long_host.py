"""A git host and a model's API that take tokens of the form NAME-SECONDS-RANDOM until their time, in seconds of the epoch;
and AWS, which is moto on the machine itself."""

import base64
import http.client
import http.server
import os
import ssl
import subprocess
import time


def good(token, name):
    kind, _, rest = token.partition("-")
    return kind == name and int(rest.partition("-")[0]) > time.time()


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        if self.headers["Host"] == "cloud.example.test":
            return self.forward("MOTO", body)
        if self.headers["Host"] == "model.example.test":
            return self.say(200 if kind == "Bearer" and good(value, "model") else 401, [], b"{}")
        password = base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else ""
        if not good(password or "none-0", "git"):
            return self.say(401, [("WWW-Authenticate", "Basic realm=git")], b"")
        path, _, query = self.path.partition("?")
        variables = dict(os.environ, GIT_PROJECT_ROOT="/dev/shm", GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
                         REMOTE_USER="agent", QUERY_STRING=query, REQUEST_METHOD=self.command,
                         CONTENT_TYPE=self.headers.get("Content-Type") or "", CONTENT_LENGTH=str(len(body)),
                         HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding") or "",
                         HTTP_GIT_PROTOCOL=self.headers.get("Git-Protocol") or "")
        answer = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=variables).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = [int(text.split()[0]) for name, text in lines if name == "Status"]
        self.say((status or [200])[0], [line for line in lines if line[0] != "Status"], body)

    do_GET = do_POST

    def forward(self, address, body):
        # As it came, Host included: all of it is signed.
        connection = http.client.HTTPConnection(address)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, text in self.headers.items():
            connection.putheader(name, text)
        connection.endheaders(body)
        answer = connection.getresponse()
        self.say(answer.status, [("Content-Type", answer.getheader("Content-Type", ""))], answer.read())

    def say(self, status, headers, body):
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


os.environ["HOME"] = "/dev/shm"
subprocess.run(["git", "config", "--global", "safe.directory", "*"], check=True)
subprocess.run(["git", "init", "--quiet", "--bare", "/dev/shm/repository.git"], check=True)
subprocess.run(["git", "-C", "/dev/shm/repository.git", "config", "http.receivepack", "true"], check=True)
server = http.server.ThreadingHTTPServer(("", 443), Host)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("serving", flush=True)
server.serve_forever()
