"""docker/apk.py DIR FILE NAME VERSION ARCHITECTURE DESCRIPTION LICENSE: what lies in DIR as a package of Alpine, not signed.

Its form is that of apk 2, which apk 3 reads too: two gzipped tars, one behind the other. The first has .PKGINFO and no end, so that
both are one tar; the second has the files, each with its checksum.
"""

import gzip, hashlib, io, os, pathlib, sys, tarfile

root, file, name, version, architecture, description, licence = sys.argv[1:]
time = int(os.environ["SOURCE_DATE_EPOCH"])


def entry(path, kind, size=0, mode=0o644):
    info = tarfile.TarInfo(path)
    info.type, info.size, info.mode, info.mtime = kind, size, mode, time
    info.uname = info.gname = "root"
    return info


def packed(entries, ends):
    raw = io.BytesIO()
    tar = tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT)
    for info, content in entries:
        tar.addfile(info, io.BytesIO(content))
    length = tar.offset
    tar.close()
    return gzip.compress(raw.getvalue() if ends else raw.getvalue()[:length], mtime=0)


files, size = [], 0
for path in sorted(pathlib.Path(root).rglob("*")):
    place, mode = str(path.relative_to(root)), path.stat().st_mode & 0o777
    if path.is_dir():
        files.append((entry(place, tarfile.DIRTYPE, mode=mode), b""))
    else:
        content = path.read_bytes()
        info = entry(place, tarfile.REGTYPE, len(content), mode)
        info.pax_headers["APK-TOOLS.checksum.SHA1"] = hashlib.sha1(content).hexdigest()
        files.append((info, content))
        size += len(content)
data = packed(files, True)
about = {
    "pkgname": name,
    "pkgver": version,
    "pkgdesc": description,
    "builddate": time,
    "size": size,
    "arch": architecture,
    "license": licence,
    "datahash": hashlib.sha256(data).hexdigest(),
}
text = "".join(f"{key} = {value}\n" for key, value in about.items()).encode()
pathlib.Path(file).write_bytes(packed([(entry(".PKGINFO", tarfile.REGTYPE, len(text)), text)], False) + data)
