"""Sweeps as people run them: records, resume after a kill, bad folders, the report.

usage: cli_run_test.py PATH_OF_TANDEM
"""
import fcntl
import json
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TANDEM = sys.argv.pop(1)

SCENARIO = """question: Does the tiny sweep work?
model: ["synthetic:h=96,l=2,heads=6,kv=3,hd=32,ffn=192,vocab=640,type=q4_1", "synthetic:h=192,l=2,heads=6,kv=3,hd=32,ffn=384,vocab=640,type=q4_1"]
rig: 2x3090-nvlink
link: [nvlink3-bridge, ideal]
plugin: [single, tensor_split]
clock: virtual
op_times: modelled
phases:
  prefill: {tokens: 40}
  decode: {context: 16, tokens: 4, sequences: 2}
repetitions: 3
warmup: 0
"""
RECORDS = 2 * 2 * 2 * 3


class Sweep(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.scenario = self.root / "tiny.yaml"
        self.scenario.write_text(SCENARIO)
        self.out = self.root / "out"
        self.results = self.out / "tiny.jsonl"

    def tearDown(self):
        self.folder.cleanup()

    def run_tandem(self, *args):
        return subprocess.run([TANDEM, *map(str, args)], capture_output=True, text=True, timeout=300)

    def sweep(self, *extra):
        return self.run_tandem("run", self.scenario, "--out", self.out, *extra)

    def records(self):
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def keys(self):
        return [(tuple(map(tuple, r["cell"])), r["repetition"]) for r in self.records()]

    def test_records_and_report(self):
        done = self.sweep()
        self.assertEqual(done.returncode, 0, done.stderr)
        records = self.records()
        self.assertEqual(len(records), RECORDS)
        self.assertEqual(len(set(self.keys())), RECORDS)
        for r in records:
            self.assertEqual(r["fidelity"], "emulated")
            shown = json.loads(self.run_tandem("models", "show", r["model"]["source"], "--json").stdout)
            self.assertEqual(r["model"]["parameters"], shown["parameters"])
            for phase in ["prefill", "decode"]:
                for device in r[phase]["attribution"]:
                    parts = sum(v for k, v in device.items() if k != "device")
                    self.assertEqual(parts, r[phase]["time_ns"], (r["cell"], phase))
        report = self.run_tandem("report", self.out)
        self.assertEqual(report.returncode, 0, report.stderr)
        page = (self.out / "report.html").read_text()
        self.assertIn("Does the tiny sweep work?", page)
        self.assertIn("EMULATED", page)
        self.assertIn("link share of the step against model size", page)
        picture = ["report", self.out, "--picture", "decode", "-o", self.out / "picture.svg", "--plugin"]
        self.assertEqual(self.run_tandem(*picture, "tensor_split").returncode, 0)
        self.assertIn("tensor_split, decode: link share", (self.out / "picture.svg").read_text())
        none = self.run_tandem(*picture, "single")
        self.assertEqual(none.returncode, 1)
        self.assertIn("with the plugin single", none.stderr)

    def test_parts_of_a_measured_step_add_up(self):
        wall = SCENARIO.replace("rig: 2x3090-nvlink\nlink: [nvlink3-bridge, ideal]", "rig: cpu\ndevices: 2")
        wall = wall.replace("[single, tensor_split]", "[single, replicas, layer_split, tensor_split]")
        self.scenario.write_text(wall.replace("clock: virtual\nop_times: modelled", "clock: wall"))
        done = self.sweep()
        self.assertEqual(done.returncode, 0, done.stderr)
        for r in self.records():
            self.assertEqual((r["fidelity"], r["clock"]), ("measured", "wall"))
            for phase in ["prefill", "decode"]:
                step, where = r[phase], (r["cell"], phase)
                self.assertEqual(sum(step["step_ns"]), step["time_ns"], where)
                for device in step["attribution"]:
                    parts = {k: v for k, v in device.items() if k != "device"}
                    self.assertTrue(all(v >= 0 for v in parts.values()), (where, parts))
                    self.assertLessEqual(abs(sum(parts.values()) - step["time_ns"]), 0.02 * step["time_ns"], where)
                self.assertTrue(any(d["compute_ns"] > 0 for d in step["attribution"]), where)

    def test_a_rig_of_the_catalogue_has_no_wall_clock_phases(self):
        self.scenario.write_text(SCENARIO.replace("clock: virtual\nop_times: modelled", "clock: wall"))
        done = self.sweep()
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("2x3090-nvlink", done.stderr)
        self.assertIn("clock: virtual", done.stderr)

    def test_modelled_times_repeat_to_the_byte(self):
        self.sweep()
        first = [{k: v for k, v in r.items() if k not in ("when", "repetition")} for r in self.records()]
        self.results.unlink()
        self.sweep()
        second = [{k: v for k, v in r.items() if k not in ("when", "repetition")} for r in self.records()]
        self.assertEqual(first, second)

    def test_links_share_a_run_and_differ_by_the_link_alone(self):
        self.sweep()
        for r in self.records():
            if r["plugin"]["name"] != "tensor_split" or r["link"] != "ideal":
                continue
            twin = next(o for o in self.records() if o["repetition"] == r["repetition"] and o["link"] != "ideal"
                        and o["model"]["name"] == r["model"]["name"] and o["plugin"] == r["plugin"])
            self.assertEqual(r["decode"]["attribution"][0]["compute_ns"], twin["decode"]["attribution"][0]["compute_ns"])
            self.assertEqual(r["decode"]["link_bytes"], twin["decode"]["link_bytes"])
            self.assertEqual(r["decode"]["link_share"], 0)
            self.assertGreater(twin["decode"]["link_share"], 0)

    def test_resume_after_a_kill_loses_and_doubles_nothing(self):
        process = subprocess.Popen([TANDEM, "run", str(self.scenario), "--out", str(self.out)], stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        for _ in range(2000):
            if self.results.exists() and self.results.read_text().count("\n") >= 3:
                break
            if process.poll() is not None:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with self.results.open("a") as file:
            file.write('{"schema_version":1,"torn')
        done = self.sweep("--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(self.keys()), sorted(set(self.keys())))
        self.assertEqual(len(self.keys()), RECORDS)
        before = self.results.read_text()
        self.assertEqual(self.sweep("--resume").returncode, 0)
        self.assertEqual(self.results.read_text(), before)

    def test_an_interrupt_can_be_resumed(self):
        process = subprocess.Popen([TANDEM, "run", str(self.scenario), "--out", str(self.out), "--set", "repetitions=400", "--set",
                                    "question=Who's there?"],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(2000):
            if self.results.exists() and self.results.read_text().count("\n") >= 3:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 8, errors)
        command = errors[errors.index("tandem run ") :].splitlines()[0]
        self.assertIn("again to stop now", errors)
        self.assertEqual(shlex.split(command), ["tandem", "run", str(self.scenario), "-o", str(self.out), "--set", "repetitions=400",
                                                "--set", "question=Who's there?", "--resume"])

    def test_an_interrupt_ends_a_long_repetition(self):
        self.scenario.write_text(SCENARIO.replace("tokens: 4,", "tokens: 30000,").replace("vocab=640", "vocab=640,ctx=40000"))
        process = subprocess.Popen([TANDEM, "run", str(self.scenario), "-o", str(self.out)], stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True)
        self.assertIn("tiny", process.stderr.readline())  # said before the first step
        time.sleep(1)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 8, errors)
        self.assertLess(time.monotonic() - begin, 30)
        self.assertFalse(self.results.exists() and self.records())

    def test_sequences_beyond_the_models_context_are_refused(self):
        for word, changed in (("prefill", "prefill: {tokens: 100000}"), ("decode", "decode: {context: 100000}")):
            self.scenario.write_text(SCENARIO[: SCENARIO.index("phases:")] + "phases:\n  " + changed + "\n")
            done = self.sweep("--dry-run")
            self.assertEqual(done.returncode, 2, (word, done.stderr))
            self.assertIn("was made for", done.stderr)

    def test_a_second_run_says_what_it_is_counted_with(self):
        one = self.sweep("--set", "repetitions=1")
        self.assertIn(f"{RECORDS // 3} records written: ", one.stdout)
        two = self.sweep("--set", "repetitions=1")
        self.assertIn(f"{RECORDS // 3} records written, {RECORDS // 3} earlier records kept and counted in: ", two.stdout)
        self.assertIn("0 records written, ", self.sweep("--set", "repetitions=1", "--resume").stdout)

    def test_every_key_is_documented(self):
        errors = self.sweep("--dry-run", "--set", "bogus=1").stderr
        known = re.search(r"known here: ([^)]*)\)", errors)[1].split(", ")
        text = (pathlib.Path(__file__).resolve().parents[2] / "scenarios" / "README.md").read_text()
        self.assertEqual(re.findall(r"^\| `(\w+)`", text, re.MULTILINE), known)

    def test_dry_run_writes_nothing(self):
        done = self.sweep("--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("PREDICTED", done.stdout)
        self.assertFalse(self.out.exists())

    def test_bad_scenarios_and_folders(self):
        self.scenario.write_text(SCENARIO + "plugn: single\n")
        done = self.sweep()
        self.assertEqual(done.returncode, 2)
        self.assertIn("tiny.yaml:13", done.stderr)
        self.assertIn("plugin", done.stderr)
        self.scenario.write_text(SCENARIO)
        self.out.write_text("a file where the folder should be")
        self.assertEqual(self.sweep().returncode, 1)
        self.assertEqual(self.run_tandem("run", self.root / "none.yaml").returncode, 1)
        self.assertEqual(self.run_tandem("report", self.root / "none").returncode, 1)

    def test_a_newer_results_file_is_left_alone(self):
        self.out.mkdir()
        text = '{"schema_version":99}\n'
        self.results.write_text(text)
        self.assertNotEqual(self.sweep("--resume").returncode, 0)
        self.assertEqual(self.results.read_text(), text)

    def test_a_results_file_in_use_is_left_alone(self):
        self.assertEqual(self.sweep("--set", "repetitions=1").returncode, 0)
        before = self.results.read_text()
        with self.results.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            done = self.sweep("--resume")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("in use", done.stderr)
        self.assertEqual(self.results.read_text(), before)

    def test_a_full_disk_leaves_whole_records_and_can_be_resumed(self):
        def full():  # a write past the limit fails as on a full disk
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

        done = subprocess.run([TANDEM, "run", str(self.scenario), "--out", str(self.out)], capture_output=True, text=True,
                              timeout=300, preexec_fn=full)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("tiny.jsonl", done.stderr)
        kept = self.keys()  # every line is a whole record
        self.assertTrue(0 < len(kept) < RECORDS, len(kept))
        self.assertEqual(self.sweep("--resume").returncode, 0)
        self.assertEqual(self.keys()[:len(kept)], kept)
        self.assertEqual(len(set(self.keys())), RECORDS)
        self.assertEqual(len(self.keys()), RECORDS)

    def test_a_folder_that_cannot_be_written(self):
        done = self.run_tandem("run", self.scenario, "--out", "/proc/tandem")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("/proc/tandem", done.stderr)

    def test_a_cell_that_does_not_fit_is_recorded_as_refused(self):
        done = self.sweep("--set", "model=llama-3.1-70b", "--set", "fidelity=predicted", "--set", "plugin=[single, layer_split]")
        self.assertEqual(done.returncode, 0, done.stderr)
        refused = [r for r in self.records() if "refused" in r]
        self.assertTrue(refused)
        self.assertIn("d0", refused[0]["refused"])

    def test_predicted_cells_that_have_no_price_say_so(self):
        done = self.sweep("--set", "fidelity=predicted", "--set", "phases.prefill.tokens=512", "--set", "prefill_products=[own, cublaslt]",
                          "--set", "link=ideal", "--set", "repetitions=1")
        self.assertEqual(done.returncode, 0, done.stderr)
        records = self.records()
        self.assertEqual({(r["prefill_products"], "refused" in r) for r in records}, {("own", False), ("cublaslt", True)})
        for r in records:
            if "refused" in r:
                self.assertIn("no measured rate of cuBLASLt", r["refused"])
                self.assertNotIn("prefill_tokens_per_s", r["predicted"])
        self.assertIn("not priced", done.stdout)
        # What an emulated run cannot do is refused before anything runs.
        done = self.sweep("--set", "prefill_products=cublaslt")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("is for GPUs", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
