"""tools/gpu-check: what it does when steps fail, hang or run out of time (with a program that is made up), and that it passes on
emulated GPUs where the build has them."""
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest

CHECK = str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools" / "gpu-check")
EMULATED = sys.argv.pop() if len(sys.argv) > 1 and sys.argv[-1].endswith("bin") else None

FAKE = r"""#!/bin/bash
echo "$*" >> "$(dirname "$0")/asked"
case "$1 $2" in
  "--version "*) echo "tandem 0" ;;
  "rig show") [ -e "$(dirname "$0")/no-share" ] && case "$*" in *--devices*) echo "cannot cut" >&2; exit 6 ;; esac
    case "$*" in *--devices*) echo '{"gpu_shares": [{"gpu_sms": 132, "sms": 48}]}' ;; *) echo "CUDA: driver"; echo "  cuda:0 card" ;; esac ;;
  "rig test") echo "path  what      result"; echo "copy  d0 to d1  right"; echo "copy  d1 to d0  right"
    echo "p2p   d0 to d1  right"; echo "p2p   d1 to d0  WRONG: element 3"; echo "nccl  can be had  absent: no" ; exit 6 ;;
  "rig machine-folder") echo box ;;
  "rig probe") exit 2 ;;
  "generate "*) case "$*" in *layer_split*) echo '{"token_ids": [1, 9]}' ;; *) echo '{"token_ids": [1, 2]}' ;; esac ;;
  "bench "*) case "$*" in *offload*) echo "no room" >&2; exit 4 ;; *tensor_split*--path*) sleep 0 ;; esac; echo '[]' ;;
  "run "*|"report "*) ;;
  *) exit 9 ;;
esac
"""


class Made(unittest.TestCase):
    """A program whose answers are made up."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.bin = pathlib.Path(self.folder.name) / "bin"
        self.bin.mkdir()
        self.program("tandem", FAKE)
        self.program("good_gpu_test", "#!/bin/sh\necho fine\n")
        self.program("bad_gpu_test", "#!/bin/sh\necho one is wrong\nexit 3\n")
        self.out = pathlib.Path(self.folder.name) / "out"

    def tearDown(self):
        self.folder.cleanup()

    def program(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def check(self, *args, status=1):
        done = subprocess.run([CHECK, "--bin", self.bin, "--out", self.out, "--shapes", "tiny", *args], capture_output=True, text=True,
                              timeout=120)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def rows(self):
        lines = (self.out / "status.tsv").read_text().splitlines()
        return {name: (result, status, why) for result, name, status, _, why in (line.split("\t") for line in lines)}

    def asked(self):
        path = self.bin / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def test_a_step_that_fails_stops_none_after_it(self):
        done = self.check("--parts", "share,paths,greedy,tests,probe,plugins,shapes,links,records")
        rows = self.rows()
        self.assertEqual(rows["paths"][:2], ("FAILED", "6"))
        self.assertEqual(rows["greedy"][0], "FAILED")
        self.assertIn("DIFFERENT: layer_split", (self.out / "greedy.txt").read_text())
        self.assertEqual(rows["test-bad_gpu_test"], ("FAILED", "3", "one is wrong"))
        self.assertEqual(rows["test-good_gpu_test"][0], "passed")
        self.assertEqual(rows["probe"][0], "not here")
        self.assertEqual(rows["plugin-offload"], ("FAILED", "4", "no room"))
        for name in ["share", "plugin-tensor_split", "shape-tiny-one", "shape-tiny-both", "link-copy-1", "link-copy-2", "records-gpu_splits",
                     "records-gpu_paths", "records-gpu_decode", "report"]:
            self.assertEqual(rows[name][0], "passed", name)
        both = [line for line in self.asked() if "tensor_split" in line]
        self.assertTrue(all("--gpu-share 48" in line for line in both), "cut once as measured")
        self.assertNotIn("link-p2p-1", rows, "a path that delivers wrong values is not timed")
        self.assertIn("emulated", (self.out / "summary.txt").read_text())
        self.assertIn("FAILED", done.stdout)
        with tarfile.open(str(self.out) + ".tar.gz") as archive:
            self.assertLessEqual({"out/status.tsv", "out/summary.txt", "out/greedy.txt"}, set(archive.getnames()))

    def test_resume_runs_what_has_not_passed(self):
        self.check("--parts", "tests")
        self.program("bad_gpu_test", "#!/bin/sh\necho mended\n")
        self.program("good_gpu_test", "#!/bin/sh\nexit 1\n")
        self.check("--parts", "tests", "--resume", status=0)
        self.assertEqual({row[0] for row in self.rows().values()}, {"passed"})
        self.check("--parts", "tests", status=1)  # anew without it

    def test_a_step_that_hangs_and_time_that_ends(self):
        self.program("a_gpu_test", "#!/bin/sh\necho begun\nsleep 60\n")
        self.check("--parts", "tests,plugins", "--seconds", "12")
        rows = self.rows()
        self.assertEqual(rows["test-a_gpu_test"][:2], ("FAILED", "124"))
        self.assertIn("stopped after", rows["test-a_gpu_test"][2])
        self.assertEqual(rows["plugin-single"][0], "left out")
        self.assertTrue(pathlib.Path(str(self.out) + ".tar.gz").exists())

    def test_a_gpu_that_cannot_be_cut(self):
        (self.bin / "no-share").touch()
        self.check("--parts", "share,plugins")
        rows = self.rows()
        self.assertEqual(rows["share"][0], "FAILED")
        self.assertEqual(rows["share-fallback"][0], "FAILED")
        self.assertTrue(any("tensor_split" in line and "--gpu-share off" in line for line in self.asked()))

    def test_two_devices_that_are_two_gpus_are_not_cut(self):
        self.check("--parts", "share,plugins", "--devices", "cuda:0,cuda:1")
        self.assertFalse(any("rig show --devices" in line for line in self.asked()))
        self.assertNotIn("emulated", (self.out / "summary.txt").read_text())

    def test_bad_arguments(self):
        for args in [["--parts", "some"], ["--seconds", "long"], ["--devices"], ["--what"]]:
            self.check(*args, status=2)


@unittest.skipUnless(EMULATED, "the build has no emulated GPUs")
class EmulatedGpus(unittest.TestCase):
    def run_on(self, devices):
        with tempfile.TemporaryDirectory() as folder:
            model = "synthetic:h=64,l=2,heads=4,kv=2,ffn=128,vocab=256,tied=0,type=q8_0,seed=3"
            done = subprocess.run([CHECK, "--bin", EMULATED, "--out", folder + "/out", "--devices", devices, "--model", model, "--shapes",
                                   model, "--prompt", "16", "--parts", "machine,share,paths,greedy,shapes,prefill,links"], capture_output=True, text=True, timeout=280)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout

    def test_one_gpu_as_two(self):
        self.assertIn("emulated", self.run_on("cuda:0,cuda:0"))

    def test_two_gpus(self):
        self.assertIn("link-copy-2", self.run_on("cuda:0,cuda:1"))


if __name__ == "__main__":
    unittest.main(verbosity=1)
