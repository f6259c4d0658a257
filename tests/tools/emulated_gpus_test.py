"""The program on emulated GPUs (tests/support/emulated_gpus): its own code for CUDA from the command line down to the launches."""
import concurrent.futures
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

SCENARIOS = str(pathlib.Path(__file__).resolve().parent.parent.parent / "scenarios")
CPU, GPU = sys.argv[-2:]
del sys.argv[-2:]
MODEL = "synthetic:h=64,l=3,heads=4,kv=2,ffn=128,vocab=256,tied=0,type={},seed=3"


def run(program, *args, status=0, **environment):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "TANDEM_SCENARIOS": SCENARIOS, **environment})
    if done.returncode != status:
        raise AssertionError(f"exit {done.returncode}, want {status}: {' '.join(map(str, args))}\n{done.stderr}")
    return done


def tokens(program, *args, model=MODEL.format("q8_0"), activations="f32", n=6, **environment):
    done = run(program, "generate", "-m", model, "--prompt-ids", "1,2,3,4,5,6,7,8", "-n", n, "--temp", 0, "--activations", activations,
               "--json", *args, **environment)
    return json.loads(done.stdout)["token_ids"]


@functools.cache
def paths():
    """Those that the build has and the devices grant."""
    rows = run(GPU, "rig", "test", "--devices", "cuda:0,cuda:1").stdout.splitlines()[1:]
    return list(dict.fromkeys(row.split()[0] for row in rows))


class Tokens(unittest.TestCase):
    """Greedy tokens are those of the CPU. The model's gaps are wide enough for the other order of sums."""

    @classmethod
    def setUpClass(cls):
        cls.want = tokens(CPU, "--devices", 1)
        assert len(set(cls.want)) > 3, f"a model that repeats itself shows little: {cls.want}"

    def test_every_plugin(self):
        for plugin in ["single", "replicas", "layer_split", "tensor_split", "offload"]:
            self.assertEqual(tokens(GPU, "--plugin", plugin, "--devices", "cuda:0,cuda:1"), self.want, plugin)

    def test_every_path_and_wire(self):
        for path in paths():
            for plugin in ["layer_split", "tensor_split"]:
                got = tokens(GPU, "--plugin", plugin, "--devices", "cuda:0,cuda:1", "--path", path)
                self.assertEqual(got, self.want, f"{plugin} over {path}")
        for wire in ["bf16", "q8"]:
            # Rounded activations are another result, but the same for every path.
            first = tokens(GPU, "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "--path", "copy", "--wire", wire)
            for path in paths():
                got = tokens(GPU, "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "--path", path, "--wire", wire)
                self.assertEqual(got, first, f"{wire} over {path}")

    def test_one_gpu_as_two(self):
        for plugin in ["layer_split", "tensor_split"]:
            self.assertEqual(tokens(GPU, "--plugin", plugin, "--devices", "cuda:0,cuda:0", TANDEM_EMULATED_GPUS="1"), self.want)

    def test_one_gpu_as_two_in_every_way_is_emulated(self):
        for devices, share, fidelity in [("cuda:0,cuda:0", "auto", "emulated"), ("cuda:0,cuda:0", "2", "emulated"),
                                         ("cuda:0,cuda:0", "off", "emulated"), ("cuda:0,cuda:1", "auto", "measured")]:
            done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2,3", "-n", 3, "--temp", 0, "--activations", "f32",
                       "--json", "--plugin", "tensor_split", "--devices", devices, "--gpu-share", share)
            self.assertEqual(json.loads(done.stdout)["fidelity"], fidelity, devices)

    def test_four_devices(self):
        got = tokens(GPU, "--plugin", "layer_split", "--devices", "cuda:0,cuda:1,cuda:2", TANDEM_EMULATED_GPUS="4")
        self.assertEqual(got, self.want)

    def test_weights_that_stream(self):
        """All of them from the host, page-locked; then with 24 MiB to lock, which the ring and a step take the most of."""
        model = "synthetic:h=256,l=6,heads=4,kv=2,ffn=2048,vocab=256,tied=0,type=f32,seed=3"
        want = tokens(CPU, "--devices", 1, model=model, n=6)
        flags = ["--plugin", "offload", "--devices", "cuda:0", "--knob", "resident_layers=0", "--np", 1, "-c", 128, "--ub", 16]
        self.assertEqual(tokens(GPU, *flags, model=model, n=6), want)
        done = run(GPU, "generate", "-m", model, "--prompt-ids", "1,2,3,4,5,6,7,8", "-n", 6, "--temp", 0, "--activations", "f32", "--json",
                   *flags, "--pinned-memory", 24 / 1024)
        self.assertEqual(json.loads(done.stdout)["token_ids"], want)
        self.assertIn("cross through a ring", done.stderr)
        done = run(GPU, "generate", "-m", model, "--prompt-ids", "1", "-n", 1, *flags, "--pinned-memory", 1 / 1024, status=6)
        self.assertRegex(done.stderr, "page-locked memory.*--pinned-memory to 0.01")

    def test_the_cpu_beside_gpus(self):
        """Layers on the host's processor, whose threads and the streams wait for each other."""
        for devices in ["cuda:0,cpu", "cuda:0,cuda:1,cpu"]:
            self.assertEqual(tokens(GPU, "--plugin", "layer_split", "--devices", devices), self.want, devices)
            for beyond in ["stream", "cpu", "prefill_streams", "auto"]:
                got = tokens(GPU, "--plugin", "offload", "--devices", devices, "--knob", "resident_layers=1", "--knob", f"beyond={beyond}")
                self.assertEqual(got, self.want, f"{beyond} on {devices}")
        done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1", "-n", 1, "--plugin", "tensor_split", "--devices",
                   "cuda:0,cpu", status=4)
        self.assertIn("the host's own processor", done.stderr)

    def test_weight_types_on_tensor_cores(self):
        for kind in ["bf16", "q4_0", "q4_1", "q5_1", "q8_0"]:
            model = MODEL.format(kind)
            want = tokens(CPU, "--devices", 1, model=model, activations="int8", n=6)
            got = tokens(GPU, "--plugin", "single", "--devices", "cuda:0", model=model, activations="int8", n=6)
            self.assertEqual(got, want, kind)


class PrefillByCublasLt(unittest.TestCase):
    """A prompt in steps of 256 and 144 rows, both long enough for calls of 256."""
    PROMPT = ",".join(str(3 + i * i % 250) for i in range(400))

    def answer(self, program, *args, kind="bf16", status=0, activations="int8", **environment):
        done = run(program, "generate", "-m", MODEL.format(kind), "--prompt-ids", self.PROMPT, "-n", 6, "--temp", 0, "--activations",
                   activations, "-c", 512, "--ub", 256, "--json", *args, status=status, **environment)
        return json.loads(done.stdout) if status == 0 else done.stderr

    def test_every_plugin(self):
        """On BF16 weights the numbers that meet are those of the CPU."""
        want = self.answer(CPU, "--devices", 1)["token_ids"]
        for plugin in ["single", "layer_split", "tensor_split", "offload"]:
            got = self.answer(GPU, "--prefill", "cublaslt", "--plugin", plugin, "--devices", "cuda:0,cuda:1")
            self.assertEqual(got["token_ids"], want, plugin)
            self.assertEqual(got["prefill_products"], "cublaslt")
            self.assertRegex(got["ops"], "^cuda/sm_80 cublaslt/13")

    def test_one_gpu_as_two(self):
        want = self.answer(CPU, "--devices", 1)["token_ids"]
        got = self.answer(GPU, "--prefill", "cublaslt", "--plugin", "tensor_split", "--devices", "cuda:0,cuda:0", TANDEM_EMULATED_GPUS="1")
        self.assertEqual(got["token_ids"], want)

    def test_it_takes_part(self):
        """Where a perplexity is not to the bit what own kernels give, and near it."""
        with tempfile.TemporaryDirectory() as folder:
            ids = pathlib.Path(folder) / "ids.txt"
            ids.write_text(" ".join(self.PROMPT.split(",")[:300]))
            found = {}
            for products, step in [("own", 256), ("cublaslt", 256), ("cublaslt", 100)]:
                done = run(GPU, "perplexity", "-m", MODEL.format("q8_0"), "--ids", ids, "-c", 300, "--ub", step, "--devices", "cuda:0",
                           "--prefill-products", products, "--json")
                found[products, step] = json.loads(done.stdout)["nll_mean"]
            self.assertNotEqual(found["cublaslt", 256], found["own", 256])
            self.assertAlmostEqual(found["cublaslt", 256], found["own", 256], delta=0.02)
            self.assertEqual(found["cublaslt", 100], found["own", 256], "steps too short for it")

    def test_plans_are_those_that_run(self):
        args = ["-m", MODEL.format("bf16"), "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "-c", 512, "--ub", 256, "--json"]
        own, library = (json.loads(run(GPU, "plan", "show", *args, *more).stdout) for more in [[], ["--prefill", "cublaslt"]])
        self.assertEqual(own["memory"][0]["capacity"] - library["memory"][0]["capacity"], 128 << 20)
        ran = self.answer(GPU, "--prefill", "cublaslt", "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1")
        self.assertEqual(ran["plan_hash"], library["plan_hash"])

    def test_what_it_cannot_have_is_refused(self):
        self.assertRegex(self.answer(GPU, "--prefill", "cublaslt", "--devices", "cuda:0", status=3, TANDEM_EMULATED_CUBLASLT="absent"),
                         "libcublasLt.so.13.* cannot be loaded.*LD_LIBRARY_PATH")
        self.assertIn("--activations int8", self.answer(GPU, "--prefill", "cublaslt", "--devices", "cuda:0", activations="f32", status=2))
        self.assertIn("is for GPUs", self.answer(CPU, "--prefill", "cublaslt", "--devices", 1, status=3))
        self.assertIn("own or cublaslt", self.answer(GPU, "--prefill", "cublas", "--devices", "cuda:0", status=2))


class Graphs(unittest.TestCase):
    def test_recorded_and_not(self):
        for path in paths():
            args = ["--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "--path", path]
            off = tokens(GPU, *args, "--graphs", "off")
            self.assertEqual(tokens(GPU, *args, "--graphs", "on"), off, path)

    def test_the_launch_mode_is_told(self):
        for graphs, launch in [("auto", "graph"), ("off", "eager")]:
            done = run(GPU, "bench", "-m", MODEL.format("q8_0"), "--devices", "cuda:0", "-p", 0, "-n", 4, "-r", 1, "-o", "json",
                       "--graphs", graphs)
            self.assertEqual({row["launch"] for row in json.loads(done.stdout)}, {launch})

    def test_fused_collectives_change_no_token(self):
        """With graphs and without, and on one GPU as two, where the kernels run between recorded parts."""
        one, two = "cuda:0,cuda:0", "cuda:0,cuda:1"
        for path, devices, wire in [("p2p", two, "f32"), ("p2p", one, "q8"), ("host_staged", two, "q8"), ("host_staged", one, "f32")]:
            args = ["--plugin", "tensor_split", "--devices", devices, "--path", path, "--wire", wire]
            want = tokens(GPU, *args, "--fuse-collectives", "off", "--graphs", "on")
            for graphs in ["on", "off"]:
                self.assertEqual(tokens(GPU, *args, "--fuse-collectives", "on", "--graphs", graphs), want, (path, devices, wire, graphs))

    def test_it_is_told_whether_collectives_are_fused(self):
        for path, fuse, told in [("p2p", "on", "fused"), ("p2p", "off", "apart"), ("copy", "on", "apart")]:
            done = run(GPU, "bench", "-m", MODEL.format("q8_0"), "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "-p", 0, "-n", 4,
                       "-r", 1, "-o", "json", "--path", path, "--fuse-collectives", fuse)
            self.assertEqual({row["collectives"] for row in json.loads(done.stdout)}, {told})

    def test_graphs_are_refused_where_there_are_none(self):
        done = run(CPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2", "-n", 1, "--graphs", "on", status=3)
        self.assertIn("--graphs", done.stderr)


class AttentionPrecision(unittest.TestCase):
    def test_half_is_told_and_does_not_depend_on_how_a_prompt_is_cut(self):
        found = []
        for chunk in [512, 3]:
            done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", ",".join(map(str, range(1, 41))), "-n", 4, "--temp", 0,
                       "--devices", "cuda:0", "--attention-precision", "half", "--ub", chunk, "--json")
            told = json.loads(done.stdout)
            self.assertEqual(told["attention_precision"], "half")
            found.append(told["token_ids"])
        self.assertEqual(found[0], found[1])

    def test_half_is_refused_where_the_processor_computes(self):
        for program, devices in [(CPU, "cpu:0,cpu:1"), (GPU, "cuda:0,cpu")]:
            done = run(program, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2", "-n", 1, "--devices", devices,
                       "--plugin", "layer_split", "--attention-precision", "half", status=3)
            self.assertIn("--attention-precision split", done.stderr)
            shown = run(program, "plan", "show", "-m", MODEL.format("q8_0"), "--devices", devices, "--plugin", "layer_split",
                        "--attention-precision", "half", status=3)
            self.assertEqual(shown.stderr, done.stderr)


class NcclWindows(unittest.TestCase):
    def test_granted_refused_and_off(self):
        if "nccl" not in paths():
            self.skipTest("a build without NCCL")
        args = ["--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", "--path", "nccl"]
        want = tokens(GPU, *args, "--nccl-windows", "off")
        for windows, flag, told in [("granted", "on", "granted"), ("none", "on", "refused (NCCL gives none"),
                                    ("error", "on", "refused (register: "), ("granted", "off", "off")]:
            self.assertEqual(tokens(GPU, *args, "--nccl-windows", flag, TANDEM_EMULATED_NCCL_WINDOWS=windows), want, told)
            done = run(GPU, "bench", "-m", MODEL.format("q8_0"), *args, "-p", 0, "-n", 2, "-r", 1, "-o", "json", "--nccl-windows", flag,
                       TANDEM_EMULATED_NCCL_WINDOWS=windows)
            self.assertTrue(json.loads(done.stdout)[0]["nccl_windows"].startswith(told), done.stdout)
        rows = run(GPU, "rig", "test", "--devices", "cuda:0,cuda:1", "--path", "nccl").stdout
        self.assertIn("all-reduce over 2 (windows granted)", rows)
        self.assertIn("all-reduce over 2, windows off", rows)


class LostGpus(unittest.TestCase):
    def test_the_exit_code_says_so_and_the_error_is_told_once(self):
        for graphs in ["on", "off"]:
            done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2,3", "-n", 40, "--devices", "cuda:0", "--graphs",
                       graphs, status=6, TANDEM_EMULATED_LOST_AFTER="900")
            self.assertIn("the device is lost to this process", done.stderr)
            self.assertEqual(done.stderr.count("error: "), 1, done.stderr)
            self.assertRegex(done.stderr, "op [0-9]+|ops [0-9]+ to [0-9]+")


class Refusals(unittest.TestCase):
    def test_no_access_between_the_two(self):
        done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2", "-n", 1, "--plugin", "tensor_split", "--devices",
                   "cuda:0,cuda:1", "--path", "copy", status=6, TANDEM_EMULATED_PEERS="0")
        self.assertIn("path copy does not exist", done.stderr)
        got = tokens(GPU, "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1", TANDEM_EMULATED_PEERS="0")
        self.assertEqual(got, tokens(CPU, "--devices", 1), "without peers the host carries the bytes")

    def test_devices_that_are_not_there(self):
        done = run(GPU, "rig", "test", "--devices", "cuda:0,cuda:5", status=2)
        self.assertIn("cuda:5", done.stderr)


class OneGpuAsTwo(unittest.TestCase):
    def shares(self, *args, status=0):
        done = run(GPU, "rig", "show", "--devices", "cuda:0,cuda:0", "--json", *args, status=status)
        return json.loads(done.stdout) if status == 0 else done.stderr

    def test_it_is_cut_so_that_both_read_alike(self):
        rig = self.shares()
        self.assertIn("2 of 8 multiprocessors each (calibrated)", rig["description"])
        for share, device in zip(rig["gpu_shares"], rig["devices"], strict=True):
            self.assertEqual((share["sms"], share["gpu_sms"], share["balanced"], share["how"]), (2, 8, True, "calibrated"))
            self.assertEqual(share["alone_bytes_per_s"], 2e9)
            self.assertEqual(device["memory_bytes_per_s"], share["beside_bytes_per_s"])

    def test_forced_and_off(self):
        forced = self.shares("--gpu-share", "4")["gpu_shares"][0]
        self.assertEqual((forced["sms"], forced["balanced"], forced["how"]), (4, False, "forced"))
        self.assertEqual(self.shares("--gpu-share", "off")["gpu_shares"][0]["sms"], 0)
        self.assertIn("want 2 to 4, in multiples of 2", self.shares("--gpu-share", "6", status=2))
        self.assertIn("--gpu-share", self.shares("--gpu-share", "some", status=2))


    def test_records_are_emulated_and_say_how_it_was_cut(self):
        for devices, fidelity in [("cuda:0,cuda:0", "emulated"), ("cuda:0,cuda:1", "measured")]:
            with tempfile.TemporaryDirectory() as folder:
                sets = {"model": MODEL.format("q8_0"), "rig": devices, "plugin": "tensor_split", "repetitions": 1, "phases.prefill.tokens": 16,
                        "phases.decode.context": 8, "phases.decode.tokens": 4, "phases.decode.sequences": 1, "context": 256, "slots": 2,
                        "step_tokens": 32}
                run(GPU, "run", f"{SCENARIOS}/gpu_splits.yaml", "--out", folder, *(word for k, v in sets.items() for word in ("--set", f"{k}={v}")))
                record = json.loads((pathlib.Path(folder) / "gpu_splits.jsonl").read_text().splitlines()[0])
            self.assertEqual((record["fidelity"], record["clock"]), (fidelity, "wall"))
            self.assertEqual([share["sms"] for share in record["rig"].get("gpu_shares", [])], [2, 2] if fidelity == "emulated" else [])
            self.assertEqual([check["gpu"] for check in record["memory_check"]], [0] if fidelity == "emulated" else [0, 1])
            for check in record["memory_check"]:
                self.assertTrue(check["agrees"], check)
                self.assertGreater(check["ledger_bytes"], 0)
                self.assertGreaterEqual(check["driver_bytes"], check["ledger_bytes"])

    def test_a_rig_file_of_other_cards(self):
        done = run(GPU, "generate", "-m", MODEL.format("q8_0"), "--prompt-ids", "1,2", "-n", 1, "--rig", "2x3090-nvlink", "--devices",
                   "cuda:0,cuda:1", status=2)
        self.assertIn("device 0 of rig 2x3090-nvlink is a RTX 3090, but cuda:0 is a emulated GPU 0", done.stderr)


class Rig(unittest.TestCase):
    def test_paths_are_right(self):
        done = run(GPU, "rig", "test", "--devices", "cuda:0,cuda:1")
        self.assertLessEqual({"copy", "host_staged"}, set(paths()))
        self.assertNotIn("WRONG", done.stdout.upper())

    def test_what_is_there(self):
        shown = run(GPU, "rig", "show", TANDEM_EMULATED_GPUS="3").stdout
        self.assertEqual(shown.count("emulated GPU"), 3)
        self.assertNotIn("emulated GPU", run(GPU, "rig", "show", TANDEM_EMULATED_GPUS="0").stdout)


class Sweeps(unittest.TestCase):
    SMALL = ["--set", f'model="{MODEL.format("q8_0")}"', "--set", "phases.prefill.tokens=16", "--set", "phases.decode.context=8", "--set",
             "phases.decode.tokens=2", "--set", "phases.decode.sequences=[1,2]", "--set", "context=256", "--set", "step_tokens=32", "--set",
             "slots=2", "--set", "repetitions=1"]

    def sweep(self, name, folder, *args, **environment):
        run(GPU, "run", f"{SCENARIOS}/{name}.yaml", "-o", folder, *self.SMALL, *args, **environment)
        return [json.loads(line) for line in pathlib.Path(folder, f"{name}.jsonl").read_text().splitlines()]

    def test_splits_and_paths(self):
        with tempfile.TemporaryDirectory() as folder:
            splits = self.sweep("gpu_splits", folder)
            self.assertEqual({record["fidelity"] for record in splits}, {"measured"})
            self.assertEqual({record["plugin"]["name"] for record in splits},
                             {"single", "replicas", "layer_split", "tensor_split", "offload"})
            for record in splits:
                self.assertFalse(record.get("refused"), record.get("refused"))
                self.assertEqual([gpu["name"] for gpu in record["machine"]["gpus"]["devices"]], ["emulated GPU 0", "emulated GPU 1"])
            taken = {}
            for record in self.sweep("gpu_paths", folder):
                asked = record["path"]["requested"]
                if record.get("refused"):
                    self.assertNotIn(asked, paths())
                    continue
                self.assertTrue(record["path"]["taken"][0].startswith(f"d0-d1 {asked}"), record["path"])
                taken.setdefault(asked, []).append(record["decode"]["link_bytes"])
            self.assertEqual(set(taken), set(paths()))
            # Two hops by way of the host, else the same bytes.
            for path, bytes_moved in taken.items():
                factor = 2 if path == "host_staged" else 1
                self.assertEqual(bytes_moved, [factor * b for b in taken["copy"]], path)
            shown = run(GPU, "report", folder).stdout
            self.assertIn("report.html", shown)

    def test_ways_of_decode(self):
        with tempfile.TemporaryDirectory() as folder:
            records = self.sweep("gpu_decode", folder, "--set", "phases.decode.sequences=1")
        told = {(record["path"]["taken"][0], record["launch"], record["collectives"]) for record in records}
        self.assertEqual(told, {(f"d0-d1 p2p ({way})", launch, collectives) for way in ["push", "pull"] for launch in ["graph", "eager"]
                                for collectives in ["fused", "apart"]})
        self.assertEqual(len({record["decode"]["link_bytes"] for record in records}), 1)

    def test_one_gpu_as_two_is_emulated(self):
        with tempfile.TemporaryDirectory() as folder:
            records = self.sweep("gpu_splits", folder, "--set", 'rig="cuda:0,cuda:0"', TANDEM_EMULATED_GPUS="1")
            self.assertEqual({record["fidelity"] for record in records}, {"emulated"})

    def test_what_multiplies_prompts(self):
        small = ["--set", f'model="{MODEL.format("q8_0")}"', "--set", "phases.prefill.tokens=200", "--set", "step_tokens=256", "--set",
                 "repetitions=1", "--set", "warmup=0"]
        with tempfile.TemporaryDirectory() as folder:
            run(GPU, "run", f"{SCENARIOS}/gpu_prefill.yaml", "-o", folder, *small)
            records = [json.loads(line) for line in pathlib.Path(folder, "gpu_prefill.jsonl").read_text().splitlines()]
            self.assertEqual({record["prefill_products"]: "cublaslt/" in record["ops"] for record in records}, {"own": False, "cublaslt": True})
            done = run(GPU, "run", f"{SCENARIOS}/gpu_prefill.yaml", "-o", folder + "/cpu", *small, "--set", "rig=cpu", status=3)
            self.assertIn("is for GPUs", done.stderr)

    def test_refusals(self):
        with tempfile.TemporaryDirectory() as folder:
            for setting, said in [('rig="cuda:0,cuda:7"', "cuda:7"), ("clock=virtual", "wall clock"), ("devices=2", "lists its devices")]:
                done = run(GPU, "run", f"{SCENARIOS}/gpu_splits.yaml", "-o", folder, *self.SMALL, "--set", setting, status=2)
                self.assertIn(said, done.stderr)


class Serving(unittest.TestCase):
    def test_requests_at_once(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen([GPU, "serve", "-m", MODEL.format("q8_0"), "--plugin", "tensor_split", "--devices", "cuda:0,cuda:1",
                                   "--port", str(port), "--np", "3", "--activations", "f32"], stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, "TANDEM_SCENARIOS": SCENARIOS})
        try:
            self.wait_for(port, server)
            with concurrent.futures.ThreadPoolExecutor(3) as clients:
                asked = list(clients.map(lambda _: self.ask(port), range(6)))
            self.assertEqual(len(set(asked)), 1, asked)
        finally:
            server.terminate()
            server.communicate(timeout=30)
        self.assertEqual(server.returncode, 0)

    def wait_for(self, port, server):
        for _ in range(200):
            if server.poll() is not None:
                self.fail(server.stderr.read())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                return
            except OSError:
                time.sleep(0.05)
        self.fail("the server did not come up")

    def ask(self, port):
        body = json.dumps({"prompt": [1, 2, 3, 4, 5], "max_tokens": 6, "temperature": 0}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=60).read())["choices"][0]["text"]


if __name__ == "__main__":
    unittest.main(verbosity=1)
