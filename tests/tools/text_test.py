"""A model with a SentencePiece vocabulary, from the command line to the chat: tokenize, render, generate, serve.

usage: text_test.py PATH_OF_TANDEM. The model is a tiny random one, given the vocabulary of
tests/golden/tokenizer/sentencepiece.json and a chat template in the manner of Llama 2's.
"""
import http.client
import json
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

TANDEM = sys.argv.pop(1)
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOLDEN = json.loads((ROOT / "tests/golden/tokenizer/sentencepiece.json").read_text())["with_bytes"]
TEMPLATE = ("{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
            "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}")
CHAT = [{"role": "user", "content": "Two cards?"}]


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, payload):
    return string(key) + struct.pack("<I", kind) + payload


def array(key, kind, elements):
    return entry(key, 9, struct.pack("<IQ", kind, len(elements)) + b"".join(elements))


def with_vocabulary(path):
    """Puts the metadata in front of the file's own, in a multiple of its alignment: nothing else moves."""
    pieces = GOLDEN["pieces"]
    entries = [
        entry("tokenizer.ggml.model", 8, string("llama")),
        array("tokenizer.ggml.tokens", 8, [string(piece) for piece, _, _ in pieces]),
        array("tokenizer.ggml.scores", 6, [struct.pack("<f", score) for _, score, _ in pieces]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", kind) for _, _, kind in pieces]),
        entry("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", GOLDEN["bos"])),
        entry("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", GOLDEN["eos"])),
        entry("tokenizer.chat_template", 8, string(TEMPLATE)),
    ]
    filler = len(entry("filler", 8, string("")))
    entries.append(entry("filler", 8, string("x" * (-(sum(map(len, entries)) + filler) % 32))))
    data = path.read_bytes()
    version, tensors, pairs = struct.unpack_from("<IQQ", data, 4)
    header = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs + len(entries))
    # The file says that it has no vocabulary; a key of the same length takes that one's place.
    rest = data[24:].replace(b"tokenizer.ggml.model", b"tokenizer.test.model", 1)
    path.write_bytes(header + b"".join(entries) + rest)


def tandem(*args, stdin=""):
    run = subprocess.run([TANDEM, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, f"{args}: exit {run.returncode}: {run.stderr}"
    return run.stdout


class SentencePieceModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = pathlib.Path(cls.folder.name) / "tiny.gguf"
        shape = f"h=64,l=2,heads=4,kv=2,ffn=128,vocab={len(GOLDEN['pieces'])},ctx=256,seed=3,type=f32"
        tandem("models", "synthesize", shape, "-o", cls.model)
        with_vocabulary(cls.model)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_tokenize(self):
        cases = [case for case in GOLDEN["cases"] if case[0]][:60]
        texts = json.dumps([text for text, _ in cases])
        got = json.loads(tandem("tokenize", "-m", self.model, "--batch", "--no-bos", "--no-parse-special", stdin=texts))
        self.assertEqual(got, [ids for _, ids in cases])

    def test_tokenize_puts_bos_first_and_decode_gives_the_text_back(self):
        told = json.loads(tandem("tokenize", "-m", self.model, "--json", "-", stdin="The link"))
        self.assertEqual(told["ids"][0], GOLDEN["bos"])
        self.assertEqual("".join(told["pieces"]), "<s> The link")
        ids = json.loads(tandem("tokenize", "-m", self.model, "--ids", "The link"))
        self.assertEqual(ids, told["ids"])
        self.assertEqual(tandem("tokenize", "-m", self.model, "--decode", ",".join(map(str, ids))), "The link\n")

    def test_render(self):
        self.assertEqual(tandem("render", "-m", self.model, "-", stdin=json.dumps(CHAT)), "<s>[INST] Two cards? [/INST]")

    def test_generate(self):
        once = json.loads(tandem("generate", "-m", self.model, "-p", "The link", "-n", "8", "--json"))
        self.assertEqual(once["prompt_ids"][0], GOLDEN["bos"])
        begun = json.loads(tandem("generate", "-m", self.model, "-p", "<s>The link", "-n", "8", "--json"))
        self.assertEqual(begun["prompt_ids"], once["prompt_ids"], "BOS stands once")

    def test_chat(self):
        server = subprocess.Popen([TANDEM, "serve", "-m", self.model, "--port", "0"], stderr=subprocess.PIPE, text=True)
        try:
            port = next(int(found.group(1)) for line in server.stderr
                        if (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)))

            def post(path, body):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                self.assertEqual(answer.status, 200, text)
                return json.loads(text)

            prompt = post("/apply-template", {"messages": CHAT})["prompt"]
            self.assertEqual(prompt, "<s>[INST] Two cards? [/INST]")
            ids = post("/tokenize", {"content": prompt})["tokens"]
            self.assertEqual([ids[0], ids[1], ids[-1]], [GOLDEN["bos"], 3, 4])
            plain = post("/tokenize", {"content": "a b"})["tokens"]
            self.assertEqual(post("/detokenize", {"tokens": plain})["content"], "a b")
            options = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
            chat = post("/v1/chat/completions", {"messages": CHAT, **options})
            self.assertEqual(chat["usage"]["prompt_tokens"], len(ids), "one BOS, and it is the template's")
            text = post("/v1/completions", {"prompt": prompt, **options})["choices"][0]["text"]
            # A completion goes on from its prompt; an answer is a text of its own.
            answer = chat["choices"][0]["message"]["content"]
            self.assertEqual(answer, text[1:] if text.startswith(" ") else text)
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)


if __name__ == "__main__":
    unittest.main()
