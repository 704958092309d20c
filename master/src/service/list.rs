//! ListFiles: the paths of all regular files, page by page.

use cairn_proto::pb;
use tonic::Status;

use super::Service;

/// Paths on a page unless the caller asks for fewer or more.
const PAGE_DEFAULT: u32 = 1000;
/// Most paths on a page.
const PAGE_MAX: u32 = 10_000;
/// Most bytes of paths on a page: below the 4 MiB that gRPC's clients accept by default.
const BYTES_MAX: usize = 3 * 1024 * 1024;

impl Service {
    /// One page.
    pub(super) async fn list(
        &self,
        request: pb::ListFilesRequest,
    ) -> Result<pb::ListFilesResponse, Status> {
        let mut size = match request.page_size {
            0 => PAGE_DEFAULT,
            asked => asked.min(PAGE_MAX),
        };
        loop {
            let token = request.page_token.clone();
            let page = self.ops.call(false, move |namespace| namespace.list_files(&token, size));
            let (filenames, next_page_token) = page.await??;
            let bytes: usize = filenames.iter().map(|f| f.len() + 8).sum();
            if bytes <= BYTES_MAX || size == 1 {
                return Ok(pb::ListFilesResponse { filenames, next_page_token });
            }
            size = (size / 4).max(1);
        }
    }
}
