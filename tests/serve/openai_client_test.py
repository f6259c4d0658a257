#!/usr/bin/env python3
"""Chats with a real `tandem serve` through the openai package, and with plain sockets.

usage: openai_client_test.py TANDEM [MODEL]

MODEL defaults to $TANDEM_TEST_MODEL. Exits with 77, saying why, when there is no model or no openai
package; $TANDEM_TEST_PYTHON names an interpreter that has it.
"""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest

SKIP = 77
PLUGINS = ["single", "replicas", "layer_split", "tensor_split", "offload"]
QUESTION = [{"role": "user", "content": "Name one colour."}]
TANDEM = MODEL = None

try:
    import openai
except ImportError:
    openai = None


class Served:
    """A server on a free port for as long as a `with` lasts; ends it by SIGTERM."""

    def __init__(self, plugin, *flags):
        devices = "1" if plugin in ("single", "offload") else "2"
        self.command = [TANDEM, "serve", "-m", MODEL, "--plugin", plugin, "--devices", devices,
                        "--port", "0", *flags]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        self.notes = ""
        for line in self.process.stderr:
            self.notes += line
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                # Nobody reads on, and a full pipe would block the server.
                self.drain = concurrent.futures.ThreadPoolExecutor(1)
                self.drain.submit(self.process.stderr.read)
                return self
        raise AssertionError("tandem serve did not start:\n" + self.notes)

    def client(self, **options):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", max_retries=0,
                             timeout=120, **{"api_key": "none", **options})

    def raw(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, text, reply.headers

    def metric(self, line_start):
        for line in self.raw("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(line_start):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(line_start + " is not among the metrics")

    def wait_for_metric(self, line_start, wanted, seconds=30):
        until = time.monotonic() + seconds
        while self.metric(line_start) != wanted:
            if time.monotonic() > until:
                raise AssertionError(f"{line_start} is {self.metric(line_start)}, want {wanted}")
            time.sleep(0.1)

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("tandem serve did not end within a minute of SIGTERM")
        self.drain.shutdown()
        self.process.stderr.close()


class EveryPluginTest(unittest.TestCase):
    def test_chats_streaming_and_not_with_each_plugin(self):
        texts = {}
        for plugin in PLUGINS:
            with self.subTest(plugin=plugin), Served(plugin) as served:
                client = served.client()
                model = client.models.list().data[0].id
                ask = dict(model=model, messages=QUESTION, max_tokens=24, temperature=0)
                whole = client.chat.completions.create(**ask)
                text = whole.choices[0].message.content
                self.assertTrue(text)
                self.check_cost(whole.tandem, plugin)
                self.assertLessEqual(whole.usage.completion_tokens, 24)

                chunks = list(client.chat.completions.create(
                    **ask, stream=True, stream_options={"include_usage": True}))
                streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
                self.assertEqual(streamed, text)
                self.assertEqual(chunks[-1].usage, whole.usage)
                self.check_cost(chunks[-1].tandem, plugin)
                ends = [c.choices[0].finish_reason for c in chunks if c.choices]
                self.assertEqual([e for e in ends if e], [whole.choices[0].finish_reason])
                self.assertEqual(chunks[0].choices[0].delta.role, "assistant")

                raw = client.completions.create(model=model, prompt="The capital of France is",
                                                max_tokens=4, temperature=0)
                self.assertIn("Paris", raw.choices[0].text)
                texts[plugin] = text
            self.assertEqual(served.exit_code, 0)
        # Splits without a reduce are the same arithmetic.
        for plugin in ("replicas", "layer_split", "offload"):
            self.assertEqual(texts[plugin], texts["single"], plugin)

    def check_cost(self, cost, plugin):
        self.assertEqual(cost["plugin"], plugin)
        self.assertEqual(cost["prefill"]["steps"], 1)
        self.assertGreater(cost["decode"]["steps"], 0)
        self.assertGreater(cost["decode"]["step_ms"], 0)
        moves = cost["prefill"]["link_bytes"]
        if plugin in ("layer_split", "tensor_split"):
            self.assertGreater(moves, 0)
        elif plugin != "offload":
            self.assertEqual(moves, 0)


class LoadTest(unittest.TestCase):
    def test_thirty_two_streams_finish(self):
        with Served("layer_split", "-c", "8192", "-np", "8") as served:
            client = served.client()

            def ask(i):
                chunks = list(client.completions.create(
                    model="x", prompt=f"Story {i}: once", max_tokens=12, temperature=0, stream=True,
                    extra_body={"ignore_eos": True}, stream_options={"include_usage": True}))
                return chunks[-1].usage.completion_tokens, chunks[-2].choices[0].finish_reason

            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                results = list(pool.map(ask, range(32)))
            self.assertEqual(results, [(12, "length")] * 32)
            self.assertEqual(served.metric("tandem_requests_running"), 0)
            self.assertEqual(served.metric("tandem_generated_tokens_total"), 32 * 12)

    def test_clients_that_leave_free_their_slots(self):
        with Served("single", "-c", "4096", "-np", "2") as served:
            client = served.client()
            streams = [client.completions.create(model="x", prompt="Once", max_tokens=2000,
                                                 stream=True, extra_body={"ignore_eos": True})
                       for _ in range(2)]
            for stream in streams:
                next(iter(stream))
            self.assertEqual(served.metric("tandem_requests_running"), 2)
            streams[0].close()
            served.wait_for_metric("tandem_requests_running", 1)
            # One that waits for a whole answer, and goes.
            body = json.dumps({"prompt": "Once", "max_tokens": 1500, "ignore_eos": True})
            waiting = socket.create_connection(("127.0.0.1", served.port))
            waiting.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                             f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
            served.wait_for_metric("tandem_requests_running", 2)
            waiting.close()
            streams[1].close()
            served.wait_for_metric("tandem_requests_running", 0)
            self.assertEqual(served.metric("tandem_kv_pages_used"), 0)

    def test_sigterm_lets_streams_finish(self):
        with Served("single") as served:
            stream = iter(served.client().completions.create(
                model="x", prompt="Once", max_tokens=60, stream=True,
                extra_body={"ignore_eos": True}))
            next(stream)
            served.process.send_signal(signal.SIGTERM)
            chunks = list(stream)
            self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        self.assertEqual(served.exit_code, 0)


class ProtocolTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.served = Served("single", "-c", "1024", "-np", "2", "--api-key", "secret",
                            "--no-retries").__enter__()
        cls.client = cls.served.client(api_key="secret")

    @classmethod
    def tearDownClass(cls):
        cls.served.__exit__()

    def post(self, path, body, key="secret"):
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.served.raw("POST", path, data, {"Authorization": "Bearer " + key})

    def test_errors_reach_the_client_as_its_own_classes(self):
        ask = self.client.completions.create
        with self.assertRaises(openai.BadRequestError) as caught:
            ask(model="x", prompt="word " * 2000, max_tokens=4)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.BadRequestError) as caught:
            ask(model="x", prompt="x", temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(
                model="x", messages=QUESTION, response_format={"type": "json_object"})
        self.assertEqual(caught.exception.param, "response_format")
        with self.assertRaises(openai.AuthenticationError):
            self.served.client(api_key="wrong").models.list()
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="x", input="x")

    def test_raw_errors_have_the_protocols_shape(self):
        cases = [
            ("malformed JSON", "/v1/completions", "{", 400),
            ("no object", "/v1/completions", "[]", 400),
            ("bad UTF-8", "/v1/completions", b'{"prompt":"\xff"}', 400),
            ("deep JSON", "/v1/completions", '{"prompt":' + "[" * 5_000_000, 400),
            ("no prompt", "/v1/completions", "{}", 400),
            ("empty prompt", "/v1/completions", {"prompt": ""}, 400),
            ("no messages", "/v1/chat/completions", {"messages": []}, 400),
            ("unknown role", "/v1/chat/completions",
             {"messages": [{"role": "god", "content": "x"}]}, 400),
            ("tools", "/v1/chat/completions", {"messages": QUESTION, "tools": [{}]}, 400),
            ("a token that is none", "/v1/completions", {"prompt": [10 ** 6]}, 400),
            ("a huge body", "/v1/completions", b"x" * (20 << 20), 413),
            ("wrong method", "/health", "", 405),
            ("nowhere", "/v2/completions", "{}", 404),
        ]
        for name, path, body, status in cases:
            with self.subTest(name):
                got, text, headers = self.post(path, body)
                self.assertEqual(got, status, text[:300])
                error = json.loads(text)["error"]
                self.assertEqual(set(error), {"message", "type", "param", "code"})
                self.assertEqual(headers["x-should-retry"], "false")
        self.assertEqual(self.post("/v1/completions", {"prompt": "x"}, key="wrong")[0], 401)
        self.assertEqual(self.served.raw("GET", "/health")[0], 200)

    def test_echo_scores_the_prompt_like_generation_does(self):
        prompt = "The capital of France is"
        made = self.client.completions.create(model="x", prompt=prompt, max_tokens=3, temperature=0,
                                              logprobs=2)
        scored = self.client.completions.create(
            model="x", prompt=prompt + made.choices[0].text, max_tokens=0, echo=True, logprobs=2)
        logprobs = scored.choices[0].logprobs
        self.assertEqual(scored.choices[0].text, prompt + made.choices[0].text)
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertEqual(logprobs.tokens[-3:], made.choices[0].logprobs.tokens)
        for a, b in zip(logprobs.token_logprobs[-3:], made.choices[0].logprobs.token_logprobs):
            self.assertAlmostEqual(a, b, delta=1e-3)

    def test_same_seed_same_text(self):
        ask = dict(model="x", prompt="Once upon a time", max_tokens=12, temperature=1.2, seed=5)
        first, second = (self.client.completions.create(**ask).choices[0].text for _ in range(2))
        self.assertEqual(first, second)

    def test_stop_and_token_routes(self):
        made = self.client.completions.create(model="x", prompt="1, 2, 3, 4,", max_tokens=40,
                                              temperature=0, stop=["8"])
        self.assertNotIn("8", made.choices[0].text)
        self.assertEqual(made.choices[0].finish_reason, "stop")
        text = "A caf\u00e9 \U0001f600<|im_end|>"
        tokens = json.loads(self.post("/tokenize", {"content": text})[1])["tokens"]
        back = json.loads(self.post("/detokenize", {"tokens": tokens})[1])["content"]
        self.assertEqual(back, text)
        prompt = json.loads(self.post("/apply-template", {"messages": QUESTION})[1])["prompt"]
        self.assertIn("<|im_start|>user\nName one colour.<|im_end|>", prompt)

    def test_a_taken_port_is_exit_code_7(self):
        second = subprocess.run(
            [TANDEM, "serve", "-m", MODEL, "--plugin", "single", "--devices", "1", "-c", "256",
             "--port", str(self.served.port)], capture_output=True, text=True, timeout=120)
        self.assertEqual(second.returncode, 7, second.stderr)
        self.assertIn("--port", second.stderr)


def main():
    global TANDEM, MODEL
    other = os.environ.get("TANDEM_TEST_PYTHON")
    # A virtual environment's interpreter is a link to the one outside: the paths differ, not the files.
    if openai is None and other and os.path.abspath(other) != os.path.abspath(sys.executable):
        os.environ.pop("TANDEM_TEST_PYTHON")
        os.execv(other, [other, *sys.argv])
    if openai is None:
        print("SKIPPED: the openai package is not importable by", sys.executable)
        return SKIP
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    TANDEM = sys.argv[1]
    MODEL = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("TANDEM_TEST_MODEL")
    if not MODEL:
        print("SKIPPED: no model; give one, or set TANDEM_TEST_MODEL")
        return SKIP
    program = unittest.main(argv=[sys.argv[0]], exit=False, verbosity=2)
    return 0 if program.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
