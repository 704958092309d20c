//! Skeleton of the file data path's interface.

pub mod cut;
pub mod errors;
pub mod ranges;
pub mod readahead;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{Attr, FsError, Ino, pb};

pub use self::{
    errors::{SeenErrors, WriteBackErrors},
    readahead::ReadAhead,
};
use crate::{
    chunks::Chunks,
    rpc::{Caller, Session},
};

#[allow(missing_docs, clippy::unused_async, clippy::allow_attributes_without_reason)]
mod skeleton {
    use super::*;
    #[derive(Clone, Copy, Debug)]
    pub struct Origin {
        pub caller: Caller,
        pub kill_suid_sgid: bool,
    }
    pub struct FileContext {
        chunks: Chunks,
    }
    impl FileContext {
        pub fn new(_s: Session, chunks: Chunks, _d: usize, _t: Duration) -> Self {
            Self { chunks }
        }
        pub fn chunks(&self) -> &Chunks {
            &self.chunks
        }
    }
    pub struct Files {
        context: FileContext,
    }
    impl Files {
        pub fn new(context: FileContext) -> Self {
            Self { context }
        }
        pub fn context(&self) -> &FileContext {
            &self.context
        }
        pub fn get(&self, _ino: Ino) -> Option<Arc<File>> {
            None
        }
        pub fn hold(&self, ino: Ino) -> Hold {
            Hold(Arc::new(File { ino }))
        }
        pub fn is_last(&self, _h: &Hold) -> bool {
            true
        }
        pub fn merged(&self, attr: Attr) -> Attr {
            attr
        }
        pub async fn flush_all(&self) -> Result<(), FsError> {
            Ok(())
        }
    }
    pub struct Hold(Arc<File>);
    impl Hold {
        pub fn file(&self) -> &Arc<File> {
            &self.0
        }
        pub fn opened(&mut self) {}
    }
    pub struct File {
        ino: Ino,
    }
    impl File {
        pub fn ino(&self) -> Ino {
            self.ino
        }
        pub async fn flush(&self) -> Result<(), FsError> {
            Ok(())
        }
        pub fn resized(&self, _a: Attr) {}
        pub fn absorb(&self, _a: Attr) {}
        pub fn opened(&self, _a: Attr, _m: Option<pb::ManifestPage>, _k: u64) -> bool {
            false
        }
        pub fn merged(&self, a: Attr) -> Attr {
            a
        }
        pub fn error_cursor(&self) -> SeenErrors {
            WriteBackErrors::default().cursor()
        }
        pub fn check_errors(&self, _s: &mut SeenErrors) -> Result<(), FsError> {
            Ok(())
        }
        pub fn pages_version(&self) -> u64 {
            0
        }
        pub fn size(&self) -> u64 {
            0
        }
        pub async fn read(
            &self,
            _c: Caller,
            _a: &Mutex<ReadAhead>,
            _o: u64,
            _l: usize,
        ) -> Result<Bytes, FsError> {
            Err(FsError::NotImplemented)
        }
        pub fn read_now(&self, _a: &Mutex<ReadAhead>, _o: u64, _l: usize) -> Option<Bytes> {
            None
        }
        pub async fn write(&self, _g: Origin, _o: u64, _d: &[u8]) -> Result<(), FsError> {
            Err(FsError::NotImplemented)
        }
        pub async fn append(&self, _g: Origin, _d: &[u8]) -> Result<(), FsError> {
            Err(FsError::NotImplemented)
        }
        pub fn write_now(&self, _g: Origin, _o: u64, _d: &[u8]) -> bool {
            false
        }
        pub async fn clear(&self, _g: Origin, _o: u64, _e: u64) -> Result<(), FsError> {
            Err(FsError::NotImplemented)
        }
        pub async fn seek(&self, _c: Caller, _o: u64, _d: bool) -> Result<u64, FsError> {
            Err(FsError::NotImplemented)
        }
    }
}
pub use skeleton::{File, FileContext, Files, Hold, Origin};
