#!/usr/bin/python3
"""slow-disk.py FILE DIRECTORY: FILE as DIRECTORY/disk, each flush of which takes 10 ms more. It ends when DIRECTORY is unmounted.

For a loop device: the kernel asks for a flush of the file when the file system on that device asks for one of the disk.
"""
import errno
import os
import stat
import sys
import time

import fusepy

FLUSH = 0.010
FILE = "/disk"


class Disk(fusepy.Operations):
    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR)

    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path != FILE:
            raise fusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(self.file).st_size}

    def read(self, path, size, offset, fh):
        return os.pread(self.file, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(self.file, data, offset)

    def fsync(self, path, datasync, fh):
        os.fdatasync(self.file)
        time.sleep(FLUSH)
        return 0


fusepy.FUSE(Disk(sys.argv[1]), sys.argv[2], big_writes=True)
