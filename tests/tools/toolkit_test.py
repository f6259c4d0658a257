"""tools/setup.sh and tools/cuda-toolkit: what a machine with NVIDIA's driver is built with. No network: pip and the compilers are made up."""
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# `python3 -m pip install ... --target DIR ...` lays out what the packages would.
PIP = r"""#!/bin/bash
echo "$*" >> "$HOME/asked"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2"/nvidia/cu13/{bin,lib,include} "$2"/nvidia/cu13/nvvm/bin "$2"/nvidia/nccl/{lib,include}
cat > "$2/nvidia/cu13/bin/nvcc" <<'NVCC'
#!/bin/bash
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\nexit %s\n' "${FAKE_STATUS:-0}" > "$2"; chmod +x "$2"
NVCC
chmod +x "$2/nvidia/cu13/bin/nvcc"; touch "$2/nvidia/cu13/nvvm/bin/cicc"
"""


class Toolkit(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)
        self.program("pip", PIP)

    def program(self, name, text):
        path = self.home / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "XDG_DATA_HOME", "TANDEM_CUDA_DRIVER")}
        return {**kept, "HOME": str(self.home), "PYTHON": str(self.home / "pip"), "PATH": f"{self.home}:/usr/bin:/bin", **more}

    def choose(self, before="find_nvcc() { :; }", **more):
        """What quickstart would give to CMake, and what it says."""
        script = f'set -euo pipefail; root="{ROOT}"; . "$root/tools/setup.sh"; {before}; choose_cuda; printf "%s\\n" "$cuda" "${{cuda_arguments[@]}}"'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=self.environment(**more))
        return done.stdout.split("\n")[:-1], done.stderr, done.returncode

    def test_no_driver_no_cuda(self):
        self.assertEqual(self.choose(TANDEM_CUDA_DRIVER="no"), (["OFF"], "", 0))

    def test_an_answer_that_is_none(self):
        _, said, status = self.choose(TANDEM_CUDA_DRIVER="maybe")
        self.assertEqual(status, 1)
        self.assertIn("want yes or no", said)

    def test_a_toolkit_that_is_installed_is_taken(self):
        nvcc = self.program("my-nvcc", "#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n")
        chosen, _, _ = self.choose(before=":", TANDEM_CUDA_DRIVER="yes", CUDACXX=nvcc)
        self.assertEqual(chosen, ["ON", f"-DCMAKE_CUDA_COMPILER={nvcc}"])

    def test_an_old_one_is_not(self):
        nvcc = self.program("my-nvcc", "#!/bin/sh\necho Cuda compilation tools, release 12.4, V12.4.1\n")
        script = f'. "{ROOT}/tools/setup.sh"; find_nvcc'
        found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=self.environment(CUDACXX=nvcc)).stdout
        self.assertNotIn("my-nvcc", found)

    def test_without_one_it_comes_from_python_packages(self):
        self.program("nvidia-smi", "#!/bin/sh\nprintf '9.0\\n8.6\\n8.6\\n'\n")
        chosen, _, status = self.choose(TANDEM_CUDA_DRIVER="yes")
        folder = self.home / ".local/share/tandem/cuda-13.0/nvidia"
        self.assertEqual(status, 0)
        self.assertEqual(chosen, ["ON", f"-DCMAKE_CUDA_COMPILER={folder}/cu13/bin/nvcc", f"-DCUDAToolkit_ROOT={folder}/cu13",
                                  f"-DTANDEM_NCCL_INCLUDE={folder}/nccl/include", f"-DTANDEM_NCCL_LIBRARY={folder}/nccl/lib/libnccl.so",
                                  "-DCMAKE_CUDA_ARCHITECTURES=86;90a"])
        self.assertTrue((folder / "cu13/lib64").is_symlink())
        self.assertEqual(self.choose(TANDEM_CUDA_DRIVER="yes")[0], chosen)
        self.assertEqual(len((self.home / "asked").read_text().splitlines()), 1, "brought once")

    def test_packages_that_cannot_be_had(self):
        chosen, said, status = self.choose(TANDEM_CUDA_DRIVER="yes", PYTHON="/bin/false")
        self.assertEqual((chosen, status), (["OFF"], 0))
        self.assertIn("building for the CPU alone; to try again: tools/quickstart", said)

    def test_a_compiler_that_does_not_work_is_not_kept(self):
        chosen, said, _ = self.choose(TANDEM_CUDA_DRIVER="yes", FAKE_STATUS="1")
        self.assertEqual(chosen[0], "OFF")
        self.assertIn("does not work", said)
        self.assertFalse((self.home / ".local/share/tandem/cuda-13.0").exists())
        self.assertEqual(self.choose(TANDEM_CUDA_DRIVER="yes")[0][0], "ON", "the next time it does")


if __name__ == "__main__":
    unittest.main(verbosity=1)
