//! [`Operation`]: the kinds of requests that the kernel sends, under the names of the system calls.

macro_rules! operations {
    ($($operation:ident $name:literal,)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is the system call of that name")]
        pub enum Operation {
            $($operation,)*
        }

        impl Operation {
            /// All of them, in the order of their index.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$operation,)*];
            /// How many there are.
            pub const COUNT: usize = [$($name),*].len();
            const NAMES: [&str; Self::COUNT] = [$($name),*];
        }
    };
}

operations! {
    Lookup "lookup",
    Getattr "getattr",
    Setattr "setattr",
    Readlink "readlink",
    Mknod "mknod",
    Mkdir "mkdir",
    Unlink "unlink",
    Rmdir "rmdir",
    Symlink "symlink",
    Rename "rename",
    Link "link",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Flush "flush",
    Release "release",
    Fsync "fsync",
    Opendir "opendir",
    Readdir "readdir",
    Releasedir "releasedir",
    Fsyncdir "fsyncdir",
    Statfs "statfs",
    Setxattr "setxattr",
    Getxattr "getxattr",
    Listxattr "listxattr",
    Removexattr "removexattr",
    Fallocate "fallocate",
    Lseek "lseek",
    CopyFileRange "copy_file_range",
    Getlk "getlk",
    Setlk "setlk",
}

impl Operation {
    /// Its place in [`Operation::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}
