"""The source package of llama-cpp-python, which carries llama.cpp: its test vocabularies and chat templates.

Nothing of it is kept in this repository; tools that need it unpack it under build/.

    folder = peer_source_folder()      # build/peer/llama_cpp_python-0.3.36
"""

import pathlib
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = "0.3.36"


def peer_source_folder():
    """The unpacked package, fetched with pip the first time."""
    home = ROOT / "build" / "peer"
    folder = home / f"llama_cpp_python-{VERSION}"
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    archive = home / f"llama_cpp_python-{VERSION}.tar.gz"
    if not archive.exists():
        print(f"fetching llama-cpp-python {VERSION} into {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                        "--dest", home, f"llama-cpp-python=={VERSION}"], check=True, stdout=sys.stderr)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        partial = home / "unpacking"
        tar.extractall(partial)
    (partial / folder.name).rename(folder)
    partial.rmdir()
    return folder
