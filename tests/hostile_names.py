"""Names that look like something else, what is no file, and files that name other files."""

import os
import socket
import stat

from hostile_case import REJECTED, Case, Maker, ok, rejected


def names(maker: Maker) -> None:
    for name in (
        "with space.flac",
        "quote ' and \" double.flac",
        "'; DROP TABLE tracks; --.flac",
        "new\nline.flac",
        "tab\tand\rreturn.flac",
        "percent %41 %00 %.flac",
        "emoji \U0001f3b5 \U0001f468\u200d\U0001f469.flac",
        "right \u202e to left \u200f.flac",
        "<script>alert(1)<\u2215script>.flac",
        "&amp; <b>.flac",
        "$(touch pwned) `id` ;ls.flac",
        "back\\slash.flac",
        "-rf.flac",
        "col=val/part=1.flac",
        "_hidden.flac",
        ".hidden.flac",
        "a:b.flac",
        "question?mark#hash.flac",
        "{brace} [bracket] *.flac",
        "..flac",
        "~home.flac",
        "x" * 250 + ".flac",
        "/".join(["deep"] * 40) + "/down.flac",
        b"latin caf\xe9.flac",
        b"bytes \xff\xfe\x80.flac",
        "file:name.flac",
        "concat:a|b.flac",
        "pipe:0.flac",
    ):
        maker.add(name, "names", maker.good(".flac"), **ok())


def not_files(maker: Maker) -> None:
    (maker.folder / "target.flac").write_bytes(maker.good(".flac"))
    maker.cases.append(Case(b"target.flac", "not files", **ok()))
    for name, target in (
        ("link inside.flac", "target.flac"),
        ("link outside.flac", str(maker.sources[".flac"])),
        ("link to nothing.flac", "/nonexistent/file"),
        ("link to itself.flac", "link to itself.flac"),
        ("link to a folder", str(maker.outside)),
        ("link to passwd.wav", "/etc/passwd"),
    ):
        (maker.folder / name).symlink_to(target)
        maker.cases.append(Case(os.fsencode(name), "symbolic links", **rejected("symlink")))
    (maker.folder / "circle").mkdir()
    (maker.folder / "circle" / "round").symlink_to(maker.folder / "circle")
    maker.cases.append(Case(b"circle/round", "symbolic links", **rejected("symlink")))
    os.mkfifo(maker.folder / "fifo.wav")
    maker.cases.append(Case(b"fifo.wav", "not files", **rejected("not_a_file")))
    (maker.folder / "folder.wav").mkdir()  # empty: no title
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(maker.folder)  # the name of a socket may have 107 bytes
        try:
            listener.bind("socket.wav")
        finally:
            os.chdir(before)
    maker.cases.append(Case(b"socket.wav", "not files", **rejected("not_a_file")))
    try:
        os.mknod(maker.folder / "zero.wav", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        maker.cases.append(Case(b"zero.wav", "not files", **rejected("not_a_file")))
    except PermissionError:
        pass  # only root makes devices
    maker.add(
        "unreadable.flac",
        "not files",
        maker.good(".flac"),
        **(ok() if os.geteuid() == 0 else rejected("unreadable")),
    ).chmod(0)


def playlists(maker: Maker) -> None:
    other = maker.sources[".wav"]
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n"
    texts = {
        "hls.mp3": hls,
        "hls.m3u8.flac": hls,
        "hls with key.mp3": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n',
        "m3u.mp3": "#EXTM3U\n#EXTINF:3,x\n{0}\n",
        "concat.mp3": "ffconcat version 1.0\nfile {0}\n",
        "concat quoted.flac": "ffconcat version 1.0\nfile '{0}'\nduration 3\n",
        "pls.mp3": "[playlist]\nNumberOfEntries=1\nFile1={0}\n",
        "cue.wav": 'FILE "{0}" WAVE\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n',
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "asx.wma": '<asx version="3.0"><entry><ref href="{0}"/></entry></asx>',
        "asf reference.wma": "[Reference]\nRef1={0}\n",
        "sdp.mp3": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "smil.mp4": '<smil><body><audio src="{0}"/></body></smil>',
        "rtsp.mov": "RTSPtext\nrtsp://127.0.0.1/x\n",
        "imf.xml.mxf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013"><Id>urn:uuid:1</Id></CompositionPlaylist>',
        "webvtt hls.m4a": '#EXTM3U\n#EXT-X-MAP:URI="{0}"\n#EXTINF:1,\n{0}\n',
    }
    for name, text in texts.items():
        for where, target in (("file", other), ("url", "http://127.0.0.1:9/trap.wav")):
            stem, suffix = os.path.splitext(name)
            maker.add(
                f"{stem} {where}{suffix}",
                "playlists",
                text.format(target).encode(),
                **rejected("not_media", "no_audio"),
            )
    # A QuickTime film whose samples lie in another file.
    data = bytearray(maker.good(".mp4"))
    at = data.find(b"url \0\0\0\x01")
    if at > 0:
        data[at : at + 8] = b"alis\0\0\0\0"
    maker.add("external samples.mp4", "playlists", bytes(data), **{"status": frozenset({"ok", "partial", REJECTED})})
