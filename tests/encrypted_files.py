"""Makes encrypted files of plain ones, as packagers, cinemas, broadcasters and shops leave them."""

import os
import random

ENCRYPTED_ELEMENT = bytes.fromhex("060e2b34020401070d010301027e0100")
SOUND_ELEMENT = bytes.fromhex("060e2b34010201010d01030116")  # and three bytes that say which
CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}  # options of FFmpeg's MP4 muxer
TITLE = "x" * 60  # of a track in Matroska, in whose place `matroska` puts the encryption


def _ber(number: int) -> bytes:
    return b"\x83" + number.to_bytes(3, "big")


def mxf(plain: bytes) -> bytes:
    """Its sound elements encrypted as in cinema packages (SMPTE ST 429-6), each somewhat shorter so that no offset changes."""
    out, at = [], 0
    while at + 17 <= len(plain):
        key, first = plain[at : at + 16], plain[at + 16]
        width = first & 0x7F if first & 0x80 else 0
        length = int.from_bytes(plain[at + 17 : at + 17 + width], "big") if width else first
        end = at + 17 + width + length
        if key.startswith(SOUND_ELEMENT) and width == 3:
            room = length - 100  # of the whole samples that are left
            source = (room - 6) // 6 * 6
            body = _ber(16) + os.urandom(16) + _ber(8) + bytes(8) + _ber(16) + key + _ber(8) + source.to_bytes(8, "big")
            body += _ber(32 + room) + os.urandom(32 + room)
            out.append(ENCRYPTED_ELEMENT + _ber(len(body)) + body)
        else:
            out.append(plain[at:end])
        at = end
    return b"".join(out)


def matroska(plain: bytes) -> bytes:
    """A track titled `TITLE` whose blocks are encrypted by its ContentEncodings; the blocks are left as they are."""

    def element(name: str, body: bytes) -> bytes:
        return bytes.fromhex(name) + bytes([0x80 | len(body)]) + body

    scheme = element("47e1", b"\x05") + element("47e2", bytes(range(16)))
    encoding = element("5031", b"\x00") + element("5032", b"\x01") + element("5033", b"\x01") + element("5035", scheme)
    encodings = element("6d80", element("6240", encoding))
    old = element("536e", TITLE.encode())
    assert plain.count(old) == 1
    rest = len(old) - len(encodings) - 2
    return plain.replace(old, encodings + element("ec", bytes(rest)))


def transport_stream(plain: bytes, begin: float, end: float, step: int = 188) -> bytes:
    """The packets of its fullest stream between two shares of its length scrambled, in packets of another size if asked."""
    noise = random.Random(1)
    packets = [bytearray(plain[at : at + 188]) for at in range(0, len(plain) - 187, 188)]
    pids = [(packet[1] & 0x1F) << 8 | packet[2] for packet in packets]
    fullest = max(set(pids), key=pids.count)
    out = bytearray()
    for number, (packet, pid) in enumerate(zip(packets, pids, strict=True)):
        payload = 5 + packet[4] if packet[3] & 0x20 else 4
        if pid == fullest and packet[3] & 0x10 and begin <= number / len(packets) < end:
            packet[3] |= 0x80
            packet[payload:] = noise.randbytes(188 - payload)
        out += bytes(step - 188 if step == 192 else 0) + packet + bytes(step - 188 if step == 204 else 0)
    return bytes(out)


def asf(plain: bytes) -> bytes:
    """With Microsoft's content encryption object as the last of its headers; its payload is left as it is."""
    size, count = int.from_bytes(plain[16:24], "little"), int.from_bytes(plain[24:28], "little")
    body = b"".join(len(part).to_bytes(4, "little") + part for part in (b"secret", b"DRM\x00", b"key\x00", b"url\x00"))
    added = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + (24 + len(body)).to_bytes(8, "little") + body
    head = plain[:16] + (size + len(added)).to_bytes(8, "little") + (count + 1).to_bytes(4, "little") + plain[28:size]
    return head + added + plain[size:]


def mp4(plain: bytes, entry: bytes) -> bytes:
    """With another sample entry than "mp4a", such as "drms" of protected downloads; its samples are left as they are."""
    at = plain.rindex(b"mp4a")
    return plain[:at] + entry + plain[at + 4 :]
