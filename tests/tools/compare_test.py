"""The comparisons with llama.cpp, without llama.cpp: what they say of bad input, and how they judge."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"


def tool(name, *args, folder):
    environment = {**os.environ, "TANDEM_PEER_DIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, TOOLS / name, *args], capture_output=True, text=True, env=environment, timeout=60)


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(TOOLS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Usage(unittest.TestCase):
    def test_help_and_bad_types(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ["compare-llama-cpp", "compare-truth"]:
                done = tool(name, "--help", folder=folder)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("--types q4_1", done.stdout)
                done = tool(name, "--types", "q9_9", folder=folder)
                self.assertEqual(done.returncode, 2)
                self.assertIn("'q9_9'", done.stderr)
                self.assertEqual(os.listdir(folder), [], "neither leaves anything behind")

    def test_no_program_is_said_before_anything_is_fetched(self):
        with tempfile.TemporaryDirectory() as folder:
            done = tool("compare-llama-cpp", "--tandem", folder + "/none", folder=folder)
            self.assertEqual(done.returncode, 1)
            self.assertIn("no tandem at", done.stderr)
            self.assertEqual(os.listdir(folder), ["models"])


class Judgement(unittest.TestCase):
    compare = load("compare-llama-cpp")

    def rows(self, tier, name="q4_1", share=0.8, ours=(300.0, 400.0), theirs=(100.0, 300.0)):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\0" * 2_000_000)
            file.flush()
            samples = ([{"prefill": ours[0], "decode": ours[1], "read_share": share, "probe": 4e10, "step_bytes": 1e8}] * 3,
                       [{"prefill": theirs[0], "decode": theirs[1]}] * 3)
            return self.compare.single_rows(name, pathlib.Path(file.name), samples, tier)

    def test_bars_follow_the_tier(self):
        decode, prefill = self.rows("A")
        self.assertEqual((decode["bar"], prefill["bar"]), (1.15, 3.0))
        self.assertTrue(decode["pass"] and decode["read_pass"] and prefill["pass"])
        self.assertEqual(decode["megabytes"], 2.0)
        self.assertEqual([r["bar"] for r in self.rows("B", "bf16")], [1.15, 2.0])
        self.assertEqual([r["bar"] for r in self.rows("A", "bf16")], [1.0, 0.9])
        self.assertEqual([r["pass"] for r in self.rows("-")], [None, None])

    def test_below_the_bar_is_a_miss(self):
        decode, prefill = self.rows("A", ours=(299.0, 344.0), share=0.74)
        self.assertEqual((decode["pass"], decode["read_pass"], prefill["pass"]), (False, False, False))

    def test_an_engine_that_failed_has_no_ratio(self):
        row = self.compare.judge("decode 128", ([], [{"decode": 100.0}]), "decode", 1.15)
        self.assertEqual((row["ratio"], row["best_ratio"], row["pass"], row["llama_cpp_ts"]), (None, None, None, 100.0))

    def test_medians_are_over_rounds_and_a_failed_side_is_not_asked_again(self):
        asked, values = [], iter([1.0, 9.0, 2.0])

        def fails():
            asked.append(1)

        ours, theirs = self.compare.in_turn(3, lambda: {"decode": next(values)}, fails, "x")
        self.assertEqual(self.compare.median(ours, "decode"), 2.0)
        self.assertEqual((theirs, len(asked)), ([], 1))


class Recipes(unittest.TestCase):
    def test_every_type_of_both_tools_can_be_made(self):
        peer = sys.modules["llama_cpp"]
        made = {"q4_1", *peer.RECIPES}
        self.assertLessEqual(set(Judgement.compare.TYPES), made)
        self.assertLessEqual(set(load_truth_types()), made)

    def test_the_text_and_the_prompts_are_there(self):
        golden = TOOLS.parent / "tests/golden"
        self.assertGreater((golden / "text/opticks.txt").stat().st_size, 30_000)
        self.assertGreater(json.loads((golden / "logits/smollm2-135m.json").read_text())["positions"], 2000)


class Truth(unittest.TestCase):
    def test_distance_by_hand(self):
        try:
            import numpy as np
            import truth  # tools/peer, on the path since compare-llama-cpp was loaded
        except ImportError as missing:
            self.skipTest(f"{missing}: compare-truth installs it where it is wanted")
        probabilities = np.array([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]])
        other = np.array([[0.25, 0.5, 0.25], [0.2, 0.5, 0.3]])
        distance = truth.Distance()
        distance.add("kl", [0, 1], np.log(probabilities), np.log(other))
        summary = distance.summary()
        self.assertAlmostEqual(summary["kl"], (0.5 * np.log(2) - 0.25 * np.log(2)) / 2)
        self.assertEqual((summary["positions"], summary["flips"]), (2, 1))
        self.assertAlmostEqual(summary["widest_flip"], np.log(2))
        self.assertIsNone(summary["perplexity"])
        text = truth.Distance()
        # Four tokens: the second half is scored, which here is what row 2 says of token 3.
        text.add("text", [0, 0, 0, 2], None, np.log(np.array([[0.2, 0.3, 0.5]] * 4)).astype(np.float32))
        self.assertAlmostEqual(text.summary()["perplexity"], 2.0, places=5)


def load_truth_types():
    """compare-truth wants numpy, so its list is read from its source."""
    for line in (TOOLS / "compare-truth").read_text().splitlines():
        if line.startswith("TYPES = "):
            return json.loads(line.removeprefix("TYPES = "))
    raise AssertionError("compare-truth has no TYPES")


if __name__ == "__main__":
    unittest.main(verbosity=1)
