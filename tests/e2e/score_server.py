"""prefusion score --serve under many clients, some of which send garbage.

score_server.py BINARY WORLD CASE; or by hand for longer: score_server.py BINARY - load SECONDS CLIENTS
"""

import base64
import http.client
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

from PIL import Image
from score_support import PROMPTS, png
from support import check, main

FORM = "----prefusion"


class Server:
    def __init__(self, prefusion, *more):
        self.run = subprocess.Popen([prefusion.binary, "score", "--threads", "1", "--reward", "shapes", "--serve", "0", *map(str, more)],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.run.stdout.readline().decode()
        check(line.startswith("listening on http://127.0.0.1:"), f"the first line is {line!r}: {self.run.poll()}")
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method, path, body=None, headers=None, connection=None):
        own = connection or self.connect()
        own.request(method, path, body, headers or {})
        response = own.getresponse()
        text = response.read()
        if not connection:
            own.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            raise AssertionError(f"{response.status} without JSON: {text[:200]!r}")

    def score(self, items, connection=None):
        return self.ask("POST", "/score", json.dumps({"items": items}), {"Content-Type": "application/json"}, connection)

    def memory(self):
        for line in pathlib.Path(f"/proc/{self.run.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10

    def stop(self, how=signal.SIGTERM):
        self.run.send_signal(how)
        error = self.run.communicate(timeout=60)[1].decode()
        check(self.run.returncode == 0, f"exit code {self.run.returncode}: {error}")
        return error


def encoded(data):
    return base64.b64encode(data).decode()


def scores_of(prefusion, scratch, pictures):
    """What the batch scorer gives pictures under prompts."""
    rows = []
    for i, (data, prompt) in enumerate(pictures):
        (scratch / f"{i}.png").write_bytes(data)
        rows.append({"image": f"{i}.png", "prompt": prompt})
    (scratch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = subprocess.run([prefusion.binary, "score", "--reward", "shapes", "--quiet", "--input", scratch / "rows.jsonl"], capture_output=True, check=True).stdout
    return [json.loads(line)["shapes"] for line in out.decode().splitlines()]


def form(parts):
    body = b""
    for name, data, filename in parts:
        extra = f'; filename="{filename}"\r\nContent-Type: image/png' if filename else ""
        body += f'--{FORM}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"
    return body + f"--{FORM}--\r\n".encode()


def answers(prefusion, world, scratch):
    """What each request gets, and what each broken one."""
    pictures = [(png(i), PROMPTS[i % len(PROMPTS)]) for i in range(6)]
    expected = scores_of(prefusion, scratch, pictures)
    items = [{"image": encoded(data), "prompt": prompt} for data, prompt in pictures]
    (scratch / "allowed").mkdir()
    (scratch / "allowed" / "a.png").write_bytes(pictures[0][0])
    (scratch / "secret.png").write_bytes(pictures[0][0])
    (scratch / "allowed" / "link.png").symlink_to(scratch / "secret.png")
    server = Server(prefusion, "--max-items", 8, "--max-request-mb", 1, "--max-megapixels", 1, "--allow-paths", scratch / "allowed")
    check(server.ask("GET", "/health")[1]["status"] == "ok", "health")
    check(server.ask("GET", "/rewards") == (200, {"rewards": ["shapes"]}), "rewards")
    status, body = server.score(items)
    check(status == 200 and [r["shapes"] for r in body["results"]] == expected, f"{status} {body}, expected {expected}")
    status, body = server.score([{**items[0], "image": "data:image/png;base64," + items[0]["image"]}, {"image_path": "a.png", "prompt": PROMPTS[0]},
                                 {"image": encoded(b"no picture"), "prompt": PROMPTS[0]}, {**items[0], "prompt": "an astronaut"}])
    check(status == 200 and [r["shapes"] for r in body["results"]] == [expected[0]] * 2 + [None, None], f"{status} {body}")
    check("astronaut" in body["results"][3]["error"] and "error" in body["results"][2], f"{body}")
    headers = {"Content-Type": f"multipart/form-data; boundary={FORM}"}
    parts = [("image", data, "x.png") for data, _ in pictures[:2]] + [("prompt", prompt.encode(), None) for _, prompt in pictures[:2]]
    status, body = server.ask("POST", "/score", form(parts), headers)
    check(status == 200 and [r["shapes"] for r in body["results"]] == expected[:2], f"{status} {body}")
    many = json.dumps({"items": items[:1] * 9})
    for status, method, path, body, headers in (
        (400, "POST", "/score", "", {}), (400, "POST", "/score", "{", {}), (400, "POST", "/score", "[" * 100000, {}), (400, "POST", "/score", "[]", {}),
        (400, "POST", "/score", b"\xff\xfe\x00", {}), (400, "POST", "/score", '{"items": []}', {}), (400, "POST", "/score", '{"items": [3]}', {}),
        (400, "POST", "/score", '{"items": [{"prompt": "x"}]}', {}), (400, "POST", "/score", '{"items": [{"image": "?"}]}', {}), (400, "POST", "/score", '{"items": [{"image": "QUJ"}, {"image": "QUJD="}]}', {}),
        (400, "POST", "/score", '{"items": [{"image": "QUJD", "prompt": 3}]}', {}), (400, "POST", "/score", '{"items": [{"image": "QUJD", "prompt": "x"}]}', {}),
        (403, "POST", "/score", '{"items": [{"image_path": "../secret.png"}]}', {}), (403, "POST", "/score", '{"items": [{"image_path": "link.png"}]}', {}),
        (403, "POST", "/score", '{"items": [{"image_path": "/etc/passwd"}]}', {}), (403, "POST", "/score", '{"items": [{"image_path": "absent"}]}', {}),
        (413, "POST", "/score", many, {}), (413, "POST", "/score", b"x" * (2 << 20), {}), (404, "GET", "/", None, {}), (404, "POST", "/other", "{}", {}),
        (403, "GET", "/health", None, {"Host": "example.com"}), (415, "POST", "/score", "x", {"Content-Encoding": "gzip"}),
        (400, "POST", "/score", form([("prompt", b"x", None)]), {"Content-Type": f"multipart/form-data; boundary={FORM}"}),
        (400, "POST", "/score", b"garbage", {"Content-Type": f"multipart/form-data; boundary={FORM}"}),
    ):
        try:
            found, text = server.ask(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            check(status == 413, f"{path} {str(body)[:40]}: the connection was cut")
            continue
        check(found == status and text["error"], f"{method} {path} {str(body)[:60]}: {found} {text}, expected {status}")
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 1000), (90, 120, 200)).save(buffer, "PNG")
    huge = buffer.getvalue()
    check(len(huge) < 700_000, "the picture is for another limit")
    status, body = server.score([{"image": encoded(huge), "prompt": PROMPTS[0]}])
    check(status == 400, f"a picture over the limit: {status} {body}")
    check(server.score(items)[0] == 200, "the server does not answer any more")
    server.stop()


def client(server, pictures, expected, until, seed, counts, failures):
    generator = random.Random(seed)
    connection = server.connect()
    garbage = ["", "{", '{"items": [{"image": "QUJD", "prompt": "x"}]}', "x" * 100000, '{"items": 3}']
    try:
        while time.time() < until:
            if generator.random() < 0.1:
                status, _ = server.ask("POST", "/score", generator.choice(garbage), {}, connection)
                if not 400 <= status < 500:
                    failures.append(f"garbage got {status}")
                counts["garbage"] += 1
                continue
            chosen = [generator.randrange(len(pictures)) for _ in range(generator.randrange(1, 6))]
            status, body = server.score([pictures[i] for i in chosen], connection)
            if status == 429:
                counts["full"] += 1
                time.sleep(0.01)
                continue
            if status != 200 or [r.get("shapes") for r in body["results"]] != [expected[i] for i in chosen]:
                failures.append(f"{status} {body}, expected {[expected[i] for i in chosen]}")
            counts["answers"] += 1
            counts["pictures"] += len(chosen)
    except Exception as error:
        failures.append(f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def load(prefusion, world, scratch, seconds=5, clients=64):
    """Many clients at once: no answer is wrong or lost, and memory stays."""
    pictures = [(png(i), PROMPTS[i % len(PROMPTS)]) for i in range(24)]
    expected = scores_of(prefusion, scratch, pictures)
    check(len(set(expected)) > 12, "the scores do not tell pictures apart")
    items = [{"image": encoded(data), "prompt": prompt} for data, prompt in pictures]
    server = Server(prefusion, "--max-queue", 256)
    counts, failures = dict(garbage=0, full=0, answers=0, pictures=0), []
    until = time.time() + seconds
    threads = [threading.Thread(target=client, args=(server, items, expected, until, i, counts, failures)) for i in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(min(2, seconds / 2))
    early = server.memory()
    for thread in threads:
        thread.join()
    late = server.memory()
    print(f"  {counts}, resident {early >> 20} MiB early, {late >> 20} MiB late")
    check(not failures, f"{len(failures)} failures, the first: {failures[:1]}")
    check(counts["answers"] > clients, f"{counts}")
    check(late < early + (128 << 20), f"memory grew from {early} to {late} bytes")
    slow = threading.Thread(target=client, args=(server, items, expected, time.time() + 0.3, 1, counts, failures))
    slow.start()
    slow.join()
    server.stop(signal.SIGINT)


if len(sys.argv) > 4:
    seconds, clients = int(sys.argv[4]), int(sys.argv[5])
    main({"load": lambda prefusion, world, scratch: load(prefusion, world, scratch, seconds, clients)})
else:
    main({"answers": answers, "load": load})
