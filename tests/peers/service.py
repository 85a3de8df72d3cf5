"""The units, as systemd-analyze reads them; it needs no running systemd."""

import re

from common import PLACE, ROOT, expect, has, output

UNITS = ROOT / "contrib" / "systemd"
# Exposure times 10: below 2.0 is systemd's "OK".
THRESHOLD = "20"


def units(folder):
    """No unit has a fault, and the service exposes little."""
    if not has("systemd-analyze"):
        return
    place = PLACE / "units"
    place.mkdir(parents=True, exist_ok=True)
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/socks5d", str(folder / "socks5d"))
        (place / unit.name).write_text(text)
    copies = sorted(place / unit.name for unit in UNITS.iterdir())
    said, code = output("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *copies)
    expect(code == 0 and not said.strip(), f"systemd-analyze verify: {len(copies)} units without a fault\n{said}")
    service = place / "socks5d.service"
    said, code = output("systemd-analyze", "security", "--offline=yes", f"--threshold={THRESHOLD}", service)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    expect(code == 0 and exposure, f"systemd-analyze security: {exposure.group(1) if exposure else said}")
