//! Hello: the first call of everybody.

use cairn_proto::{handshake, pb};
use tonic::Status;
use uuid::Uuid;

use super::Service;

impl Service {
    /// Who we are, unless the caller speaks another version or looks for another file system.
    pub(super) fn greet(&self, hello: &pb::HelloRequest) -> Result<pb::HelloResponse, Status> {
        if hello.version != handshake::VERSION {
            return Err(Status::failed_precondition(format!(
                "the caller speaks protocol version {}, this master version {}: \
                 use the same release on both sides",
                hello.version,
                handshake::VERSION
            )));
        }
        let ours = self.format.fs_uuid;
        if !hello.fs_uuid.is_empty() && Uuid::parse_str(&hello.fs_uuid) != Ok(ours) {
            return Err(Status::failed_precondition(format!(
                "the caller belongs to file system {}, this master to {ours}: \
                 check the address of the master",
                hello.fs_uuid
            )));
        }
        Ok(pb::HelloResponse {
            version: handshake::VERSION,
            features: handshake::FEATURES,
            fs_uuid: ours.to_string(),
            chunk_size: self.format.chunk_size,
            node_id: String::new(),
        })
    }
}
