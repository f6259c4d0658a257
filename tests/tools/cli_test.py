"""The command line as scripts use it: exit codes, JSON fields, bytes by their closed forms.

usage: cli_test.py PATH_OF_TANDEM. The default model's file is taken from TANDEM_TEST_MODEL; tests that need it
skip with their reason when it is unset.
"""
import array
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TANDEM = sys.argv.pop(1)
MODEL = os.environ.get("TANDEM_TEST_MODEL", "")
# A shape with 3 KV heads, so that two devices get 2 and 1.
TINY = "synthetic:h=96,l=3,heads=6,kv=3,hd=32,ffn=192,vocab=640,ctx=512,seed=5,type="

# The same in blocks of 256.
WIDE = "synthetic:h=256,l=2,heads=6,kv=3,hd=128,ffn=768,vocab=640,ctx=512,seed=5,type="

# As `tandem rig probe` writes it of two cards.
PROBED = """name: probed
description: Two cards
devices:
  - name: Card
    count: 2
    memory_gib: 24
    memory_gb_per_s: 900
    tflops: 70
    compute_efficiency: 0.5
    launch_gap_us: 4
    replay_gap_us: 1
    source: measured
link: nvlink3-bridge
host_link: pcie4-x16
host_memory_gib: 64
measured:
  date: "2026-11-25T12:00:00Z"
  tandem: "0.1.0"
  devices: "cuda:0,cuda:1"
  facts: []
  figures:
    - {device: 0, what: "products of bf16", unit: "TFLOP/s", value: [70, 69, 71, 11]}
    - {device: 1, what: "products of bf16", unit: "TFLOP/s", value: [70, 69, 71, 11]}
  paths: []
  counters: []
"""


def tandem(*args, timeout=120):
    return subprocess.run([TANDEM, *map(str, args)], capture_output=True, text=True, timeout=timeout)


def tandem_json(*args, timeout=120):
    done = tandem(*args, "--json", timeout=timeout)
    assert done.returncode == 0, f"{args}: exit {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


PLUGINS = [plugin["name"] for plugin in tandem_json("plugins", "list")]


class ExitCodes(unittest.TestCase):
    def expect(self, code, *args, text=""):
        done = tandem(*args)
        self.assertEqual(done.returncode, code, f"{args}: {done.stderr}")
        self.assertIn(text, done.stderr)
        self.assertNotIn("terminate called", done.stderr)

    def test_help_and_version(self):
        done = tandem("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("Examples:", done.stdout)
        self.assertEqual(tandem("--version").returncode, 0)

    def test_every_command_has_help_that_leads_with_examples(self):
        commands = ["serve", "run", "report", "rig", "plan", "predict", "bench", "perplexity",
                    "generate", "models", "plugins", "tokenize", "render"]
        for command in [[], *([c] for c in commands), ["plan", "show"], ["plan", "check"]]:
            done = tandem(*command, "--help")
            self.assertEqual(done.returncode, 0, command)
            example, usage = done.stdout.find("Example"), done.stdout.find("Usage:")
            self.assertTrue(0 <= example < usage, (command, done.stdout))

    def test_unknown_commands_are_named(self):
        self.expect(2, "genrate", text="no command 'genrate' (did you mean 'generate'?)")
        self.expect(2, "plan", "chek", text="no command 'chek' (did you mean 'check'?)")

    def test_usage(self):
        self.expect(2)
        self.expect(2, "generate")
        self.expect(2, "generate", "--plugn", "single", "-p", "x", text="--plugin")
        self.expect(2, "servee", text="serve")
        self.expect(2, "generate", "-m", TINY + "f32", "--prompt-ids", "1", "--wire", "f64", text="--wire")

    def test_values_that_no_flag_takes(self):
        ids = ["generate", "-m", TINY + "f32", "--prompt-ids", "1,2"]
        for extra, text in ((["-n", -1], "got '-1', want a whole number, not negative"), (["-n", "abc"], "want a whole number"),
                            (["--temp", "warm"], "got 'warm', want a number"), (["-ngl", 99], "--devices"), (["-np", 0], "range 1 to 4096"),
                            (["-c", 0], "range 1 to "), (["-p", "x"], "excludes"), (["--gpu-share", "foo"], "foo")):
            self.expect(2, *ids, *extra, text=text)
        self.expect(2, "generate", "-m", TINY + "f32", "--prompt-ids", "1,,2", text="want token ids")

    def test_a_server_refuses_values_that_it_cannot_hold(self):
        serve = ["serve", "-m", TINY + "f32", "--port", 0]
        for extra, text in ((["--api-key", ""], "empty"), (["--timeout", -1], "range"), (["--shutdown-timeout", -1], "range"),
                            (["--threads-http", 0], "range"), (["-a", ""], "want a name"), (["--host", "bogus.invalid"], "bogus")):
            self.expect(2, *serve, *extra, text=text)

    def test_models(self):
        self.expect(3, "models", "path", "no-such-model", text="no-such-model")
        self.expect(3, "generate", "-m", "/dev/null", "-p", "x")
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(b"GGUF\x09\0\0\0")
            file.flush()
            self.expect(3, "generate", "-m", file.name, "-p", "x", text="version")

    def test_an_instruction_tier_that_the_processor_lacks(self):
        self.expect(2, "generate", "-m", TINY + "q8_0", "--prompt-ids", "1", "--cpu-tier", "avx9000", text="want auto, ")
        if " amx_int8 " in pathlib.Path("/proc/cpuinfo").read_text():
            self.skipTest("this processor has AMX")
        self.expect(2, "generate", "-m", TINY + "q8_0", "--prompt-ids", "1", "--cpu-tier", "amx", text="tier 'amx' is not one")

    def test_plans_and_plugins(self):
        self.expect(4, "plan", "check", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "single", text="d0")
        self.expect(5, "plan", "show", "-m", TINY + "f32", "--plugin", "/no/such/plugin.so")
        self.expect(3, "generate", "-m", "/no/such/model.gguf", "-p", "x", text="No such file")
        done = tandem("plan", "show", "-m", TINY + "f32", "--plugin", "tensor_splt")
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("tensor_split", done.stderr)

    def test_a_plan_by_hand(self):
        text = tandem("plan", "show", "-m", TINY + "f32", "--plugin", "layer_split", "--devices", 2, "--text").stdout
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "my.plan"
            path.write_text(text)
            accepted = tandem_json("plan", "check", "-m", TINY + "f32", "--plugin", "file", "--plan", path, "--devices", 2)
            self.assertTrue(accepted["accepted"])
            path.write_text(text.replace(" d1\n", " d9\n", 1))
            self.expect(4, "plan", "check", "-m", TINY + "f32", "--plugin", "file", "--plan", path, "--devices", 2)
            ops = [l for l in text.splitlines(True) if " add b" in l]
            path.write_text(text.replace(ops[2], "", 1))
            self.expect(4, "plan", "check", "-m", TINY + "f32", "--plugin", "file", "--plan", path, "--devices", 2)


class PlanShow(unittest.TestCase):
    """h=96, L=3, vocabulary 640 in ten units of 64: two devices get five each."""

    def hops(self, plugin, devices=2, wire="f32", extra=()):
        shown = tandem_json("plan", "show", "-m", TINY + "q4_1", "--plugin", plugin, "--devices", devices, "--wire", wire, *extra)
        for row in shown["memory"]:
            self.assertEqual(set(row), {"device", "weights", "slots", "kv", "activations", "workspace", "links",
                                        "capacity"})
        self.assertEqual(shown["memory"][-1]["device"], "host")
        totals = {}
        for row in shown["traffic"]:
            self.assertEqual(set(row), {"phase", "src", "dst", "path", "bytes", "rows", "bytes_per_token"})
            totals[row["phase"], row["src"], row["dst"]] = totals.get((row["phase"], row["src"], row["dst"]), 0) + row["bytes"]
        return totals

    def test_single_and_replicas_move_nothing_between_devices(self):
        for plugin in ["single", "replicas"]:
            self.assertFalse([k for k in self.hops(plugin) if "host" not in k], plugin)

    def test_layer_split(self):
        hops = self.hops("layer_split")
        self.assertEqual(hops["prefill", "d0", "d1"], 512 * 96 * 4)
        self.assertEqual(hops["decode", "d0", "d1"], 96 * 4)
        self.assertNotIn(("decode", "d1", "d0"), hops)
        self.assertEqual(self.hops("layer_split", wire="bf16")["prefill", "d0", "d1"], 512 * 96 * 2)

    def test_tensor_split(self):
        hops = self.hops("tensor_split")
        for src, dst in [("d0", "d1"), ("d1", "d0")]:
            self.assertEqual(hops["prefill", src, dst], 7 * 512 * 96 * 4 + 320 * 4)
            self.assertEqual(hops["decode", src, dst], 7 * 96 * 4 + 320 * 4)

    def test_uneven_tensor_split_follows_the_vocabulary(self):
        hops = self.hops("tensor_split", extra=("-ts", "4,1"))
        self.assertEqual(hops["decode", "d0", "d1"] - hops["decode", "d1", "d0"], (512 - 128) * 4)

    def test_three_devices(self):
        hops = self.hops("tensor_split", devices=3)
        pairs = [v for k, v in hops.items() if k[0] == "prefill" and "host" not in k]
        self.assertEqual(len(pairs), 6)
        # Each rank sends 2 (D-1)/D of the activation in each of 2L+1 all-reduces; its logits go to the others.
        self.assertEqual(sum(pairs), 7 * 2 * 2 * 512 * 96 * 4 + 2 * 640 * 4)

    def test_offload_fetches_stored_bytes(self):
        hops = self.hops("offload", extra=("--knob", "resident_layers=0"))
        # Q4_1 takes 20 bytes a block of 32: q, k, v, o and the three MLP matrices of three layers.
        layer = (192 * 96 + 96 * 96 + 96 * 96 + 96 * 192 + 3 * 192 * 96) // 32 * 20
        self.assertEqual(hops["decode", "host", "d0"], 3 * layer)


class Generate(unittest.TestCase):
    def generate(self, model, plugin, devices, *extra):
        shown = tandem_json("generate", "-m", model, "--prompt-ids", "1,2,3,5,8,13,21,34,55,89", "-n", 12, "--temp", 0,
                            "--ignore-eos", "--plugin", plugin, "--devices", devices, *extra)
        self.assertEqual(shown["prompt_ids"][:3], [1, 2, 3])
        self.assertEqual(len(shown["token_ids"]), 12)
        self.assertEqual(shown["plugin"], plugin)
        self.assertEqual(len(shown["plan_hash"]), 64)
        return shown["token_ids"]

    def test_every_weight_type_and_split_gives_the_same_tokens(self):
        for weight_type in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"]:
            model = (WIDE if weight_type.endswith("_k") else TINY) + weight_type
            want = self.generate(model, "single", 1)
            for plugin in PLUGINS:
                for devices in [1, 2]:
                    self.assertEqual(self.generate(model, plugin, devices), want, (weight_type, plugin, devices))

    def test_auto_names_the_chosen_plugin(self):
        shown = tandem_json("generate", "-m", TINY + "f32", "--prompt-ids", "1,2", "-n", 2, "--plugin", "auto", "--devices", 2)
        self.assertIn(shown["plugin"], PLUGINS)
        self.assertEqual(shown["plugin_requested"], "auto")

    def test_rates_of_an_emulated_rig_are_those_of_rig_time(self):
        for clock in ["wall", "virtual"]:
            args = ["generate", "-m", TINY + "q4_1", "--prompt-ids", "1,2,3", "-n", 8, "--ignore-eos", "--plugin", "tensor_split",
                    "--rig", "2xh100-sxm", "--clock", clock]
            told = tandem(*args).stderr
            shown = re.search(r"rig 2xh100-sxm, in rig time: prompt 3 tokens, [\d.]+ tokens/s \| decode ([\d.]+) tokens/s", told)
            self.assertIsNotNone(shown, told)
            self.assertIn("on its wall clock: prompt", told)
            decode = tandem_json(*args)["decode"]
            want = decode["steps"] / (decode["step_time_ns"] * 1e-9)
            # Measured op times differ from run to run; the CPU's own rate is far from the rig's.
            self.assertLess(abs(math.log(float(shown[1]) / want)), math.log(3), (told, want))

    def test_a_full_context_is_said(self):
        args = ["generate", "-m", TINY + "q4_1", "--prompt-ids", "1,2,3", "--ignore-eos", "-c", 64, "-n"]
        self.assertIn("context of 64 tokens was full", tandem(*args, 100).stderr)
        self.assertTrue(tandem_json(*args, 100)["context_full"])
        self.assertNotIn("was full", tandem(*args, 8).stderr)
        self.assertFalse(tandem_json(*args, 8)["context_full"])

    def test_a_written_model_generates_as_the_generated_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "tiny.gguf")
            spec = (TINY + "q8_0").removeprefix("synthetic:")
            self.assertEqual(tandem("models", "synthesize", spec, "-o", path).returncode, 0)
            self.assertEqual(self.generate(path, "single", 1), self.generate(TINY + "q8_0", "single", 1))

    @unittest.skipUnless(MODEL, "TANDEM_TEST_MODEL is unset: the default model is not here")
    def test_the_default_model_speaks_the_same_under_every_split(self):
        texts = set()
        for plugin in ["single", "replicas", "layer_split", "offload"]:
            shown = tandem_json("generate", "-m", MODEL, "-p", "The capital of France is", "-n", 16, "--temp", 0, "--plugin", plugin,
                                "--devices", 2, "--ignore-eos")
            texts.add(shown["text"])
        self.assertEqual(len(texts), 1, texts)
        self.assertIn("Paris", texts.pop())


class Memory(unittest.TestCase):
    @unittest.skipUnless(MODEL, "TANDEM_TEST_MODEL is unset: the default model is not here")
    def test_a_process_takes_little_beside_the_model_its_copy_and_the_cache(self):
        binary = pathlib.Path(TANDEM).read_bytes()
        if b"__asan_init" in binary or b"__tsan_init" in binary:
            self.skipTest("a sanitizer's own memory is not tandem's")
        [device] = [m for m in tandem_json("plan", "show", "-m", MODEL, "--plugin", "single", "--devices", 1, "-c", 512)["memory"]
                    if m["device"] == "d0"]
        done = subprocess.Popen([TANDEM, "generate", "-m", MODEL, "-c", "512", "-p", "Hello", "-n", "1", "--temp", "0"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(done.returncode, 0)
        bound = os.path.getsize(MODEL) + device["weights"] + device["kv"] + 150e6
        self.assertLess(usage.ru_maxrss * 1024, bound)


class Bench(unittest.TestCase):
    def test_rows(self):
        rows = tandem_json("bench", "-m", TINY + "q4_1", "-p", 32, "-n", 8, "-npl", "1,2", "-r", 2)
        self.assertEqual([(r["n_prompt"], r["n_gen"], r["n_parallel"]) for r in rows], [(32, 0, 1), (0, 8, 1), (32, 0, 2), (0, 8, 2)])
        for row in rows:
            self.assertGreater(row["avg_ts"], 0)
            self.assertEqual(len(row["samples_ns"]), 2)
        only = tandem_json("bench", "-m", TINY + "q4_1", "-p", 0, "-n", 4, "-r", 1)
        self.assertEqual(only[0]["clock"], "wall")
        rig = ["bench", "-m", TINY + "q4_1", "-p", 0, "-n", 4, "-r", 1, "--plugin", "tensor_split", "--rig", "2x3090-nvlink"]
        self.assertEqual(tandem_json(*rig)[0]["rig"], "2x3090-nvlink")
        self.assertIn("CPU on its wall clock, which computes the split of rig 2x3090-nvlink", tandem(*rig).stdout)
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in only], [(0, 4)])

    def test_generation_behind_a_past(self):
        rows = tandem_json("bench", "-m", TINY + "q4_1", "-p", 0, "-n", 8, "-d", "0,100", "-npl", "1,2", "-r", 1, "--probe")
        self.assertEqual([(r["n_gen"], r["n_depth"], r["n_parallel"]) for r in rows],
                         [(8, 0, 1), (8, 100, 1), (8, 0, 2), (8, 100, 2)])
        kv = 2 * 3 * 3 * 32 * 2
        self.assertEqual([r["step_bytes"] - r["model_size"] for r in rows], [4.5 * kv, 104.5 * kv, 9 * kv, 209 * kv])
        # Sequences that are done with their pasts generate while the others read theirs.
        [late] = tandem_json("bench", "-m", TINY + "q4_1", "-p", 0, "-n", 1, "-d", 20, "-npl", 8, "-ub", 4, "-r", 1)
        self.assertGreater(late["avg_ts"], 0)
        for args, wanted in ((("-d", 8, "-npl", 2, "--plugin", "replicas", "--devices", 2), "2 lanes"), (("-n", 500, "-c", 64), "larger -c"),
                             (("-n", 4294967295), "16777216"), (("--clock", "virtual"), "wall clock"), (("-t", -1), "1024")):
            refused = tandem("bench", "-m", TINY + "q4_1", "-p", 0, "-r", 1, *args)
            self.assertEqual(refused.returncode, 2, args)
            self.assertIn(wanted, refused.stderr)
        [unprobed] = tandem_json("bench", "-m", TINY + "q4_1", "-p", 0, "-n", 4, "-r", 1, "--probe")
        self.assertNotIn("read_share", unprobed)

    def test_a_probe_gives_generation_rows_their_share(self):
        prompt, generation = tandem_json("bench", "-m", TINY + "q4_1", "-p", 16, "-n", 16, "-r", 1, "--probe")
        self.assertNotIn("read_share", prompt)
        self.assertGreater(generation["read_probe_bytes_per_s"], 1e6)
        # Weights, and keys and values of 3 layers and 3 heads of 32 in f16 at the mean context of 8.5 tokens.
        self.assertEqual(generation["step_bytes"], generation["model_size"] + 8.5 * 2 * 3 * 3 * 32 * 2)
        achieved = generation["step_bytes"] * 16 / (generation["samples_ns"][0] * 1e-9)
        self.assertAlmostEqual(generation["read_share"], achieved / generation["read_probe_bytes_per_s"], places=6)


class Perplexity(unittest.TestCase):
    SEQUENCES = [[7, 8, 9, 300, 11, 639, 0, 5, 5, 5], [1, 2], [3]]

    def score(self, folder, *extra, sequences=SEQUENCES):
        ids = pathlib.Path(folder) / "ids.txt"
        ids.write_text("".join(" ".join(map(str, s)) + "\n" for s in sequences))
        return tandem_json("perplexity", "-m", TINY + "q8_0", "--ids", ids, *extra)

    def test_it_is_the_perplexity_of_the_logits_it_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "logits.f32"
            shown = self.score(folder, "--logits-out", path)
            logits = array.array("f", path.read_bytes())
        vocab, tokens = shown["vocab"], sum(self.SEQUENCES, [])
        self.assertEqual(len(logits), vocab * len(tokens))
        nll, at = [], 0
        for sequence in self.SEQUENCES:
            for i in range(len(sequence) - 1):
                row = logits[(at + i) * vocab:(at + i + 1) * vocab]
                nll.append(math.log(sum(math.exp(x) for x in row)) - row[sequence[i + 1]])
            at += len(sequence)
        mean = sum(nll) / len(nll)
        variance = sum((x - mean) ** 2 for x in nll) / (len(nll) - 1)
        self.assertEqual((shown["scored"], shown["sequences"], shown["tokens"]), (10, 3, 13))
        self.assertAlmostEqual(shown["nll_mean"], mean, places=6)
        self.assertAlmostEqual(shown["nll_stderr"], math.sqrt(variance / len(nll)), places=6)
        self.assertAlmostEqual(shown["perplexity"], math.exp(mean), delta=1e-6 * math.exp(mean))

    def test_steps_and_splits_do_not_change_it(self):
        with tempfile.TemporaryDirectory() as folder:
            long = [[(i * 37) % 640 for i in range(100)]]
            want = self.score(folder, sequences=long)["nll_mean"]
            self.assertEqual(self.score(folder, "-ub", 16, sequences=long)["nll_mean"], want)
            self.assertEqual(self.score(folder, "--plugin", "layer_split", "--devices", 2, sequences=long)["nll_mean"], want)
            self.assertEqual(self.score(folder, "--chunks", 1)["scored"], 9)

    def test_bad_input_says_what_was_wanted(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "in.txt"
            for text, wanted in [("1 2\n3 640\n", ":2:"), ("1 x\n", "'x'"), ("1 -2\n", "'-2'"), ("5\n", "nothing to score"),
                                 ("\n\n", "no token ids"), ("", "empty")]:
                path.write_text(text)
                done = tandem("perplexity", "-m", TINY + "q8_0", "--ids", path)
                self.assertNotEqual(done.returncode, 0, text)
                self.assertIn(wanted, done.stderr)
            done = tandem("perplexity", "-m", TINY + "q8_0", "-f", path)
            self.assertIn("--ids", done.stderr)
            self.assertEqual(tandem("perplexity", "-m", TINY + "q8_0").returncode, 2)
            self.assertEqual(tandem("perplexity", "-m", TINY + "q8_0", "-f", path, "--ids", path).returncode, 2)
            self.assertNotEqual(tandem("perplexity", "-m", TINY + "q8_0", "--ids", folder + "/none").returncode, 0)

    @unittest.skipUnless(MODEL, "TANDEM_TEST_MODEL is unset: the default model is not here")
    def test_a_text_in_chunks(self):
        text = pathlib.Path(__file__).parent.parent / "golden/text/opticks.txt"
        shown = tandem_json("perplexity", "-m", MODEL, "-f", text, "-c", 128, "--chunks", 4)
        # The second half of each chunk: tokens 65 to 127.
        self.assertEqual((shown["sequences"], shown["tokens"], shown["scored"]), (4, 512, 4 * 63))
        self.assertTrue(5 < shown["perplexity"] < 60, shown)
        short = tandem("perplexity", "-m", MODEL, "-f", pathlib.Path(__file__).parent / "CMakeLists.txt", "-c", 8000)
        self.assertIn("fewer than one chunk", short.stderr)


class Catalogue(unittest.TestCase):
    def test_rigs_links_models_plugins(self):
        listed = tandem_json("rig", "list")
        self.assertGreater(len(listed["rigs"]), 5)
        for link in listed["links"]:
            self.assertTrue(link["source"], link)
        for rig in listed["rigs"]:
            shown = tandem_json("rig", "show", rig["name"])
            for device in shown["devices"]:
                self.assertTrue(device["source"], rig)
        self.assertGreaterEqual(set(PLUGINS), {"single", "replicas", "layer_split", "tensor_split", "offload"})
        self.assertTrue(tandem_json("models", "list"))
        # A rig of unequal devices says so.
        self.assertIn("RTX 3090 + RTX 4090", tandem("rig", "list").stdout)

    def test_this_machine_says_why_it_has_no_gpu_or_which(self):
        self.assertTrue(tandem_json("rig", "show")["gpus"]["driver"])

    def test_predict(self):
        shown = tandem_json("predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink")
        by_plugin = {p["plugin"]: p for p in shown["predictions"]}
        self.assertGreater(by_plugin["tensor_split"]["decode"]["tokens_per_s"], by_plugin["single"]["decode"]["tokens_per_s"])

    def predict(self, *args):
        shown = tandem_json("predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", *args)
        return {p["plugin"]: p for p in shown["predictions"]}, shown

    def test_predicted_sequences_spread_over_copies(self):
        one, _ = self.predict()
        self.assertEqual(one["replicas"]["lanes"], 1)
        self.assertEqual(one["replicas"]["decode"], one["single"]["decode"])
        self.assertEqual(one["replicas"]["prefill"], one["single"]["prefill"])
        # Two copies with sixteen each do what two cards alone do.
        many, _ = self.predict("--sequences", 32, "-c", 32 * 1100)
        half, _ = self.predict("--sequences", 16, "-c", 32 * 1100, "--plugin", "single")
        self.assertEqual(many["replicas"]["lanes"], 2)
        self.assertEqual(many["replicas"]["decode"]["step_ns"], half["single"]["decode"]["step_ns"])
        self.assertAlmostEqual(many["replicas"]["decode"]["tokens_per_s"], 2 * half["single"]["decode"]["tokens_per_s"], places=3)
        self.assertGreater(many["replicas"]["decode"]["tokens_per_s"], many["single"]["decode"]["tokens_per_s"])
        self.assertAlmostEqual(many["replicas"]["prefill"]["tokens_per_s"], 2 * many["single"]["prefill"]["tokens_per_s"], places=3)
        # An odd one: the busiest copy has the larger half.
        odd, _ = self.predict("--sequences", 3, "--plugin", "replicas")
        two, _ = self.predict("--sequences", 2, "--plugin", "single")
        self.assertEqual(odd["replicas"]["decode"]["step_ns"], two["single"]["decode"]["step_ns"])

    def test_predicted_plans_have_room_for_what_is_predicted(self):
        args = ["predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", "--plugin", "layer_split"]
        done = tandem(*args, "--sequences", 64, "--depth", 8000, "--json")
        self.assertEqual(done.returncode, 4, done)
        kv = json.loads(done.stdout)["predictions"][0]["memory"][0]["kv"]
        self.assertGreaterEqual(kv, 64 * 8513 * 32 * 2 * 1024 * 2 // 2)
        self.assertEqual(tandem_json(*args, "--depth", 8000, "-p", 2000)["context_of_a_slot"], 10001)
        self.assertEqual(tandem_json(*args)["context_of_a_slot"], 1537)
        for extra, said in [(["--depth", 131072], "--depth makes a sequence of 131073 tokens, the model was made for 131072"),
                            (["--depth", 8000, "-c", 4096], "-c 4096 has room for 4096 in each of 1 slots (want -c 8001"),
                            (["-p", 8000, "-c", 4096], "--n-prompt makes a sequence of 8000 tokens"),
                            (["--sequences", 8, "-np", 4], "--sequences 8, but -np gives 4 slots"),
                            (["--devices", "cpu:0,cpu:1"], "names processors")]:
            done = tandem(*args, *extra)
            self.assertEqual(done.returncode, 2, done)
            self.assertIn(said, done.stderr)

    def test_predict_says_what_does_not_change_its_figures(self):
        _, own = self.predict("--path", "p2p")
        self.assertEqual(own["notes"], [])
        _, nccl = self.predict("--path", "nccl")
        self.assertIn("--path nccl is not priced", nccl["notes"][0])
        staged, shown = self.predict("--path", "host_staged")
        self.assertEqual(shown["notes"], [])

    def test_a_weight_type_may_follow_a_shape(self):
        _, shown = self.predict()
        self.assertEqual(shown["weights"], {"type": "BF16", "bytes": 16061054976})
        sizes = {}
        for weight_type in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"]:
            shown = tandem_json("models", "show", f"llama-3.1-70b-{weight_type}")
            sizes[weight_type] = shown["weight_bytes"]
        self.assertEqual(sizes["bf16"], tandem_json("models", "show", "llama-3.1-70b")["weight_bytes"])
        self.assertTrue(sizes["q4_k"] < sizes["q5_k"] < sizes["q6_k"] < sizes["q8_0"] < sizes["f16"] < sizes["f32"], sizes)
        done = tandem("predict", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "layer_split")
        self.assertEqual(done.returncode, 4, done)
        self.assertIn("llama-3.1-70b, BF16, 141 GB, on 2x3090-nvlink", done.stdout.splitlines()[0])
        self.assertRegex(done.stdout, r"layer_split: d0 needs 7\d\.\d GB of 25\.8 GB\n")
        self.assertIn("-m llama-3.1-70b-q4_0 takes 40.7 GB", done.stdout)
        self.assertTrue(all(len(line) <= 120 for line in done.stdout.splitlines()), done.stdout)
        for command in [["predict"], ["plan", "check"], ["plan", "show"]]:
            self.assertEqual(tandem(*command, "-m", "llama-3.1-70b-q4_k", "--rig", "2x3090-nvlink", "--plugin", "layer_split").returncode, 0)
        done = tandem("plan", "check", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "layer_split")
        self.assertIn("-m llama-3.1-70b-q4_0", done.stderr)
        # K types have blocks of 256: a shape they do not fit says so.
        done = tandem("models", "show", "qwen2.5-0.5b-q4_k")
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("multiple of 256", done.stderr)
        self.assertEqual(tandem("models", "show", "llama-3.1-70b-q9_9").returncode, 3)

    def test_plan_show_is_a_summary(self):
        shown = tandem("plan", "show", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", "--plugin", "auto", "-np", 4)
        self.assertEqual(shown.returncode, 0, shown)
        lines = shown.stdout.splitlines()
        self.assertLess(len(lines), 45, shown.stdout)
        self.assertLess(max(map(len, lines)), 140, shown.stdout)
        for said in ["plan ", "llama-3.1-8b, BF16, 16.1 GB", "PREDICTED by auto", "chosen", "capacity", "bytes/token", "--text"]:
            self.assertIn(said, shown.stdout)
        full = tandem_json("plan", "show", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "auto", "-c", 1024)
        single = [c for c in full["candidates"] if c["plugin"] == "single"][0]
        self.assertGreater(single["memory"][0]["weights"], 10**11)
        text = tandem("plan", "show", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "auto", "-c", 1024).stdout
        self.assertRegex(text, r"single +- +- +- +- +d0 needs 142 GB of 25\.8 GB")
        self.assertLess(max(map(len, text.splitlines())), 150, text)

    def test_auto_on_this_machines_processor_splits_nothing(self):
        for slots in [1, 4]:
            args = ["plan", "show", "-m", TINY + "q8_0", "--plugin", "auto", "--devices", 2, "-np", slots, "-c", 256 * slots]
            self.assertEqual(tandem_json(*args)["plugin"], "single")
            self.assertIn("one after the other", tandem(*args).stdout)

    def test_shapes_have_no_weights_and_no_vocabulary(self):
        for args in [["models", "verify", "llama-3.1-8b"], ["tokenize", "-m", "llama-3.1-8b", "Hi"], ["models", "path", "llama-3.1-8b-q4_k"]]:
            done = tandem(*args)
            self.assertEqual(done.returncode, 3, done)
            self.assertIn("is a shape of the catalogue", done.stderr)
        # Before a minute of making weights.
        done = tandem("generate", "-m", "llama-3.1-8b", "-p", "Hi", timeout=10)
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("random weights and has no tokenizer", done.stderr)

    def test_a_name_that_is_not_there_is_answered_briefly(self):
        done = tandem("predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", "--link", "pcie4-x16-host-staged")
        self.assertIn("staged-pcie4-x16-3090", done.stderr)
        self.assertLess(len(done.stderr), 400)
        for kind in [["--rig", "zzz"], ["--rig", "2x3090-nvlink", "--link", "zzz"]]:
            done = tandem("predict", "-m", "llama-3.1-8b", *kind)
            self.assertLess(len(done.stderr), 200, done)
            self.assertIn("tandem rig list", done.stderr)

    def test_predict_says_why_a_plan_is_refused(self):
        shown = tandem("predict", "-m", "llama-3.1-8b", "--rig", "1x3090-cpu", "--plugin", "tensor_split")
        self.assertEqual(shown.returncode, 4, shown)
        self.assertIn("all_reduce with the host's own processor", shown.stdout)
        self.assertNotIn("v0", shown.stdout)

    def test_predict_has_no_price_for_a_library_that_was_not_measured(self):
        args = ["predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", "--prefill", "cublaslt"]
        shown = tandem_json(*args)
        self.assertEqual(shown["prefill_products"], "cublaslt")
        split = {p["plugin"]: p for p in shown["predictions"]}["tensor_split"]
        self.assertIn("no measured rate of cuBLASLt", split["prefill"]["not_priced"])
        self.assertGreater(split["decode"]["tokens_per_s"], 0)
        text = tandem(*args).stdout
        self.assertIn("not priced", text)
        self.assertIn("no measured rate of cuBLASLt", text)
        # Steps that are too short for the library are priced.
        short = tandem_json(*args, "-p", 100, "--plugin", "single")["predictions"][0]
        self.assertGreater(short["prefill"]["tokens_per_s"], 0)
        self.assertIn("--p2p-way pull is not priced", tandem("predict", "-m", "llama-3.1-8b", "--rig", "2x3090-nvlink", "--p2p-way",
                                                             "pull").stdout)

    def test_predict_by_what_a_probe_measured(self):
        with tempfile.TemporaryDirectory() as folder:
            rig = pathlib.Path(folder) / "probed.yaml"
            rig.write_text(PROBED)
            def priced(*args):
                shown = tandem_json("predict", "-m", "llama-3.1-8b", "--rig", rig, "--plugin", "tensor_split", *args)
                return shown["predictions"][0], shown["notes"]
            own, notes = priced()
            self.assertEqual(notes, [])
            library, notes = priced("--prefill-products", "cublaslt")
            self.assertGreater(library["prefill"]["tokens_per_s"], own["prefill"]["tokens_per_s"])
            self.assertEqual(library["decode"], own["decode"])
            self.assertRegex(notes[0], "d0 70 TFLOP/s, d1 70 TFLOP/s.*bound")
            eager, _ = priced("--graphs", "off")
            self.assertGreater(eager["decode"]["step_ns"], own["decode"]["step_ns"])
            self.assertEqual(eager["prefill"], own["prefill"])
            apart, notes = priced("--fuse-collectives", "off")
            self.assertGreater(apart["decode"]["step_ns"], own["decode"]["step_ns"])
            self.assertEqual(apart["prefill"], own["prefill"])
            self.assertEqual(notes, [])

    def test_predict_refuses_what_an_engine_would(self):
        done = tandem("predict", "-m", "llama-3.1-70b", "--rig", "2x3090-nvlink", "--plugin", "offload", "--graphs", "on")
        self.assertEqual(done.returncode, 4, done)
        self.assertIn("fetches weights in every decode step", done.stdout)
        self.assertNotIn("does not fit", done.stdout)

    def test_a_plan_leaves_room_for_a_library(self):
        args = ["-m", "llama-3.1-8b", "--rig", "1x3090", "--plugin", "single"]
        own = tandem_json("plan", "show", *args)
        library = tandem_json("plan", "show", *args, "--prefill", "cublaslt")
        self.assertEqual(own["plan_hash"], library["plan_hash"])
        self.assertEqual((own["prefill_products"], library["prefill_products"]), ("own", "cublaslt"))
        before, after = own["memory"][0], library["memory"][0]
        self.assertEqual(before["capacity"] - after["capacity"], 128 << 20)
        # A context that fits beside nothing else.
        held = sum(after[part] for part in ["weights", "slots", "kv", "activations", "workspace", "links"])
        tokens = own["context"] + (after["capacity"] - held + (64 << 20)) // (after["kv"] // own["context"])
        tight = [*args, "-c", tokens // 64 * 64]
        self.assertEqual(tandem("plan", "check", *tight).returncode, 0)
        self.assertEqual(tandem("plan", "check", *tight, "--prefill", "cublaslt").returncode, 4)

    def test_plans_refuse_what_an_engine_would(self):
        for args, said in [(["--devices", 2, "--prefill", "cublaslt"], "is for GPUs"),
                           (["--devices", 2, "--attention-precision", "half"], "--attention-precision split"),
                           (["--rig", "1x3090-cpu", "--plugin", "layer_split", "--attention-precision", "half"], "--attention-precision split"),
                           (["--devices", 2, "--graphs", "on"], "cannot record a step")]:
            done = tandem("plan", "check", "-m", "llama-3.2-1b", *args)
            self.assertEqual(done.returncode, 3, done)
            self.assertIn(said, done.stderr)
        done = tandem("plan", "show", "-m", "llama-3.2-1b", "--graphs", "maybe")
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("--graphs: got 'maybe', want auto, on or off", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
