# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the key validator: ``python3 -I /usr/local/lib/llm-key-validator``.

Running the directory puts just this directory on the path of an isolated (-I) interpreter.
"""

import sys

from llm_key_validator.main import main

sys.exit(main())
