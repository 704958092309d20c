"""Prints what system calls make of modes, owners, times, link counts and names in the current directory.

Run as root on the local disk and on a mount: both must print the same. Nothing that differs between two
runs (numbers of inodes, moments) is printed, only how it relates to something else.
"""

import ctypes
import errno
import itertools
import os
import socket
import stat
import subprocess
import time

libc = ctypes.CDLL(None, use_errno=True)
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100


def name_of(error):
    return errno.errorcode[error.errno]


def told(what, call):
    """Prints what `call` returns, or its errno."""
    try:
        print(what, "->", call())
    except OSError as error:
        print(what, "->", name_of(error))


def syscall(function, *arguments):
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return "ok"


def as_user(uid, gid, groups, call):
    """What `call` returns or fails with, run by a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        try:
            said = str(call())
        except OSError as error:
            said = name_of(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return said


def make(path, kind="file", mode=0o644):
    if kind == "file":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    elif kind == "dir":
        os.mkdir(path, mode)
    elif kind == "full":
        os.mkdir(path, mode)
        make(path + "/inside")
    elif kind == "link":
        os.symlink("nowhere", path)
    elif kind == "fifo":
        os.mkfifo(path, mode)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.close()
        os.chmod(path, mode)
    else:
        os.mknod(path, mode | {"char": stat.S_IFCHR, "block": stat.S_IFBLK}[kind], os.makedev(259, 70000))


def forget(path):
    if os.path.islink(path) or not os.path.isdir(path):
        if os.path.lexists(path):
            os.remove(path)
        return
    for inside in os.listdir(path):
        forget(path + "/" + inside)
    os.rmdir(path)


def mode(path):
    return stat.filemode(os.lstat(path).st_mode)


KINDS = ["file", "dir", "full", "link", "fifo", "socket", "char", "block"]


def kinds_and_modes():
    for kind in KINDS:
        make("k", kind, 0o640)
        info = os.lstat("k")
        print(kind, mode("k"), info.st_nlink, info.st_uid, info.st_gid, os.major(info.st_rdev), os.minor(info.st_rdev))
        if kind != "link":
            for bits in [0o7777, 0o4755, 0o2755, 0o1644, 0]:
                os.chmod("k", bits)
                print(kind, oct(bits), mode("k"))
        told("lchown " + kind, lambda: os.lchown("k", 1, 2))
        info = os.lstat("k")
        print(kind, mode("k"), info.st_uid, info.st_gid)
        forget("k")
    os.umask(0o077)
    for kind in ["file", "dir", "fifo", "char"]:
        make("k", kind, 0o6777)
        print("umask 077", kind, mode("k"))
        forget("k")
    os.umask(0o022)


def set_id_bits():
    def fresh(bits):
        forget("s")
        make("s")
        os.write(fd := os.open("s", os.O_WRONLY), b"some bytes")
        os.close(fd)
        os.chown("s", 1, 1)
        os.chmod("s", bits)

    def write(flags):
        fd = os.open("s", os.O_WRONLY | flags)
        os.write(fd, b"x")
        os.close(fd)
        return mode("s")

    def pwrite():
        fd = os.open("s", os.O_RDWR)
        os.pwrite(fd, b"x", 100)
        os.close(fd)
        return mode("s")

    def shorten():
        os.truncate("s", 1)
        return mode("s")

    def lengthen():
        fd = os.open("s", os.O_RDWR)
        os.ftruncate(fd, 1000)
        os.close(fd)
        return mode("s")

    def empty():
        os.close(os.open("s", os.O_WRONLY | os.O_TRUNC))
        return mode("s")

    def allocate():
        fd = os.open("s", os.O_RDWR)
        os.posix_fallocate(fd, 0, 100000)
        os.close(fd)
        return mode("s")

    def nothing():
        fd = os.open("s", os.O_WRONLY)
        os.write(fd, b"")
        os.close(fd)
        return mode("s")

    def give(group):
        os.chown("s", -1, group)
        return mode("s")

    calls = {
        "write": lambda: write(0), "append": lambda: write(os.O_APPEND), "pwrite": pwrite, "truncate": shorten,
        "ftruncate": lengthen, "O_TRUNC": empty, "fallocate": allocate, "write of nothing": nothing,
        "chgrp to one's own": lambda: give(60), "chgrp to the same": lambda: give(1), "chgrp to a stranger's": lambda: give(2),
    }
    for bits in [0o6777, 0o6766, 0o2767, 0o4722, 0o777]:
        for what, call in calls.items():
            for who, caller in {"owner": (1, 1, [60]), "other": (5, 5, []), "member": (5, 1, [])}.items():
                if who == "other" and bits & 0o2010 == 0o2000:
                    # Without the right to execute for the group the bit has no meaning. The kernel's part
                    # for FUSE leaves it, as Linux did for all file systems until 6.2.
                    continue
                fresh(bits)
                print(oct(bits), what, "by", who, "->", as_user(*caller, call), mode("s"))
            fresh(bits)
            told(f"{oct(bits)} {what} by root", call)
    fresh(0o6777)
    for owner in [(1, -1), (-1, 1), (2, 2), (-1, -1)]:
        os.chmod("s", 0o6777)
        os.chown("s", *owner)
        print("chown by root", owner, mode("s"))
    os.chmod("s", 0o2666)
    os.chown("s", 2, 2)
    print("mandatory locking bit", mode("s"))
    forget("s")
    make("s", "dir", 0o777)
    os.chmod("s", 0o6777)
    os.chown("s", 1, 1)
    print("chown of a directory", mode("s"))
    print("chmod outside one's group", as_user(1, 5, [], lambda: os.chmod("s", 0o2755)), mode("s"))
    forget("s")


def set_group_id_directories():
    make("g", "dir", 0o777)
    os.chown("g", 0, 60)
    os.chmod("g", 0o2777)
    for kind in KINDS:
        make("g/k", kind, 0o755)
        info = os.lstat("g/k")
        print("in a set-group-id directory", kind, mode("g/k"), info.st_gid)
        forget("g/k")
    for bits in [0o2755, 0o2644, 0o6711]:
        as_user(5, 5, [], lambda: os.close(os.open("g/k", os.O_CREAT | os.O_WRONLY, bits)))
        print("made there by a stranger", oct(bits), mode("g/k"))
        forget("g/k")
    forget("g")


def sticky_directories():
    make("t", "dir")
    os.chmod("t", 0o1777)
    for owner, caller in itertools.product([1, 5], [1, 5, 0]):
        for what, call in {
            "unlink": lambda: os.unlink("t/f"),
            "rename away": lambda: os.rename("t/f", "t/g"),
            "rename over": lambda: os.rename("t/h", "t/f"),
        }.items():
            for name in ["t/f", "t/g", "t/h"]:
                forget(name)
            make("t/f")
            os.chown("t/f", owner, owner)
            as_user(caller, caller, [], lambda: make("t/h"))
            print("sticky", what, "of", owner, "by", caller, as_user(caller, caller, [], call))
    forget("t")


def times():
    def stamp(path="f"):
        info = os.lstat(path)
        return info.st_atime_ns, info.st_mtime_ns

    def utimens(path, atime, mtime, flags=0):
        pair = (ctypes.c_int64 * 4)(*atime, *mtime)
        return syscall("utimensat", AT_FDCWD, path.encode(), pair, flags)

    make("f")
    for seconds, nanos in [(0, 0), (1, 1), (-1, 0), (-1, 999999999), (-1, 250000000), (-2**31 + 1, 5), (2**31 - 1, 999999999),
                           (2**31, 0), (2**31 + 1, 123456789), (4102444800, 7), (2**32 + 3, 1), (2**33, 999999999)]:
        utimens("f", (seconds, nanos), (seconds + 1, nanos))
        atime, mtime = stamp()
        print("time", seconds, nanos, atime == seconds * 10**9 + nanos, mtime - atime)
    told("too many nanoseconds", lambda: utimens("f", (0, 10**9), (0, 0)))
    utimens("f", (5, 6), (7, 8))
    utimens("f", (0, OMIT), (9, 1))
    print("atime omitted", stamp())
    utimens("f", (3, 2), (0, OMIT))
    print("mtime omitted", stamp())
    before = os.lstat("f").st_ctime_ns
    time.sleep(0.02)
    utimens("f", (0, OMIT), (0, OMIT))
    print("both omitted", stamp(), os.lstat("f").st_ctime_ns == before)
    utimens("f", (0, NOW), (0, OMIT))
    print("atime now", abs(stamp()[0] - time.time_ns()) < 10**10, stamp()[1])
    os.symlink("f", "l")
    utimens("l", (11, 1), (12, 2), 0x100)
    print("of a link", stamp("l"), stamp()[1])
    os.chown("f", 1, 1)
    os.chmod("f", 0o666)
    for who, caller in {"owner": (1, 1, []), "writer": (5, 5, [])}.items():
        for what, pair in {"now": ((0, NOW), (0, NOW)), "values": ((1, 1), (2, 2)), "one now": ((0, NOW), (0, OMIT)),
                           "nothing": ((0, OMIT), (0, OMIT))}.items():
            print("utimensat", what, "by", who, as_user(*caller, lambda: utimens("f", *pair)))
    os.chmod("f", 0o444)
    print("now without the right to write", as_user(5, 5, [], lambda: utimens("f", (0, NOW), (0, NOW))))
    forget("l")
    forget("f")
    make("d", "dir")
    make("d/f")
    changes = {
        "chmod": ("d/f", lambda: os.chmod("d/f", 0o600)), "chown": ("d/f", lambda: os.chown("d/f", 1, 1)),
        "link": ("d/f", lambda: os.link("d/f", "d/g")), "unlink": ("d/f", lambda: os.unlink("d/g")),
        "rename": ("d/f", lambda: os.rename("d/f", "d/h")), "rename back": ("d/h", lambda: os.rename("d/h", "d/f")),
        "write": ("d/f", lambda: subprocess.run(["sh", "-c", "echo 1 >> d/f"], check=True)),
        "truncate": ("d/f", lambda: os.truncate("d/f", 0)), "truncate to the same": ("d/f", lambda: os.truncate("d/f", 0)),
        "setxattr": ("d/f", lambda: os.setxattr("d/f", "user.x", b"1")),
        "chown of nothing": ("d/f", lambda: os.chown("d/f", -1, -1)), "mkdir": ("d", lambda: os.mkdir("d/n")),
        "rmdir": ("d", lambda: os.rmdir("d/n")), "failing mkdir": ("d", lambda: os.mkdir("d/f")),
    }
    for what, (path, call) in changes.items():
        fd = os.open(path, os.O_RDONLY)
        old, old_dir = os.fstat(fd), os.stat("d")
        time.sleep(0.02)
        try:
            call()
        except OSError as error:
            print(what, name_of(error))
        new, new_dir = os.fstat(fd), os.stat("d")
        os.close(fd)
        print(what, "changes mtime", new.st_mtime_ns > old.st_mtime_ns, "ctime", new.st_ctime_ns > old.st_ctime_ns,
              "of the directory", new_dir.st_mtime_ns > old_dir.st_mtime_ns, new_dir.st_ctime_ns > old_dir.st_ctime_ns)
    forget("d")


def access_times():
    """`relatime`: the first read after a change counts. Reads pass the page cache by where they have to.

    What is wanted is written down here: a local disk may be mounted with `noatime`.
    """
    counts = not os.statvfs(".").f_flag & os.ST_NOATIME
    make("d", "dir")
    subprocess.run(["sh", "-c", "echo text > d/f; ln -s f d/l"], check=True)

    def after(what, path, call, wanted):
        old = os.lstat(path).st_atime_ns
        time.sleep(0.02)
        call()
        assert not counts or (os.lstat(path).st_atime_ns > old) == wanted, what
        print("atime", what, wanted)

    def read():
        fd = os.open("d/f", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.read(fd, 10)
        os.close(fd)

    def change():
        subprocess.run(["sh", "-c", "echo more >> d/f"], check=True)

    after("at the first read", "d/f", read, True)
    after("at the second", "d/f", read, False)
    after("at a write", "d/f", change, False)
    after("at the read after it", "d/f", read, True)
    after("at the next", "d/f", read, False)
    os.utime("d/f", ns=(time.time_ns() - 25 * 3600 * 10**9, 10**9))
    after("when it is a day old", "d/f", read, True)
    os.utime("d/f", (5, 5))
    print("set", os.lstat("d/f").st_atime_ns)
    after("at a listing", "d", lambda: os.listdir("d"), True)
    after("at a second listing", "d", lambda: os.listdir("d"), False)
    after("of the directory when something is made", "d", lambda: make("d/n"), False)
    after("at a listing after that", "d", lambda: os.listdir("d"), True)
    after("when a link is read", "d/l", lambda: os.readlink("d/l"), True)
    forget("d")


def link_counts():
    make("d", "dir")
    make("f")
    counts = lambda: (os.stat("d").st_nlink, os.stat("f").st_nlink)
    print("links", counts())
    for step in [lambda: os.mkdir("d/a"), lambda: os.mkdir("d/b"), lambda: os.link("f", "d/f"), lambda: os.link("f", "d/g"),
                 lambda: os.rename("d/a", "a"), lambda: os.rename("d/f", "d/g"), lambda: os.unlink("d/g"),
                 lambda: make("d/x"), lambda: os.rename("d/x", "d/f"), lambda: os.unlink("d/f"),
                 lambda: os.rmdir("d/b"), lambda: os.rename("a", "d/a")]:
        step()
        print("links", counts())
    os.symlink("f", "l")
    os.link("l", "l2", follow_symlinks=False)
    print("links of a symbolic link", os.lstat("l").st_nlink, os.readlink("l2"))
    fd = os.open("f", os.O_RDONLY)
    os.unlink("f")
    print("links of an open file without a name", os.fstat(fd).st_nlink)
    told("a new name for it", lambda: os.link(f"/proc/self/fd/{fd}", "again", follow_symlinks=True))
    os.close(fd)
    make("e", "dir")
    fd = os.open("e", os.O_RDONLY)
    os.rmdir("e")
    print("links of a removed directory", os.fstat(fd).st_nlink)
    told("a file in it", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    for name in ["d", "l", "l2"]:
        forget(name)
    told("a link to a directory", lambda: os.link(".", "d/x"))


def renames():
    flags = {"": 0, "NOREPLACE": 1, "EXCHANGE": 2, "both": 3, "WHITEOUT": 4, "unknown": 8}
    for (word, flag), source, target in itertools.product(flags.items(), ["none", *KINDS], ["none", *KINDS]):
        if word in ("both", "unknown") and (source, target) != ("file", "file"):
            continue
        if word == "WHITEOUT" and source != "none":
            continue
        for name, kind in (("from", source), ("to", target)):
            if kind != "none":
                make(name, kind)
        told(f"rename {word} {source} to {target}",
             lambda: syscall("renameat2", AT_FDCWD, b"from", AT_FDCWD, b"to", flag))
        print("   ", [mode(name) if os.path.lexists(name) else None for name in ("from", "to")])
        forget("from")
        forget("to")
    make("d", "dir")
    make("d/e", "dir")
    for word, flag in list(flags.items())[:3]:
        rename = lambda old, new: syscall("renameat2", AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flag)
        for old, new in [("d", "d/e/x"), ("d", "d/e"), ("d/e", "d"), ("d", "d"), ("d/.", "x"), ("d/e/..", "x"), ("d", "d/.")]:
            told(f"rename {word} {old} {new}", lambda: rename(old, new))
    make("f")
    os.link("f", "g")
    os.rename("f", "g")
    print("two names of one file", sorted(os.listdir(".")))
    for name in ["d", "f", "g"]:
        forget(name)


def names_and_links():
    longest = "n" * 255
    calls = {
        "open": lambda n: os.close(os.open(n, os.O_CREAT | os.O_WRONLY)), "mkdir": os.mkdir, "mkfifo": os.mkfifo,
        "symlink": lambda n: os.symlink("x", n), "stat": os.lstat, "unlink": os.unlink, "rmdir": os.rmdir,
        "readlink": os.readlink, "truncate": lambda n: os.truncate(n, 0), "chmod": lambda n: os.chmod(n, 0o600),
        "link": lambda n: os.link("f", n), "rename": lambda n: os.rename("f", n), "getxattr": lambda n: os.getxattr(n, "user.x"),
        "listdir": os.listdir, "statvfs": lambda n: os.statvfs(n).f_namemax,
    }
    make("f")
    os.symlink("loop", "loop")
    path = "/".join(["d" * 200] * 21)
    for what, call in calls.items():
        for kind, name in {"name of 256": longest + "n", "path of 4,220": path, "loop": "loop/x", "file as directory": "f/x",
                           "nothing": "", "missing directory": "none/x", "trailing slash": "f/"}.items():
            try:
                call(name)
                print(what, kind, "ok")
            except OSError as error:
                print(what, kind, name_of(error))
    make(longest)
    print(os.path.exists(longest))
    forget(longest)
    for length in [1, 59, 60, 4094, 4095, 4096]:
        told(f"symlink of {length}", lambda: os.symlink("x" * length, "l"))
        if os.path.lexists("l"):
            print(os.lstat("l").st_size == length, len(os.readlink("l")) == length)
            told("open of it", lambda: os.open("l", os.O_RDONLY))
            forget("l")
    os.symlink("f", "l")
    flags = {"O_NOFOLLOW": os.O_NOFOLLOW, "O_EXCL": os.O_CREAT | os.O_EXCL, "O_DIRECTORY": os.O_DIRECTORY,
             "O_CREAT|O_DIRECTORY": os.O_CREAT | os.O_DIRECTORY, "O_PATH": os.O_PATH | os.O_NOFOLLOW}
    make("d", "dir")
    make("p", "fifo")
    make("s", "socket")
    for (what, flag), name in itertools.product(flags.items(), ["f", "l", "loop", "d", "none"]):
        if what != "O_CREAT|O_DIRECTORY" or name != "none":
            told(f"open {what} {name}", lambda: os.close(os.open(name, flag)))
    told("open s", lambda: os.open("s", os.O_RDONLY))
    told("open p for writing at once", lambda: os.open("p", os.O_WRONLY | os.O_NONBLOCK))
    told("open d for writing", lambda: os.open("d", os.O_WRONLY))
    told("unlink d", lambda: os.unlink("d"))
    told("rmdir f", lambda: os.rmdir("f"))
    told("rmdir .", lambda: os.rmdir("."))
    told("rmdir d/.", lambda: os.rmdir("d/."))
    told("rmdir d/..", lambda: os.rmdir("d/.."))
    told("read d", lambda: os.read(os.open("d", os.O_RDONLY), 1))
    told("truncate d", lambda: os.truncate("d", 0))
    told("truncate p", lambda: os.truncate("p", 0))
    told("truncate to less than nothing", lambda: os.truncate("f", -1))
    told("link over", lambda: os.link("f", "l"))
    told("link out", lambda: os.link("f", "/proc/self/x"))
    told("rename out", lambda: os.rename("f", "/proc/x"))
    told("seek behind the end", lambda: os.lseek(os.open("f", os.O_RDONLY), 10, os.SEEK_DATA))
    told("seek a hole behind the end", lambda: os.lseek(os.open("f", os.O_RDONLY), 10, os.SEEK_HOLE))
    told("write to a reader's handle", lambda: os.write(os.open("f", os.O_RDONLY), b"x"))
    told("read a writer's handle", lambda: os.read(os.open("f", os.O_WRONLY), 1))
    told("a new user's file", lambda: as_user(5, 5, [], lambda: make("new")))
    os.chmod("f", 0)
    told("a file without rights", lambda: as_user(5, 5, [], lambda: os.open("f", os.O_RDONLY)))
    for name in ["d", "p", "s", "l", "loop", "f"]:
        forget(name)


def executables():
    subprocess.run(["cp", "/bin/sleep", "exe"], check=True)
    runs = subprocess.Popen(["./exe", "30"])
    told("open of what runs", lambda: os.open("exe", os.O_WRONLY))
    told("truncate of what runs", lambda: os.truncate("exe", 0))
    os.rename("exe", "moved")
    runs.kill()
    runs.wait()
    fd = os.open("moved", os.O_WRONLY)
    told("exec of what is being written", lambda: os.posix_spawn("./moved", ["moved", "0"], {}))
    os.close(fd)
    os.chmod("moved", 0o644)
    told("exec without the right to", lambda: os.posix_spawn("./moved", ["moved", "0"], {}))
    forget("moved")


def attributes_and_limits():
    make("f")
    told("value of 65,537", lambda: os.setxattr("f", "user.x", b"x" * 65537))
    os.setxattr("f", "user.x", b"value")
    buffer = ctypes.create_string_buffer(3)
    libc.getxattr(b"f", b"user.x", buffer, 3)
    print("too little room", errno.errorcode[ctypes.get_errno()])
    libc.listxattr(b"f", buffer, 3)
    print("too little room for the list", errno.errorcode[ctypes.get_errno()])
    told("create what is there", lambda: os.setxattr("f", "user.x", b"", os.XATTR_CREATE))
    told("replace what is not there", lambda: os.setxattr("f", "user.y", b"", os.XATTR_REPLACE))
    told("name of 256", lambda: os.setxattr("f", "user." + "n" * 251, b""))
    told("empty name", lambda: os.setxattr("f", "", b""))
    told("list of nothing", lambda: os.listxattr("none"))
    for kind in KINDS:
        make("k", kind)
        for name in ["user.x", "trusted.x", "security.x", "system.posix_acl_access", "system.posix_acl_default"]:
            told(f"{name} on {kind}", lambda: os.setxattr("k", name, b"\2\0\0\0", follow_symlinks=False))
        for value in [b"", b"\1\0\0\0", b"\2\0\0", b"\2\0\0\0\1\0\7\0\0\0\0\0", b"\2\0\0\0" + b"\1\0\7\0\xff\xff\xff\xff" * 3]:
            told(f"{value} on {kind}", lambda: os.setxattr("k", "system.posix_acl_access", value, follow_symlinks=False))
        forget("k")
    forget("f")


os.umask(0o022)
os.chmod(".", 0o777)
for theme in [kinds_and_modes, set_id_bits, set_group_id_directories, sticky_directories, times, access_times, link_counts,
              renames, names_and_links, executables, attributes_and_limits]:
    print("==", theme.__name__, flush=True)
    theme()
