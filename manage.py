#!/usr/bin/env python
"""Django's command line: `manage.py help` lists the commands; `up`, `register`, `invoke`, `doctor` are ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

from runtime.errors import RuntimeFault


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime.project.settings")
    sys.path.insert(0, str(Path.cwd()))  # an author's modules are where the author is
    try:
        execute_from_command_line(sys.argv)
        sys.stdout.flush()
    except RuntimeFault as fault:  # settings that cannot be understood: nothing of Django is there yet
        sys.exit(f"{fault}\n{fault.hint}".rstrip())
    except BrokenPipeError:  # whoever read us, as `head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
