"""Model files on the command line: split files, safetensors folders, inspect and verify.

usage: cli_models_test.py PATH_OF_TANDEM. The default model's file is taken from TANDEM_TEST_MODEL; the test that needs
it skips with its reason when it is unset.
"""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

TANDEM = sys.argv.pop(1)
MODEL = os.environ.get("TANDEM_TEST_MODEL", "")
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
GOLDEN = TOOLS.parent / "tests" / "golden" / "huggingface"
SHAPE = "h=64,l=2,heads=4,kv=2,ffn=96,vocab=320,type=q4_1,seed=3"


def load_script(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(TOOLS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def tandem(*args, timeout=120):
    return subprocess.run([TANDEM, *map(str, args)], capture_output=True, text=True, timeout=timeout)


class ModelFiles(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def run_ok(self, *args):
        done = tandem(*args)
        self.assertEqual(done.returncode, 0, f"{args}: {done.stderr}")
        return done.stdout

    def json_of(self, *args, code=0):
        done = tandem(*args, "--json")
        self.assertEqual(done.returncode, code, f"{args}: {done.stderr}")
        return json.loads(done.stdout)

    def tokens(self, model):
        return self.run_ok("generate", "-m", model, "--prompt-ids", "1,2,3", "-n", "6", "--temp", "0")

    def folder_model(self):
        seeds = load_script("make-fuzz-corpus")
        weights, _ = seeds.safetensors()
        path = self.folder / "hf"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(seeds.config()))
        (path / "model.safetensors").write_bytes(weights)
        return path

    def test_a_split_model_is_the_whole_model(self):
        whole = self.folder / "whole.gguf"
        self.run_ok("models", "synthesize", SHAPE, "-o", whole)
        made = self.json_of("models", "synthesize", SHAPE, "-o", self.folder / "cut.gguf", "--split", "3")
        self.assertEqual([pathlib.Path(p).name for p in made["paths"]],
                         [f"cut-0000{i}-of-00003.gguf" for i in (1, 2, 3)])
        for part in made["paths"]:
            self.assertEqual(self.tokens(part), self.tokens(whole))
        os.remove(made["paths"][1])
        done = tandem("generate", "-m", made["paths"][0], "--prompt-ids", "1", "-n", "1")
        self.assertEqual(done.returncode, 3)
        self.assertIn("part 2 of 3 is missing", done.stderr)

    def test_a_safetensors_folder_is_a_model_everywhere(self):
        path = self.folder_model()
        self.assertTrue(self.tokens(path))
        self.run_ok("plan", "show", "-m", path, "--devices", "2", "--plugin", "layer_split")
        self.assertEqual(self.json_of("models", "show", path)["architecture"], "llama")
        self.assertEqual(self.json_of("models", "verify", path)["ok"], True)
        about = self.json_of("models", "inspect", path)
        self.assertEqual((about["format"], about["supported"]), ("safetensors", True))
        needs = about["needs"]
        self.assertGreater(needs["packed_bytes"], 0)
        shown = self.json_of("plan", "show", "-m", path, "--plugin", "single", "-c", str(needs["context"]))
        self.assertEqual(needs["memory"], {**shown["memory"][0], "capacity": 0})
        shutil.copy(GOLDEN / "smollm" / "tokenizer.json", path)
        done = tandem("generate", "-m", path, "--prompt-ids", "1", "-n", "1")
        self.assertEqual(done.returncode, 3)  # 319 tokens, 8 rows
        self.assertIn("tokenizer.json", done.stderr)
        self.assertEqual(len(json.loads(self.run_ok("tokenize", "-m", path, "--ids", "the plan"))), 2)
        (path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages[0].content }}!"}')
        self.assertEqual(self.run_ok("render", "-m", path, '[{"role": "user", "content": "Hi"}]'), "Hi!")

    def test_verify_finds_numbers_that_are_none(self):
        path = self.folder / "nan.gguf"
        self.run_ok("models", "synthesize", SHAPE.replace("q4_1", "f32"), "-o", path)
        self.assertEqual(self.json_of("models", "verify", path)["ok"], True)
        content = bytearray(path.read_bytes())
        content[-8:-4] = struct.pack("<f", float("nan"))
        path.write_bytes(content)
        report = self.json_of("models", "verify", path, code=3)
        self.assertEqual((report["ok"], report["findings"][0]["nans"]), (False, 1))
        self.assertIn("1 NaN", tandem("models", "verify", path).stdout)
        done = tandem("generate", "-m", path, "--prompt-ids", "1,2,3", "-n", "6")  # says so, and ends
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("a logit is not a number", done.stderr)

    def test_a_cut_file_is_told_by_one_line_and_the_exit_code(self):
        path = self.folder / "cut.gguf"
        self.run_ok("models", "synthesize", SHAPE, "-o", path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        report = self.json_of("models", "verify", path, code=3)
        self.assertEqual((report["ok"], report["skipped"]), (False, []))
        self.assertGreater(len(report["damaged"]), 1)
        # The last tensor may be followed by padding.
        self.assertLess(abs(report["missing_bytes"] - (len(whole) - len(whole) // 2)), 64)
        done = tandem("models", "verify", path)
        self.assertEqual(done.stdout.count("truncated"), 1, done.stdout)
        self.assertIn(f"damaged  {len(report['damaged'])} of {report['tensors']} tensors", done.stdout)
        self.assertIn(f"ends {report['missing_bytes']} bytes", done.stdout)
        self.assertNotIn("types that tandem does not read", done.stdout)
        self.assertEqual(self.json_of("models", "inspect", path, code=3)["damaged"], len(report["damaged"]))
        self.assertEqual(tandem("models", "inspect", path).returncode, 3)

    def test_inspect_goes_on_where_loading_stops(self):
        path = self.folder_model()
        config = json.loads((path / "config.json").read_text())
        config["architectures"] = ["MambaForCausalLM"]
        (path / "config.json").write_text(json.dumps(config))
        about = self.json_of("models", "inspect", path)
        self.assertEqual((about["supported"], about["needs"]), (False, None))
        self.assertIn("MambaForCausalLM", about["lacks"][0])
        text = self.run_ok("models", "inspect", path)
        self.assertIn("tandem does not run it", text)
        self.assertEqual(tandem("generate", "-m", path, "--prompt-ids", "1", "-n", "1").returncode, 3)

    def test_what_is_no_model_is_exit_code_3(self):
        (self.folder / "x.gguf").write_bytes(b"hello")
        for command in ("inspect", "verify"):
            self.assertEqual(tandem("models", command, self.folder / "x.gguf").returncode, 3)
            self.assertEqual(tandem("models", command, str(self.folder) + "/").returncode, 3)

    def test_the_default_model_is_known_by_its_hash(self):
        if not MODEL:
            self.skipTest("TANDEM_TEST_MODEL is not set: no default model to verify")
        report = self.json_of("models", "verify", MODEL)
        self.assertEqual(report["files"][0]["known_as"], "SmolLM2-135M-Instruct.Q4_1.gguf")
        self.assertIn(report["files"][0]["sha256"], (TOOLS / "setup.sh").read_text())


if __name__ == "__main__":
    unittest.main(verbosity=1)
