#!/usr/bin/env python3
"""Checks the pinned dependencies for known vulnerabilities, and first that the check can find one.

A package that is known to be bad (a canary) is audited before the lock file. Where the advisory service does not know
of it, or cannot be reached, an auditor finds nothing and looks content; so nothing found there means no audit.

Exit status: 0 nothing known against any pin, 1 vulnerabilities found, 3 no audit took place.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CANARY = "pyyaml==5.3"  # CVE-2020-14343: full_load runs code
PROJECT = Path(__file__).resolve().parent.parent


def audited(requirements: Path, *options: str) -> list[dict]:
    """What pip-audit says of each package of a requirements file; raises RuntimeError where it says nothing."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), "--disable-pip", "-f", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout[done.stdout.index("{") :])["dependencies"]
    except (ValueError, KeyError) as error:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(last) from error


def main() -> int:
    """Audit the canary, then the lock file."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY + "\n")
        try:
            found = audited(canary, "--no-deps")
        except RuntimeError as error:
            print(f"NO AUDIT: pip-audit fails: {error}")
            return 3
    if not any(package.get("vulns") for package in found):
        reason = next((package["skip_reason"] for package in found if "skip_reason" in package), "nothing known")
        print(
            f"NO AUDIT: the advisory service does not know that {CANARY} is vulnerable ({reason}); nothing was checked"
        )
        return 3
    packages = audited(PROJECT / "requirements.lock", "--require-hashes")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    bad = [package for package in packages if package.get("vulns")]
    for package in bad:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions") or []) or "no version"
            print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(
        f"{len(packages) - len(skipped)} packages audited, {len(bad)} vulnerable, {len(skipped)} not known to the service"
    )
    if skipped:
        print(f"not audited: {', '.join(skipped)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
