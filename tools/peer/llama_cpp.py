"""The peer: llama.cpp, fetched, built and fed, outside everything that git tracks.

Fetches the sdist of the Python package llama-cpp-python by pip, builds what is asked for from the
llama.cpp inside it, and makes other weight types of a model with its llama-quantize. What is there
is kept, so a run that was cut off goes on where it was.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
# Built with g++ 12, llama.cpp crashes on hosts with AMX: that compiler drops part of the tile
# configuration.
C_COMPILER, CXX_COMPILER = "clang-19", "clang++-19"
SYNTHETIC = "h=2048,l=4,heads=32,kv=8,hd=64,ffn=8192,vocab=32000,ctx=4096,type=bf16,embed=bf16,tied=1,seed=7"

# What the tables call a model -> how llama-quantize makes it: its source, type and flags.
# "base" is the default model, dequantised; "wide" is the synthetic one.
RECIPES = {
    "f32": ("base", "F32", []), "f16": ("base", "F16", []), "bf16": ("base", "BF16", []),
    "q8_0": ("base", "Q8_0", []), "q4_0": ("base", "Q4_0", []),
    "q5_0": ("base", "Q5_0", []), "q5_1": ("base", "Q5_1", []),
    "q4_k_m": ("base", "Q4_K_M", []), "q5_k_m": ("base", "Q5_K_M", []), "q6_k": ("base", "Q6_K", []),
    "wide-q4_k": ("wide", "Q4_K_S", ["--pure"]), "wide-q5_k": ("wide", "Q5_K_S", ["--pure"]),
    "wide-q6_k": ("wide", "Q6_K", ["--pure"]),
}


def fail(message):
    sys.exit(f"error: {message}")


def say(message):
    print(f"== {message}", file=sys.stderr, flush=True)


def run(command, log=None, **options):
    """Runs to the end; a failure ends the program with the command and the last lines it said."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", **options)
    except FileNotFoundError:
        fail(f"{command[0]}: no such program")
    if log:
        log.write_text(done.stdout)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        fail(f"exit {done.returncode} from: {' '.join(command)}\n{tail}" + (f"\nall of it: {log}" if log else ""))
    return done.stdout


class Peer:
    """Where llama.cpp's source, programs and models are; each made when first asked for."""

    def __init__(self, folder, jobs=None):
        self.folder = pathlib.Path(folder or os.environ.get("TANDEM_PEER_DIR") or ROOT / "build" / "peer").resolve()
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.models = self.folder / "models"
        self.build = self.folder / "llama-build"
        self.models.mkdir(parents=True, exist_ok=True)

    @property
    def source(self):
        """llama.cpp's source tree."""
        tree = self.folder / f"{PACKAGE.replace('-', '_')}-{VERSION}"
        if not (tree / "vendor/llama.cpp/CMakeLists.txt").is_file():
            archive = self.folder / f"{tree.name}.tar.gz"
            if not archive.is_file():
                say(f"Fetching {PACKAGE} {VERSION} (77 MB)")
                self.pip("download", "--no-deps", "--no-binary", PACKAGE, "--dest", self.folder, f"{PACKAGE}=={VERSION}")
            say(f"Unpacking {archive.name}")
            with tarfile.open(archive) as tar:
                # Older Pythons have no filters, and warn of nothing either.
                tar.extractall(self.folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        return tree / "vendor/llama.cpp"

    def pip(self, *arguments):
        run([self.python(), "-m", "pip", "--disable-pip-version-check", *arguments])

    def python(self, *packages):
        """The interpreter of a virtual environment that has these packages."""
        python = self.folder / "venv/bin/python"
        if not python.is_file():
            run([sys.executable, "-m", "venv", self.folder / "venv"])
        missing = [p for p in packages if subprocess.run([python, "-c", f"import {p}"], capture_output=True).returncode]
        if missing:
            say(f"Installing {', '.join(missing)} into {self.folder}/venv")
            self.pip("install", "--quiet", *missing)
        return python

    def program(self, name):
        """The path of one of llama.cpp's programs, built when it is missing."""
        path = self.build / "bin" / name
        if not path.is_file():
            self._build(name)
        return path

    def _build(self, *targets):
        for tool, package in ((CXX_COMPILER, "clang-19"), ("cmake", "cmake"), ("ninja", "ninja-build")):
            if shutil.which(tool) is None:
                fail(f"building llama.cpp needs {tool}: apt-get install {package}")
        source = self.source
        log = self.folder / "build.log"
        if not (self.build / "build.ninja").is_file():
            say("Configuring llama.cpp (clang-19, native, Release, CPU only)")
            run(["cmake", "-S", source, "-B", self.build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 f"-DCMAKE_C_COMPILER={C_COMPILER}", f"-DCMAKE_CXX_COMPILER={CXX_COMPILER}", "-DGGML_NATIVE=ON",
                 "-DGGML_CUDA=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                 "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"], log)
        say(f"Building {', '.join(targets)} (some minutes the first time; {log} has what it says at the end)")
        run(["ninja", "-C", self.build, "-j", self.jobs, *targets], log)

    def compile(self, source, name):
        """A small C++ program against llama.cpp's library, made again when its source is newer."""
        path = self.build / "bin" / name
        library = self.build / "bin" / "libllama.so"
        if not library.exists():
            self._build("llama")
        if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
            say(f"Compiling {source.relative_to(ROOT)}")
            run([CXX_COMPILER, "-std=c++20", "-O2", f"-I{self.source}/include", f"-I{self.source}/ggml/include", source,
                 f"-L{library.parent}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{library.parent}", "-o", path])
        return path

    def model(self, name, default_model, tandem):
        """The file of one weight type: 'q4_1' is the default model itself, the rest is in RECIPES."""
        if name == "q4_1":
            return pathlib.Path(default_model)
        if name == "wide-bf16":
            return self._synthetic(tandem)
        if name not in RECIPES:
            fail(f"weight type '{name}': known are q4_1, wide-bf16, {', '.join(RECIPES)}")
        path = self.models / f"{name}.gguf"
        if path.is_file():
            return path
        kind, target, flags = RECIPES[name]
        if kind == "wide":
            source = self._synthetic(tandem)
        elif name == "f32":
            source = pathlib.Path(default_model)
        else:
            source = self.model("f32", default_model, tandem)
        say(f"Making {path.name} from {source.name}")
        self.quantize(source, path, target, flags)
        return path

    def quantize(self, source, path, target, flags):
        """llama-quantize; the file appears whole or not at all."""
        part = path.with_suffix(".part")
        run([self.program("llama-quantize"), "--allow-requantize", *flags, source, part, target, self.jobs],
            self.models / f"{path.stem}.log")
        part.rename(path)

    def _synthetic(self, tandem):
        """A random model wide enough for K types. llama.cpp wants to be told that it has no vocabulary."""
        path = self.models / "wide-bf16.gguf"
        if not path.is_file():
            say("Making the synthetic model of hidden size 2,048")
            plain = self.models / "wide-plain.gguf"
            run([tandem, "models", "synthesize", SYNTHETIC, "-o", plain])
            self.quantize(plain, path, "BF16", ["--override-kv", "tokenizer.ggml.model=str:no_vocab",
                                                 "--override-kv", f"llama.vocab_size=int:{synthetic_vocabulary()}"])
            plain.unlink()
        return path


def synthetic_vocabulary():
    return int(dict(part.split("=") for part in SYNTHETIC.split(","))["vocab"])


def default_model():
    """Where tools/test and tools/quickstart put the default model."""
    data = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share"
    path = pathlib.Path(data) / "tandem/models/smollm2-135m.gguf"
    if not path.is_file():
        fail(f"no default model at {path}: tools/quickstart gets it, or give --model FILE")
    return path


def tandem_program(given):
    path = pathlib.Path(given) if given else ROOT / "build/release/bin/tandem"
    if not path.is_file():
        fail(f"no tandem at {path}: build it (tools/quickstart), or give --tandem PATH")
    return path


def cpu():
    """(model name, tier): tier 'B' has AMX, 'A' AVX-512 with VNNI and BF16, '-' neither."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").is_file() else ""
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    if {"amx_int8", "amx_bf16"} <= flags:
        tier = "B"
    elif {"avx512_vnni", "avx512_bf16"} <= flags:
        tier = "A"
    else:
        tier = "-"
    return fields.get("model name", "unknown CPU"), tier
