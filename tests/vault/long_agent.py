"""Works as an agent does until a file says that it is enough: fetches, commits, pushes, asks a model, reads a password, and
calls AWS with a session of botocore's that lives as long as this process."""

import json
import os
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, "/home/agent/aws")
import botocore.session

done, failed, keys = {"pushes": 0, "requests": 0, "reads": 0, "calls": 0}, [], set()
remote = "https://git.example.test/repository.git"


def turn(name, work):
    try:
        work()
        done[name] += 1
    except Exception as error:
        failed.append("%s at %.1f: %s" % (name, time.time(), getattr(error, "stderr", None) or error))


def push():
    for words in (["commit", "--quiet", "--allow-empty", "--message", "one more"],
                  ["push", "--quiet", remote, "HEAD:refs/heads/work"], ["fetch", "--quiet", remote, "work"]):
        subprocess.run(["git", *words], check=True, capture_output=True, text=True, cwd="/workspace")


def ask():
    request = urllib.request.Request("https://model.example.test/v1/messages", data=b"{}")
    urllib.request.urlopen(request, timeout=10).read()


def read():
    for _ in range(20):
        json.load(open("/run/secrets/database"))["password"]


session = botocore.session.get_session()
cloud = session.create_client("sts", endpoint_url="https://cloud.example.test")


def call():
    cloud.get_caller_identity()
    keys.add(session.get_credentials().get_frozen_credentials().access_key)


while not os.path.exists("/tmp/enough"):
    turn("pushes", push)
    turn("requests", ask)
    turn("reads", read)
    turn("calls", call)
    time.sleep(0.1)
print(json.dumps({"done": done, "failed": failed, "keys": len(keys)}))
