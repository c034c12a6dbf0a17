"""Makes what the benches build: the same bytes every time. Usage: trees.py DIRECTORY"""

import io
import os
import random
import sys
import tarfile

SIZES = [100, 500, 1000, 2000, 4000, 8000]


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
    """One file of a gibibyte."""
    os.makedirs(f"{root}/big")
    with open(f"{root}/big/file", "wb") as file:
        for _ in range(1024):
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


for make in (many, big, archive, small, stages):
    make(sys.argv[1])
