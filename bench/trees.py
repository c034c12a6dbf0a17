"""Makes what the benches build and move: the same bytes every time. Usage: trees.py DIRECTORY WHAT…, where each is a function below

The environment may ask for other sizes: FILE_MIB of the big files, LAYER_MIB of each layer.
"""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile

SIZES = [100, 500, 1000, 2000, 4000, 8000]
FILE_MIB = int(os.environ.get("FILE_MIB", 1024))
LAYER_MIB = int(os.environ.get("LAYER_MIB", 100))


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def many(root):
    """50,000 files in 500 directories."""
    random.seed(1)
    for directory in range(500):
        path = f"{root}/many/src/d{directory // 50:02}/d{directory:03}"
        os.makedirs(path)
        for name in range(100):
            with open(f"{path}/f{name:02}", "wb") as file:
                file.write(random.randbytes(random.choice(SIZES)))
    write(f"{root}/many/Dockerfile", "FROM scratch\nCOPY src /src/\n")


def big(root):
    """One file of a gibibyte that nothing can compress."""
    os.makedirs(f"{root}/big")
    with open(f"{root}/big/file", "wb") as file:
        for _ in range(FILE_MIB):
            file.write(os.urandom(1 << 20))
    write(f"{root}/big/Dockerfile", "FROM scratch\nCOPY file /file\n")


def archive(root):
    """A tarball of 20,000 files in 200 directories."""
    random.seed(2)
    os.makedirs(f"{root}/tar")
    with tarfile.open(f"{root}/tar/a.tar", "w") as out:
        for directory in range(200):
            entry = tarfile.TarInfo(f"d{directory}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            out.addfile(entry)
            for name in range(100):
                data = random.randbytes(random.choice(SIZES))
                entry = tarfile.TarInfo(f"d{directory}/f{name}")
                entry.size, entry.mtime = len(data), 1700000000
                out.addfile(entry, io.BytesIO(data))
    write(f"{root}/tar/Dockerfile", "FROM scratch\nADD a.tar /a/\n")


def small(root):
    """Ten instructions on a context of twenty small files; twenty trivial steps; eight stages that sleep."""
    for at in range(1, 21):
        write(f"{root}/small/file{at}", f"file {at}\n")
    write(
        f"{root}/small/Dockerfile",
        "FROM localhost/busybox\nENV A=1\nWORKDIR /app\nCOPY file1 file2 /app/\nRUN echo one > /one\nCOPY . /src/\n"
        "RUN cat /src/* > /all\nENV B=2\nRUN wc -l /all\nCMD [\"cat\", \"/all\"]\n",
    )
    write(f"{root}/steps/Dockerfile", "FROM localhost/busybox\n" + "".join(f"RUN true {at}\n" for at in range(20)))
    stages = "".join(f"FROM localhost/busybox AS s{at}\nRUN sleep 1 && echo {at} > /out{at}\n" for at in range(8))
    write(f"{root}/sleep/Dockerfile", stages + "FROM scratch\n" + "".join(f"COPY --from=s{at} /out{at} /\n" for at in range(8)))


def stages(root):
    """Stages of one COPY each: each copies from the one before, or is FROM it; or all are copied into a last one."""
    for count in (250, 500, 1000, 2000):
        write(f"{root}/stages{count}/f", "x\n")
        text = "FROM scratch AS s0\nCOPY f /f0\n"
        text += "".join(f"FROM scratch AS s{at}\nCOPY --from=s{at - 1} /f{at - 1} /f{at}\n" for at in range(1, count))
        write(f"{root}/stages{count}/Dockerfile", text)
        write(f"{root}/stacked{count}/f", "x\n")
        text = "FROM scratch AS s0\nCOPY f /f0\n" + "".join(f"FROM s{at - 1} AS s{at}\nCOPY f /f{at}\n" for at in range(1, count))
        write(f"{root}/stacked{count}/Dockerfile", text)
        write(f"{root}/joined{count}/f", "x\n")
        text = "".join(f"FROM scratch AS s{at}\nCOPY f /f{at}\n" for at in range(count))
        text += "FROM scratch\n" + "".join(f"COPY --from=s{at} /f{at} /\n" for at in range(count))
        write(f"{root}/joined{count}/Dockerfile", text)


def prose(mib):
    """So much text: words of which some are frequent and most are not, in lines."""
    words = ["".join(random.choices("etaoinshrdlucmfwypvbgkqjxz", range(26, 0, -1), k=random.randint(2, 11))) for _ in range(20000)]
    weights = [1 / (at + 5) for at in range(len(words))]
    text = bytearray()
    while len(text) < mib << 20:
        text += " ".join(random.choices(words, weights, k=100000)).encode().replace(b" e", b"\n")
    return bytes(text[: mib << 20])


def text(root):
    """One file of a gibibyte of text: it repeats itself at distances that gzip does not see."""
    random.seed(3)
    os.makedirs(f"{root}/text")
    pool = prose(min(FILE_MIB, 64))
    with open(f"{root}/text/file", "wb") as file:
        for _ in range(FILE_MIB):
            at = random.randrange(len(pool))
            file.write((pool[at:] + pool)[: 1 << 20])
    write(f"{root}/text/Dockerfile", "FROM scratch\nCOPY file /file\n")


def blob(layout, data):
    """Puts a blob into an OCI layout; gives its digest."""
    name = hashlib.sha256(data).hexdigest()
    os.makedirs(f"{layout}/blobs/sha256", exist_ok=True)
    with open(f"{layout}/blobs/sha256/{name}", "wb") as file:
        file.write(data)
    return f"sha256:{name}"


def layers(root):
    """An image of six layers in three OCI layouts, plain, gzip and zstd; their blobs in FORM.digests, and the archives as 1.tar.gz to 6.tar.gz too."""
    random.seed(4)
    pool = prose(32)
    archives = []
    for number in range(1, 7):
        out, size = io.BytesIO(), 0
        with tarfile.open(fileobj=out, mode="w") as archive:
            entry = tarfile.TarInfo(f"l{number}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
            for at in range(1 << 20):
                if size >= LAYER_MIB << 20:
                    break
                length, start = random.choice([200, 1000, 4000, 16000, 64000, 256000]), random.randrange(len(pool) - 256000)
                data = random.randbytes(length) if at % 10 == 0 else pool[start : start + length]
                if at % 100 == 0:
                    entry = tarfile.TarInfo(f"l{number}/d{at // 100}")
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1700000000
                    archive.addfile(entry)
                entry = tarfile.TarInfo(f"l{number}/d{at // 100}/f{at}")
                entry.size, entry.mtime = length, 1700000000
                archive.addfile(entry, io.BytesIO(data))
                size += length
        archives.append(out.getvalue())
    for form, command in (("plain", ["cat"]), ("gzip", ["gzip", "-n"]), ("zstd", ["zstd", "-q"])):
        if not shutil.which(command[0]):
            continue
        layout = f"{root}/layers/{form}"
        packed = [subprocess.run(command, input=archive, stdout=subprocess.PIPE, check=True).stdout for archive in archives]
        described = [(blob(layout, data), len(data)) for data in packed]
        suffix = "" if form == "plain" else f"+{form}"
        image = {"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", "os": "linux", "config": {}}
        image["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}" for archive in archives]}
        image = json.dumps(image).encode()
        kind = "application/vnd.oci.image"
        manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json"}
        manifest["config"] = {"mediaType": f"{kind}.config.v1+json", "digest": blob(layout, image), "size": len(image)}
        manifest["layers"] = [{"mediaType": f"{kind}.layer.v1.tar{suffix}", "digest": digest, "size": size} for digest, size in described]
        manifest = json.dumps(manifest).encode()
        entry = {"mediaType": f"{kind}.manifest.v1+json", "digest": blob(layout, manifest), "size": len(manifest)}
        write(f"{layout}/index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        write(f"{layout}/oci-layout", '{"imageLayoutVersion": "1.0.0"}')
        write(f"{root}/layers/{form}.digests", "".join(f"{digest}\n" for digest, _ in described))
        if form == "gzip":
            for at, (digest, _) in enumerate(described):
                os.link(f"{layout}/blobs/{digest.replace(':', '/')}", f"{root}/layers/{at + 1}.tar.gz")


for what in sys.argv[2:]:
    globals()[what](sys.argv[1])
