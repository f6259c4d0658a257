"""The comparison with transformers, without transformers: a stand-in answers as the peer would."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"
TANDEM = sys.argv.pop()
SHAPE = "synthetic:h=64,l=1,heads=2,kv=1,ffn=64,vocab=64,type=bf16"

# Takes the place of Python: says what it was asked to be, and half a second for everything.
STAND_IN = """#!/usr/bin/env python3
import json, sys
shape = json.loads(sys.argv[2])
assert shape["architecture"] == "llama" and shape["shape"]["hidden"] == 64, shape
print(json.dumps({"ready": True, "torch": "none", "transformers": sys.argv[6], "parameters": 10**6, "device": "stand-in"}), flush=True)
for line in sys.stdin:
    assert set(json.loads(line)) <= {"prompt", "generate"}
    print(json.dumps({"seconds": 0.5}), flush=True)
"""


def compare(*args):
    return subprocess.run([sys.executable, TOOLS / "compare-transformers", "--tandem", TANDEM, *map(str, args)],
                          capture_output=True, text=True, timeout=60)


class CompareTransformers(unittest.TestCase):
    def test_table_with_a_stand_in(self):
        with tempfile.TemporaryDirectory() as folder:
            stand_in = pathlib.Path(folder) / "python"
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)
            done = compare("--python", stand_in, "--device", "cpu", "--shapes", SHAPE, "-p", 32, "-n", 8, "-r", 2, "-t", 1, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual((report["fidelity"], report["mode"], report["peer"]["transformers"]), ("measured", "eager", "eager"))
            prefill, decode = report["rows"]
            self.assertEqual((prefill["test"], prefill["transformers_ts"]), ("prefill 32", 64))
            self.assertEqual((decode["test"], decode["transformers_ts"]), ("decode 8", 16))
            self.assertAlmostEqual(decode["ratio"], decode["tandem_ts"] / 16)
            self.assertEqual(len(report["samples"][SHAPE]["tandem"]), 2)

    def test_refusals(self):
        for args, status, said in [
                (["--device", "cpu", "--mode", "graph"], 2, "want a GPU"),
                (["--device", "tpu:0"], 2, "'tpu:0', want cpu or cuda:N"),
                (["--device", "cpu", "--shapes", "llama-3.2-1b-q4_0"], 1, "want bf16"),
                (["--device", "cpu", "--shapes", SHAPE, "--python", "/nowhere"], 1, "--python /nowhere"),
                (["--device", "cpu", "--shapes", SHAPE, "--python", "/bin/true"], 1, "the peer ended")]:
            done = compare(*args)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
