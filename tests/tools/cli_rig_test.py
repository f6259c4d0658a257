"""tandem rig probe as scripts use it: on CPU devices, quickly. What it writes is used at once.

usage: cli_rig_test.py PATH_OF_TANDEM
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.request

TANDEM = sys.argv.pop(1)
TINY = "synthetic:h=96,l=3,heads=6,kv=3,hd=32,ffn=192,vocab=640,ctx=512,seed=5,type=q8_0"


def tandem(*args, timeout=240, **kwargs):
    return subprocess.run([TANDEM, *map(str, args)], capture_output=True, text=True, timeout=timeout, **kwargs)


class RigProbe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.file = pathlib.Path(cls.folder.name) / "new" / "rig.yaml"
        cls.done = tandem("rig", "probe", "--quick", "--devices", "cpu:0,cpu:1", "--out", cls.file, "--json")
        assert cls.done.returncode == 0, cls.done.stderr
        cls.json = json.loads(cls.done.stdout)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_what_was_measured_is_told_and_written(self):
        measured = self.json["measured"]
        self.assertEqual(measured["devices"], "cpu:0,cpu:1")
        self.assertRegex(measured["date"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        figures = {f["what"]: f for f in measured["figures"] if f["device"] == 0}
        for what in ["memory read", "memory copy, read and written", "products of int8", "products of f32",
                     "launch gap, eager", "products of a prompt", "weights read by products of one row"]:
            value = figures[what]["value"]
            self.assertGreater(value["median"], 0, what)
            self.assertLessEqual(value["low"], value["median"], what)
            self.assertLessEqual(value["median"], value["high"], what)
            self.assertTrue(figures[what]["unit"], what)
        self.assertIn("no graphs", figures["launch gap, in a graph"]["absent"])
        movements = {(p["path"], p["what"]) for p in measured["paths"] if p["points"]}
        for path in ["local", "host_staged"]:
            for what in ["d0 to d1", "d1 to d0", "d0 and d1 at once", "all-reduce of d0 and d1"]:
                self.assertIn((path, what), movements)
        self.assertIn(("local", "host to d1"), movements)
        self.assertTrue(all(c["verdict"] == "not_available" and c["why"] for c in measured["counters"]))
        for device in self.json["devices"]:
            self.assertTrue(device["source"].startswith("measured " + measured["date"]), device["source"])
        self.assertTrue(self.json["link"]["source"].startswith("measured "))
        self.assertIn("wrote", self.done.stderr)
        self.assertRegex(self.done.stderr, r"\d+/\d+ ", "progress")

    def test_the_file_is_a_rig(self):
        shown = json.loads(tandem("rig", "show", self.file, "--json").stdout)
        for key in ["devices", "link", "host_link", "measured"]:
            self.assertEqual(shown[key], self.json[key], key)
        priced = json.loads(tandem("predict", "-m", "llama-3.2-1b", "--rig", self.file, "--json").stdout)
        fits = [p for p in priced["predictions"] if "refused" not in p]
        self.assertGreaterEqual(len(fits), 4, priced)
        for p in fits:
            self.assertGreater(p["decode"]["tokens_per_s"], 0)
        done = tandem("generate", "-m", TINY, "--prompt-ids", "1,2,3", "-n", "4", "--rig", self.file, "--plugin",
                      "tensor_split", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_serves_on_it(self):
        with subprocess.Popen([TANDEM, "serve", "-m", TINY, "--rig", str(self.file), "--plugin", "layer_split",
                               "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            try:
                url = None
                for line in server.stderr:
                    found = re.search(r"http://[0-9.:]+", line)
                    if found:
                        url = found.group()
                        break
                self.assertIsNotNone(url, "says where it listens")
                body = json.dumps({"prompt": [1, 2, 3], "max_tokens": 3, "temperature": 0}).encode()
                request = urllib.request.Request(url + "/v1/completions", body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.assertEqual(json.load(answer)["usage"]["completion_tokens"], 3)
            finally:
                server.terminate()
                server.stderr.read()

    def test_a_file_that_is_there_is_kept(self):
        before = self.file.read_text()
        done = tandem("rig", "probe", "--quick", "--out", self.file)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--force", done.stderr)
        self.assertEqual(self.file.read_text(), before)

    def test_refusals_come_before_measuring(self):
        for code, text, args in [(2, "is a folder", ["--out", self.folder.name]),
                                 (2, "--devices", ["--devices", "gpu:7", "--out", self.folder.name + "/x.yaml"]),
                                 (2, "--threads", ["--threads", "-1", "--out", self.folder.name + "/x.yaml"])]:
            done = tandem("rig", "probe", *args)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(text, done.stderr)
        self.assertFalse(pathlib.Path(self.folder.name, "x.yaml").exists())


if __name__ == "__main__":
    unittest.main()
