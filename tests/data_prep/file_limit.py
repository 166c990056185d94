"""Runs a module with a limit on the size of its files and those of its workers.

python -m tests.data_prep.file_limit NUM_BYTES MODULE [ARGUMENT …]
"""

import resource
import runpy
import sys

if __name__ == "__main__":
    _, num_bytes, module, *arguments = sys.argv
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(num_bytes),) * 2)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
