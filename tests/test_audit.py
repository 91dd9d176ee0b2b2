"""The audit of dependencies tells "nothing found" from "nothing was looked up"."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
VULNERABLE = {"name": "pyyaml", "version": "5.3", "vulns": [{"id": "CVE-2020-14343", "fix_versions": ["5.4"]}]}
SKIPPED = {"name": "pyyaml", "skip_reason": "not found"}
SOUND = {"name": "av", "version": "18.1.0", "vulns": []}
BAD = {"name": "av", "version": "18.1.0", "vulns": [{"id": "X-1", "fix_versions": []}]}


@pytest.mark.parametrize(
    ("canary", "lock", "status", "said"),
    [
        ([SKIPPED], [SOUND], 3, "NO AUDIT: the advisory service does not know that pyyaml==5.3 is vulnerable"),
        ([{**VULNERABLE, "vulns": []}], [SOUND], 3, "NO AUDIT"),
        (None, [SOUND], 3, "NO AUDIT: pip-audit fails: no route to host"),
        ([VULNERABLE], [SOUND], 0, "1 packages audited, 0 vulnerable"),
        ([VULNERABLE], [SOUND, BAD], 1, "av 18.1.0: X-1, fixed in no version"),
        ([VULNERABLE], [SOUND, SKIPPED], 0, "not audited: pyyaml"),
    ],
)
def test_no_canary_no_audit(tmp_path, canary, lock, status, said):
    """With an advisory service that answers as given, in place of pip-audit."""
    (tmp_path / "pip_audit.py").write_text(
        "import sys\n"
        "answer = {'canary': sys.argv[2].endswith('canary.txt')}\n"
        f"packages = {canary!r} if answer['canary'] else {lock!r}\n"
        "if packages is None:\n    sys.exit('no route to host')\n"
        "import json\nprint(json.dumps({'dependencies': packages, 'fixes': []}))\n"
    )
    done = subprocess.run(
        [sys.executable, PROJECT / ".ci" / "audit.py"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr


def test_every_pin_has_a_hash_and_no_host():
    lock = (PROJECT / "requirements.lock").read_text()
    pins = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pins) > 100
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock
    assert all("==" in pin for pin in pins)
