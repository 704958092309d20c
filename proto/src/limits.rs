//! Bounds that every process enforces on what it receives.

/// Longest file name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path in bytes, and longest target of a symbolic link plus one.
pub const PATH_MAX: usize = 4096;
/// Longest target of a symbolic link in bytes.
pub const SYMLINK_MAX: usize = PATH_MAX - 1;
/// Largest file in bytes.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Most names of one inode.
pub const LINK_MAX: u32 = 65_000;
/// Longest name of an extended attribute in bytes.
pub const XATTR_NAME_MAX: usize = 255;
/// Largest value of an extended attribute in bytes.
pub const XATTR_SIZE_MAX: usize = 65_536;
/// Largest list of extended attribute names in bytes, each with its NUL.
pub const XATTR_LIST_MAX: usize = 65_536;

/// Default chunk size in bytes.
pub const CHUNK_SIZE_DEFAULT: u32 = 64 * 1024;
/// Smallest chunk size in bytes.
pub const CHUNK_SIZE_MIN: u32 = 4 * 1024;
/// Largest chunk size in bytes.
pub const CHUNK_SIZE_MAX: u32 = 16 * 1024 * 1024;
/// References in one manifest segment.
pub const SEGMENT_REFS: u64 = 128;

/// Payload of one batch on a chunk stream in bytes; a single larger chunk travels alone.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Most chunks in one batch, `Have` or `ListChunks` message.
pub const BATCH_CHUNKS: usize = 4096;
/// Largest gRPC message that is accepted anywhere, in bytes: the largest chunk and its frame.
pub const MESSAGE_MAX: usize = CHUNK_SIZE_MAX as usize + 1024 * 1024;
/// Most chunk changes in one commit.
pub const COMMIT_CHANGES_MAX: usize = 4096;
/// Longest range in bytes that one operation shares: bounds the work where nothing lies in it.
pub const CLONE_MAX: u64 = 64 << 30;
/// Most entries in one directory page.
pub const DIR_PAGE_MAX: u32 = 4096;
/// Most references in one manifest page.
pub const MANIFEST_PAGE_MAX: u32 = 16_384;
/// Most chunks of a page in `GetManifest`: stays far below gRPC's default limit of 4 MiB.
pub const LEGACY_PAGE_MAX: u32 = 32_768;
/// Most bits of a placement group.
pub const PG_BITS_MAX: u32 = 16;
/// Most copies of a chunk.
pub const REPLICAS_MAX: u32 = 16;
/// Most nodes in a map.
pub const NODES_MAX: usize = 4096;

const _: () = assert!(CHUNK_SIZE_DEFAULT >= CHUNK_SIZE_MIN && CHUNK_SIZE_DEFAULT <= CHUNK_SIZE_MAX);
const _: () = assert!(MESSAGE_MAX > CHUNK_SIZE_MAX as usize);
