"""A model that has one plan: write a file, commit it, say so.

It speaks the streaming forms of Anthropic's Messages, OpenAI's Responses and Google's generateContent, as far as the
agents' programs read them, and notes each request with the key that came with it. How far it is it reads from the results
of tools in the request, so it answers whatever is asked in whatever order.
"""

import http.server
import json
import ssl

FILE = "/workspace/written.txt"
TEXT = "written by the agent\n"
COMMIT = "cd /workspace && git add written.txt && git commit --quiet --message 'Write what was asked for'"
SHELL = "printf '%s' '" + TEXT.strip() + "' > " + FILE


def note(line):
    with open("/dev/shm/requests", "a") as requests:
        requests.write(line + "\n")


def tools(named):
    """Name and parameters of the tools that a request offers."""
    return {name: list((schema or {}).get("properties", {})) for name, schema in named}


def argument(parameters, *wanted):
    return next((name for name in wanted if name in parameters), wanted[0])


def call(offered, step):
    """The tool to call at a step and with what; None when there is nothing to do, or nothing to do it with."""
    writer = next((name for name in offered if name.lower() in ("write", "write_file")), None)
    runner = next(
        (name for name in ("exec_command", "shell_command", "shell", "Bash", "bash", "run_shell_command")
         if name in offered), None)
    if step == 0 and writer:
        path = argument(offered[writer], "file_path", "filePath", "path")
        return writer, {path: FILE, "content": TEXT}
    if step > 1 or not runner:
        return None
    command = COMMIT if writer else (SHELL, COMMIT)[step]
    given = {argument(offered[runner], "cmd", "command"): ["bash", "-c", command] if runner == "shell" else command}
    if "description" in offered[runner]:
        given["description"] = "Does a step of the plan"
    return runner, given


def words(request):
    """The answer to a request that offers no tools: an edit in the form that aider asks for, or its commit's message."""
    said = json.dumps([request.get("system"), request["messages"]])
    if "SEARCH/REPLACE" in said:
        return "written.txt\n```\n<<<<<<< SEARCH\n=======\n%s>>>>>>> REPLACE\n```\n" % TEXT
    return "Write what was asked for" if "commit message" in said else "It is written."


def anthropic(request):
    content = [part for message in request["messages"] if isinstance(message["content"], list)
               for part in message["content"]]
    step = sum(part.get("type") == "tool_result" for part in content)
    offered = tools((tool["name"], tool.get("input_schema")) for tool in request.get("tools", []))
    chosen = call(offered, step)
    if chosen:
        block = {"type": "tool_use", "id": "toolu_%d" % step, "name": chosen[0], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(chosen[1])}
    else:
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "It is written." if offered else words(request)}
    message = {"id": "msg_%d" % step, "type": "message", "role": "assistant", "model": request["model"],
               "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": 10, "output_tokens": 1}}
    reason = "tool_use" if chosen else "end_turn"
    if not request.get("stream"):
        block.update({"input": chosen[1]} if chosen else {"text": delta["text"]})
        return None, dict(message, content=[block], stop_reason=reason)
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
         "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return events, None


def script(command):
    """A call of the tool `exec`, which runs JavaScript that has the others below `tools`."""
    return "text(JSON.stringify(await tools.exec_command({cmd: %s})));" % json.dumps(command)


def openai(request):
    items = [item for item in request["input"] if isinstance(item, dict)] if isinstance(request["input"], list) else []
    step = sum(item.get("type") in ("function_call_output", "custom_tool_call_output") for item in items)
    # Newer models are given their tools by an item of the input, in groups.
    given = request.get("tools", []) + [tool for item in items if item.get("type") == "additional_tools"
                                        for tool in item["tools"]]
    given = [inner for tool in given for inner in (tool["tools"] if tool.get("type") == "namespace" else [tool])]
    offered = tools((tool["name"], tool.get("parameters")) for tool in given if tool.get("type") == "function")
    chosen = call(offered, step)
    scripted = any(tool.get("type") == "custom" and tool["name"] == "exec" for tool in given)
    if scripted and not chosen and step < 2:
        item = {"type": "custom_tool_call", "id": "ctc_%d" % step, "call_id": "call_%d" % step, "name": "exec",
                "input": script((SHELL, COMMIT)[step]), "status": "completed"}
    elif chosen:
        item = {"type": "function_call", "id": "fc_%d" % step, "call_id": "call_%d" % step, "name": chosen[0],
                "arguments": json.dumps(chosen[1]), "status": "completed"}
    else:
        item = {"type": "message", "id": "msg_%d" % step, "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "It is written.", "annotations": []}]}
    response = {"id": "resp_%d" % step, "object": "response", "status": "in_progress", "model": request["model"],
                "output": []}
    usage = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 9,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 19}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": dict(item, status="in_progress")},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": dict(response, status="completed", output=[item], usage=usage)},
    ]
    return events, None


def google(request, stream):
    parts = [part for content in request["contents"] for part in content.get("parts", [])]
    step = sum("functionResponse" in part for part in parts)
    declared = [tool for group in request.get("tools", []) for tool in group.get("functionDeclarations", [])]
    offered = tools((tool["name"], tool.get("parametersJsonSchema") or tool.get("parameters")) for tool in declared)
    chosen = call(offered, step)
    part = {"functionCall": {"name": chosen[0], "args": chosen[1]}} if chosen else {"text": "It is written."}
    answer = {
        "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [part]}}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 9, "totalTokenCount": 19},
    }
    return ([answer], None) if stream else (None, answer)


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        keys = [self.headers.get(name) for name in ("x-api-key", "x-goog-api-key", "authorization")]
        note("%s %s %s" % (self.command, path, keys))
        try:
            request = json.loads(body or b"null")
            if path == "/v1/messages":
                return self.answer(*anthropic(request))
            if path == "/v1/responses" and self.command == "POST":
                return self.answer(*openai(request))
            if path.endswith((":streamGenerateContent", ":generateContent")):
                return self.answer(*google(request, path.endswith(":streamGenerateContent")))
            if path.endswith(":countTokens"):
                return self.say(200, "application/json", b'{"totalTokens": 10}')
            if path.endswith("/count_tokens"):
                return self.say(200, "application/json", b'{"input_tokens": 10}')
        except (KeyError, TypeError, ValueError) as error:
            note("not understood: %r %s" % (error, body[:2000]))
            return self.say(400, "application/json", b'{"error": {"message": "not understood"}}')
        # A WebSocket is asked for by GET; this host speaks HTTP alone (RFC 9110 section 15.5.22).
        status = 426 if self.headers.get("Upgrade") else 404
        return self.say(status, "application/json", b'{"error": {"message": "not here"}}')

    do_GET = do_POST

    def answer(self, events, whole):
        if events is None:
            return self.say(200, "application/json", json.dumps(whole).encode())
        lines = []
        for event in events:
            name = "event: %s\n" % event["type"] if "type" in event else ""
            lines.append("%sdata: %s\n\n" % (name, json.dumps(event)))
        return self.say(200, "text/event-stream", "".join(lines).encode())

    def say(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("", 443), Model)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/certificate.pem", "/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("serving", flush=True)
server.serve_forever()
