"""Exit with 0 if this Python can compile an extension module here: a C compiler that finds Python.h."""

import os
import shlex
import subprocess
import sys
import sysconfig

compiler = shlex.split(os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc"))
headers = {f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")}
try:
    run = subprocess.run(
        [*compiler, *headers, "-E", "-"], input=b"#include <Python.h>\n", capture_output=True, check=False
    )
except OSError:  # no such program
    sys.exit(1)
sys.exit(run.returncode != 0 or sys.implementation.name != "cpython")
